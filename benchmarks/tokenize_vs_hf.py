#!/usr/bin/env python3
"""Encoding speed of tern against HF tokenizers, in turns, on one and on two threads.

  benchmarks/tokenize_vs_hf.py TOOL MODEL TEXT... [--rounds 7] [--mib 16] -o benchmarks/results/NAME.json

TOOL is build/cpu/bin/tern-engine, MODEL a tokenizer.json or SmolLM2's GGUF file, TEXT files (or folders of .py, .txt, .md,
.rst, .h, .cc) of which --mib are cut into documents of some 4 kB at line ends. Each round runs tern and HF back to back
(the order alternates) in fresh processes; both are timed inside, encoding alone, after one document as warm-up; the ids
are compared once. The ratio is taken pair by pair. Seconds of processor time are kept, too: on a shared machine they say more.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

SELF = pathlib.Path(__file__).resolve()
PEERS = SELF.parent.parent / "tests" / "peers"
KINDS = {".py", ".txt", ".md", ".rst", ".h", ".cc"}


def documents(paths, limit):
    files = []
    for path in map(pathlib.Path, paths):
        files += sorted(f for f in path.rglob("*") if f.suffix in KINDS and f.is_file()) if path.is_dir() else [path]
    out, total = [], 0
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        part = []
        for line in text.splitlines(keepends=True):
            part.append(line)
            if sum(map(len, part)) >= 4096:
                out.append("".join(part))
                part = []
        out.append("".join(part))
        total += len(text.encode())
        if total >= limit:
            break
    return [d for d in out if d]


def peer(model, path, threads):
    """In a process of its own: seconds, processor seconds and the ids' hash."""
    import resource
    import time

    sys.path.insert(0, str(PEERS))
    from check_tokenizers import smollm_of_gguf
    from tokenizers import Tokenizer

    tokenizer = smollm_of_gguf(model) if model.endswith(".gguf") else Tokenizer.from_file(model)
    texts = [json.loads(line) for line in open(path, encoding="utf-8")]
    encode = tokenizer.encode_batch_fast
    encode(texts[:1], add_special_tokens=False)
    user = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    begin = time.perf_counter()
    rows = encode(texts, add_special_tokens=False)
    seconds = time.perf_counter() - begin
    user = resource.getrusage(resource.RUSAGE_SELF).ru_utime - user
    print(json.dumps({"seconds": seconds, "processor_seconds": user, "tokens": sum(len(r.ids) for r in rows), "hash": hash_of(r.ids for r in rows)}))


def hash_of(rows):
    import hashlib

    digest = hashlib.sha256()
    for row in rows:
        digest.update((" ".join(map(str, row)) + "\n").encode())
    return digest.hexdigest()


def run_tern(tool, model, path, threads):
    with open(path, "rb") as lines:
        out = subprocess.run([tool, "tokenizer", "encode", model, "--json-lines", "--time", "--threads", str(threads)], stdin=lines, capture_output=True, check=True)
    seconds, user = map(float, out.stderr.split()[-2:])
    rows = [line.split() for line in out.stdout.decode().splitlines()]
    return {"seconds": seconds, "processor_seconds": user, "tokens": sum(map(len, rows)), "hash": hash_of(rows)}


def run_peer(model, path, threads):
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    out = subprocess.run([sys.executable, str(SELF), "--peer", model, path, str(threads)], capture_output=True, check=True, env=env)
    return json.loads(out.stdout)


def main():
    if sys.argv[1:2] == ["--peer"]:
        return peer(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("model")
    parser.add_argument("text", nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=16)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    import tokenizers

    texts = documents(options.text, options.mib << 20)
    size = sum(len(t.encode()) for t in texts)
    path = f"/tmp/tokenize_vs_hf_{os.getpid()}.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(t, ensure_ascii=False) + "\n" for t in texts)
    report = {"model": os.path.basename(options.model), "bytes": size, "documents": len(texts), "tokenizers": tokenizers.__version__, "processor": platform.processor(), "processors": os.cpu_count(), "load": os.getloadavg(), "runs": []}
    for threads in (1, 2):
        for i in range(options.rounds):
            pair = {}
            for name in ("tern", "hf") if i % 2 == 0 else ("hf", "tern"):
                pair[name] = run_tern(options.tool, options.model, path, threads) if name == "tern" else run_peer(options.model, path, threads)
            if pair["tern"]["hash"] != pair["hf"]["hash"]:
                sys.exit("the ids differ")
            report["runs"].append({"threads": threads, **pair})
    os.remove(path)
    for threads in (1, 2):
        runs = [r for r in report["runs"] if r["threads"] == threads]
        for key in ("seconds", "processor_seconds"):
            ratio = statistics.median(r["hf"][key] / r["tern"][key] for r in runs)
            report[f"ratio_{threads}_threads_{key}"] = round(ratio, 3)
            speeds = [size / 1e6 / statistics.median(r[name][key] for r in runs) for name in ("tern", "hf")]
            print(f"{threads} threads, {key}: tern {speeds[0]:.1f} MB/s, HF {speeds[1]:.1f} MB/s, ratio {ratio:.2f}")
    report["load_after"] = os.getloadavg()
    with open(options.output, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
