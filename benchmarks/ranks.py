#!/usr/bin/env python3
"""Speed and traffic of two ranks against one process: benchmarks/ranks.py TERN [--shape d512] [--rounds 3] [-o NAME].

Every round runs each configuration once, so that a slow moment of the machine meets all of them: one process with two
threads, and two ranks with one thread each (nothing spread, ZeRO-1, ZeRO-3 with gradients in fp32 and in bf16), on the
same batch of 8 x 256 tokens. Speeds are medians over rounds; ratios are medians of the rounds' ratios. Traffic is counted
by the ranks themselves (payload a rank sends in a step). Writes NAME.json (raw numbers) and NAME.md beside it.
"""

import argparse
import json
import platform
import statistics
import subprocess

CONFIGURATIONS = {
    "1 rank x 2 threads": ["--threads", "2"],
    "2 ranks x 1 thread": ["--threads", "1", "--ranks", "2"],
    "2 ranks, zero1": ["--threads", "1", "--ranks", "2", "--shard", "zero1"],
    "2 ranks, zero3, fp32": ["--threads", "1", "--ranks", "2", "--shard", "zero3"],
    "2 ranks, zero3, bf16": ["--threads", "1", "--ranks", "2", "--shard", "zero3", "--reduce", "bf16"],
}


def bench(tern, shape, steps, arguments):
    command = [tern, "bench", "train", "--shape", shape, "--steps", str(steps), "--warmup", "1", "--json", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.processor())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("tern")
    parser.add_argument("--shape", default="d512")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("-o", "--output", required=True, help="path of the result without its ending")
    options = parser.parse_args()
    runs = {name: [] for name in CONFIGURATIONS}
    for number in range(options.rounds):
        for name, arguments in CONFIGURATIONS.items():
            runs[name].append(bench(options.tern, options.shape, options.steps, arguments))
            print(f"round {number + 1}: {name}: {runs[name][-1]['tokens_per_second']:.0f} tokens/s", flush=True)
    baseline = [run["tokens_per_second"] for run in runs["1 rank x 2 threads"]]
    lines = [
        f"# Two ranks against one process, {options.shape}",
        "",
        f"`benchmarks/ranks.py`, {options.rounds} interleaved rounds of {options.steps} steps of 8 x 256 tokens, bf16, {processor()}.",
        "",
        "| configuration | tokens/s | ratio to one process | MB a rank sends in a step | peak memory a process, MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, all_runs in runs.items():
        speeds = [run["tokens_per_second"] for run in all_runs]
        ratio = statistics.median(speed / base for speed, base in zip(speeds, baseline))
        sent = all_runs[0]["sent_bytes"] or {}
        kinds = ", ".join(f"{kind} {value / 1e6:.2f}" for kind, value in sorted(sent.items()) if value > 1000) or "-"
        memory = max(run["peak_rss_bytes"] for run in all_runs) / 1e6
        lines.append(f"| {name} | {statistics.median(speeds):.0f} | {ratio:.2f} | {kinds} | {memory:.0f} |")
    with open(options.output + ".json", "w", encoding="utf-8") as file:
        json.dump(runs, file, indent=1)
    with open(options.output + ".md", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
