#!/usr/bin/env python3
"""GPTQ of tern and of gptqmodel (PyPI) on the same model, calibration tokens, bits and groups: seconds, peak memory and
perplexity on held-out text, which `tern eval` measures on both folders.

  benchmarks/gptq_vs_gptqmodel.py MODEL --peer-python PYTHON --calibration TEXT --hold NAME=TEXT [--hold NAME=TEXT]
      [--bits 4,3,2] [--tokens 8192] [--group 64] [--threads 2] [--tern-options="--rounds 2"] -o RESULT

PYTHON has gptqmodel, transformers and torch. The first --tokens of TEXT in sequences of 512 calibrate both. tern has one
sequence more, which it holds out for its report. Everything else must be quiet: the two run one behind the other.
"""

import argparse
import json
import math
import os
import pathlib
import shlex
import struct
import subprocess
import sys
import tempfile
import time

SEQUENCE = 512
# Of Megatron's .idx: magic, version, code of int32.
MAGIC, VERSION, INT32 = b"MMIDIDX\x00\x00", 1, 4


def write_megatron(stem, tokens):
    """One document as Megatron's .bin and .idx."""
    pathlib.Path(f"{stem}.bin").write_bytes(struct.pack(f"<{len(tokens)}i", *tokens))
    head = MAGIC + struct.pack("<QBQQ", VERSION, INT32, 1, 2)
    pathlib.Path(f"{stem}.idx").write_bytes(head + struct.pack("<iqqq", len(tokens), 0, 0, 1))


def peer_main(job):
    """In the peer's Python: tokenizes, or quantizes."""
    from transformers import AutoTokenizer

    if job["do"] == "tokens":
        text = pathlib.Path(job["text"]).read_text()[: 16 * job["count"]]
        ids = AutoTokenizer.from_pretrained(job["model"])(text, add_special_tokens=False)["input_ids"]
        if len(ids) < job["count"]:
            raise SystemExit(f"{job['text']} has {len(ids)} tokens; want {job['count']}")
        write_megatron(job["out"], ids[: job["count"]])
        pathlib.Path(job["out"] + ".json").write_text(json.dumps(ids[: job["count"]]))
        return
    from gptqmodel import GPTQModel, QuantizeConfig

    ids = json.loads(pathlib.Path(job["tokens"]).read_text())
    windows = [ids[i : i + SEQUENCE] for i in range(0, job["count"], SEQUENCE)]
    config = QuantizeConfig(bits=job["bits"], group_size=job["group"], offload_to_disk=False)
    model = GPTQModel.load(job["model"], config, device="cpu", dtype="float32")
    model.quantize([{"input_ids": w, "attention_mask": [1] * len(w)} for w in windows], batch_size=1)
    model.save(job["out"])


def measured(command, env=None, folder=None):
    """(seconds, peak memory in bytes) of a command that must succeed."""
    begin = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=env, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {shlex.join(map(str, command))}")
    return time.monotonic() - begin, usage.ru_maxrss * 1024


def perplexity(args, model, text, work):
    data = pathlib.Path(work) / "data"
    data.mkdir(exist_ok=True)
    (data / "perplexity.txt").write_bytes(pathlib.Path(text).read_bytes())
    out = subprocess.run(
        [args.tern, "eval", model, "--task", "perplexity", "--data", data, "--context", "2048", "--runtime", "libtorch",
         "--limit", str(args.eval_windows), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (task,) = json.loads(out.stdout)["tasks"]
    return math.exp(next(m["value"] for m in task["metrics"] if m["name"] == "loss"))


def run_peer(args, job):
    env = dict(os.environ, GPTQMODEL_CPU_WORKERS=str(args.threads), OMP_NUM_THREADS=str(args.threads),
               CUDA_VISIBLE_DEVICES="")  # fmt: skip
    # It writes a log where it is called.
    return measured([args.peer_python, os.path.abspath(__file__), "--job", json.dumps(job)], env, tempfile.gettempdir())


def compare(args, bits, source, tokens, holds, work):
    record = {}
    ours, theirs = f"{work}/tern{bits}", f"{work}/peer{bits}"
    to = {4: "int4", 3: "w3", 2: "w2"}[bits]
    command = [args.tern, "quantize", source, "-o", ours, "--to", to, "--group", args.group, "--calibration",
               f"{tokens}.idx", "--calibration-tokens", args.tokens, "--sequence", SEQUENCE, "--threads", args.threads,
               *shlex.split(args.tern_options)]  # fmt: skip
    job = {"do": "quantize", "model": str(source), "tokens": f"{tokens}.json", "count": args.tokens, "bits": bits,
           "group": args.group, "out": theirs}  # fmt: skip
    for name, folder, run in (("tern", ours, lambda: measured(command)), ("gptqmodel", theirs, lambda: run_peer(args, job))):
        seconds, memory = run()
        record[name] = {"seconds": seconds, "peak_memory_bytes": memory}
        record[name]["perplexity"] = {n: perplexity(args, folder, t, work) for n, t in holds.items()}
        print(bits, name, record[name], flush=True)
    return record


def table(result):
    names = list(result["source"])
    rows = [["bits", "program", "seconds", "peak memory, MB", *[f"perplexity, {n}" for n in names]]]
    rows.append(["---"] * len(rows[0]))
    rows.append(["source", "", "", "", *[f"{result['source'][n]:.2f}" for n in names]])
    for bits, record in result["bits"].items():
        for name, one in record.items():
            rows.append([str(bits), name, f"{one['seconds']:.0f}", f"{one['peak_memory_bytes'] / 1e6:.0f}",
                         *[f"{one['perplexity'][n]:.2f}" for n in names]])  # fmt: skip
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--job":
        return peer_main(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--tern", default="scripts/tern")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--hold", action="append", required=True, metavar="NAME=TEXT")
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eval-windows", type=int, default=3)
    parser.add_argument("--tern-options", default="")
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()
    holds = dict(hold.split("=", 1) for hold in args.hold)
    with tempfile.TemporaryDirectory() as work:
        source, tokens = pathlib.Path(work) / "source", f"{work}/calibration"
        measured([args.tern, "export", args.model, "--format", "hf/f32", "-o", source])
        run_peer(args, {"do": "tokens", "model": str(source), "text": args.calibration, "count": args.tokens + SEQUENCE,
                        "out": tokens})  # fmt: skip
        result = {"options": {"tokens": args.tokens, "group": args.group, "threads": args.threads,
                              "windows of 2048": args.eval_windows, "tern": args.tern_options}, "bits": {}}  # fmt: skip
        result["source"] = {n: perplexity(args, source, t, work) for n, t in holds.items()}
        for bits in map(int, args.bits.split(",")):
            result["bits"][bits] = compare(args, bits, source, tokens, holds, work)
            pathlib.Path(args.out + ".json").write_text(json.dumps(result, indent=1) + "\n")
    pathlib.Path(args.out + ".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
