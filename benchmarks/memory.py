#!/usr/bin/env python3
"""The plan against measured memory: benchmarks/memory.py TERN -o NAME [--case REGEX].

Each case is a recipe with a few steps, on one rank or four. Measured is the most that libtorch's CPU allocator gave out at
one moment of the training (src/train/tensor_memory.h), of the rank that has most; planned is what `tern plan` says of
tensors. A case holds when they differ by 10 % at most. For full sharding the peak with hardly any activations
(sequences of 8 tokens) is also held against 16 bytes a parameter, what one rank has of values, gradients and moments. Runs of
prepared data only: a case whose recipe asks for files that are not there is left out, and named. Writes NAME.json and NAME.md.
Exit code 4 when a case does not hold.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[1]
TOLERANCE = 0.10
FULL_SHARDING_SHARE = 0.35
WIDE = [f"model.{key}" for key in ("hidden_size=512", "intermediate_size=1536", "num_layers=8", "num_heads=8", "num_kv_heads=8")]
SMALL = ["train.tokens_per_step=32", "train.sequence_length=8", "train.micro_batch=1"]
# Name, recipe, overrides, ranks.
CASES = [
    ("quickstart", "quickstart", [], 1),
    ("quickstart, one pass a step", "quickstart", ["train.micro_batch=16"], 1),
    ("quickstart, fp32", "quickstart", ["train.precision=fp32"], 1),
    ("quickstart, blocks", "quickstart", ["train.activation_checkpointing=block"], 1),
    ("quickstart_dense", "quickstart_dense", [], 1),
    ("ablation_dense", "ablation_dense", [], 1),
    ("quickstart", "quickstart", [], 4),
    ("quickstart_dense, zero1", "quickstart_dense", ["parallel.shard=zero1"], 4),
    ("quickstart, zero2", "quickstart", ["parallel.shard=zero2"], 4),
    ("quickstart, zero3", "quickstart", ["parallel.shard=zero3"], 4),
    ("quickstart, zero3, bf16", "quickstart", ["parallel.shard=zero3", "parallel.reduce=bf16"], 4),
    ("width 512, one rank", "quickstart", [*WIDE, *SMALL], 1),
    ("width 512, full sharding", "quickstart", [*WIDE, *SMALL, "parallel.shard=zero3"], 4),
]


def result_of(journal):
    """The train stage's result once it has ended, else None."""
    if not journal.exists():
        return None
    for line in journal.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event.get("event") == "stage_ended" and event.get("stage") == "train":
            return event["result"]
    return None


def measure(tern, recipe, overrides, ranks, runs):
    name = "memory"
    shutil.rmtree(runs / name, ignore_errors=True)
    command = [tern, "run", str(REPO / "recipes" / (recipe + ".yaml")), f"name={name}", "train.steps=3",
               "train.schedule.warmup_steps=1", "train.eval_tokens=4096", *overrides]
    command += ["--runs", str(runs)] + (["--ranks", str(ranks)] if ranks > 1 else [])
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=REPO, start_new_session=True)
        result = None
        while result is None and process.poll() is None:
            time.sleep(0.2)
            result = result_of(runs / name / "journal.jsonl")
        result = result or result_of(runs / name / "journal.jsonl")
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        if result is None:
            log.seek(0)
            return None, log.read().strip().splitlines()[-1]
    return result, ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("tern")
    parser.add_argument("-o", "--output", required=True, help="path of the result without its ending")
    parser.add_argument("--case", default="", help="only cases whose name matches")
    options = parser.parse_args()
    rows, missed = [], []
    with tempfile.TemporaryDirectory() as runs:
        for name, recipe, overrides, ranks in CASES:
            if not re.search(options.case, name):
                continue
            result, why = measure(options.tern, recipe, overrides, ranks, pathlib.Path(runs))
            if result is None:
                missed.append(f"{name}: {why}")
                print(missed[-1], flush=True)
                continue
            row = {"case": name, "recipe": recipe, "overrides": overrides, "ranks": ranks}
            row |= {key: result[key] for key in ("parameters", "peak_tensor_bytes", "predicted_tensor_bytes")}
            row["ratio"] = row["predicted_tensor_bytes"] / row["peak_tensor_bytes"]
            row["share_of_16_p"] = row["peak_tensor_bytes"] / (16 * row["parameters"])
            rows.append(row)
            print(f"{name}, {ranks}: {row['ratio']:.3f}, {row['share_of_16_p']:.3f} of 16 P", flush=True)
    bad = [row for row in rows if abs(row["ratio"] - 1) > TOLERANCE]
    sharded = [row for row in rows if "full sharding" in row["case"] and row["share_of_16_p"] > FULL_SHARDING_SHARE]
    lines = [
        "# Planned against measured memory",
        "",
        f"`benchmarks/memory.py`, three steps each, libtorch's CPU allocator, {platform.machine()}. P: parameters.",
        "",
        "| case | ranks | measured peak a rank, MB | planned, MB | planned / measured | measured / 16 P bytes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['case']} | {row['ranks']} | {row['peak_tensor_bytes'] / 1e6:.1f} | {row['predicted_tensor_bytes'] / 1e6:.1f} "
            f"| {row['ratio']:.3f} | {row['share_of_16_p']:.3f} |"
        )
    lines += [f"- left out: {text}" for text in missed]
    pathlib.Path(options.output + ".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    pathlib.Path(options.output + ".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    sys.exit(4 if bad or sharded else 0)


if __name__ == "__main__":
    main()
