#!/usr/bin/env python3
"""What quantizers and teachers cost in training: benchmarks/qat_cost.py TERN -o NAME [--rounds 3] [--steps 12].

Every case trains the same dense model (recipes/ablation_dense.yaml's) a few steps, with what the case adds: fake quantizers, a
teacher of the same shape in memory, or what it says from a store that was filled before. In each round all cases run one after the other
and the ratio to the baseline is taken; the table has medians, minimum and maximum over the rounds.
Tokens a second are those of whole steps without evaluation, memory is the most that libtorch's allocator gave out at one moment. Writes NAME.json
and NAME.md. Exit code 4 when a median misses its bound.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

REPO = pathlib.Path(__file__).resolve().parents[1]
KEPT = ("tokens_per_second", "peak_tensor_bytes")
KL = "train.losses={cross_entropy: {weight: 0}, forward_kl: {weight: 1}}"
TOP_K = "train.losses={cross_entropy: {weight: 0.5}, topk_kl: {weight: 1, k: 64}}"
BIT_LINEAR = ["model.linear=bitlinear", "export.formats=[hf/bitnet]"]


def rules(text):
    return ["train.quantize.rules={body: {weights: %s}}" % text]


# Name: (overrides, baseline, most of the baseline's step time, most of its memory); None: no bound.
CASES = {
    "dense": ([], None, None, None),
    "int4, groups of 64": (rules("int4, group: 64"), "dense", 1.2, 1.15),
    "2 bits, learned scales": (rules("seq2"), "dense", 1.2, 1.15),
    "nvfp4": (rules("nvfp4"), "dense", 1.2, 1.15),
    "fp8": (rules("fp8"), "dense", 1.2, 1.15),
    "BitLinear": (BIT_LINEAR, "dense", 1.2, 1.15),
    "2 bits, teacher in memory": ([*rules("seq2"), KL, "teacher.from={teacher}"], "2 bits, learned scales", None, None),
    "2 bits, store": ([*rules("seq2"), TOP_K, "teacher.from={teacher}", "teacher.store={store}"], "2 bits, learned scales", 1.1, None),
    "BitLinear, store": ([*BIT_LINEAR, TOP_K, "teacher.from={teacher}", "teacher.store={store}"], "BitLinear", 1.1, None),
}


def run(tern, folder, name, steps, overrides):
    again = ["--restart-from", "train"] if (folder / name).exists() else []
    command = [tern, "run", str(REPO / "recipes/ablation_dense.yaml"), "--runs", str(folder), *again, f"name={name}",
               f"train.steps={steps}", "train.schedule.warmup_steps=1", "train.eval_every=0",
               "train.eval_tokens=2048", "eval.perplexity.tokens=2048", *overrides]
    done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{name} failed:\n{done.stdout[-2000:]}")
    report = json.loads((folder / name / "report.json").read_text(encoding="utf-8"))
    result = next(stage["result"] for stage in report["stages"] if stage["kind"] == "train")
    return {key: result[key] for key in KEPT}


def ratios(rounds, name, baseline):
    """(step times over the baseline's, memories over the baseline's), a value a round."""
    times = [r[baseline]["tokens_per_second"] / r[name]["tokens_per_second"] for r in rounds]
    memories = [r[name]["peak_tensor_bytes"] / r[baseline]["peak_tensor_bytes"] for r in rounds]
    return times, memories


def words(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def table(rounds):
    lines, missed = [], []
    for name, (_, baseline, most_time, most_memory) in CASES.items():
        speed = statistics.median(r[name]["tokens_per_second"] for r in rounds)
        memory = statistics.median(r[name]["peak_tensor_bytes"] for r in rounds)
        row = f"| {name} | {speed:.0f} | {memory / 1e6:.0f} |"
        if baseline is None:
            lines.append(row + "  |  |  |")
            continue
        times, memories = ratios(rounds, name, baseline)
        lines.append(f"{row} {baseline} | {words(times)} | {words(memories)} |")
        for what, values, most in (("time", times, most_time), ("memory", memories, most_memory)):
            if most is not None and statistics.median(values) > most:
                missed.append(f"{name}: {what} {statistics.median(values):.3f}, want {most} at most")
    return lines, missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("tern")
    parser.add_argument("-o", "--output", required=True, help="path of the result without its ending")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as runs:
        folder = pathlib.Path(runs)
        run(options.tern, folder, "teacher", 2, [])
        teacher = folder / "teacher/exports/teacher-hf-f32"
        for index in range(options.rounds):
            done = {}
            for place, (name, (overrides, _, _, _)) in enumerate(CASES.items()):
                given = [text.format(teacher=teacher, store=folder / "store") if "{teacher}" in text or "{store}" in text else text
                         for text in overrides]
                done[name] = run(options.tern, folder, f"case{place}", options.steps, given)
                print(f"round {index + 1}, {name}: {done[name]}", flush=True)
            rounds.append(done)
    rows, missed = table(rounds)
    lines = [
        "# What quantizers and teachers cost in training",
        "",
        f"`benchmarks/qat_cost.py`, {options.rounds} rounds of {options.steps} steps of 1,024 tokens, the dense model of 10 M parameters, "
        f"{os.cpu_count()} processors, {platform.machine()}. Ratios: median (minimum-maximum).",
        "",
        "| case | tokens/s | most tensors, MB | beside | step time x | memory x |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        *(f"- missed: {text}" for text in missed),
    ]
    pathlib.Path(options.output + ".json").write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")
    pathlib.Path(options.output + ".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    sys.exit(4 if missed else 0)


if __name__ == "__main__":
    main()
