#!/usr/bin/env python3
"""Training speed and memory of tern against plain PyTorch, side by side in one run.

  benchmarks/train_vs_pytorch.py --shape d256 --precision fp32 --rounds 5 --steps 10

Each round runs tern and one peer back to back, for every peer; the order inside a pair alternates
with the round, so drift of a shared machine hits both. The ratio is taken pair by pair; the table
has medians, minimum and maximum. Peers are tests/peers/pytorch_bitnet.py in its modes, same shape,
batch, threads. Writes benchmarks/results/<date>-train-vs-pytorch-<shape>-<precision>.{json,md} with
the hardware, the commands, the commit and every raw number. Only the standard library is used here;
PyTorch runs in the environment of tests/peers/setup (--python picks another).
"""

import argparse
import datetime
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parent.parent
PEERS = {
    "eager": [],
    "eager-tuned": ["--style", "tuned"],
    "compiled": ["--compile"],
    "compiled-tuned": ["--compile", "--style", "tuned"],
    "dense-eager": ["--dense"],
    "dense-compiled": ["--dense", "--compile"],
}
# Freed memory is kept instead of returned: every step allocates the same tensors again. tern does
# so for itself; glibc reads these for the tuned peers, so that neither side pays for page faults.
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
CPU_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
)
QUIET_LOAD = (
    2.5  # 1-minute load left by one two-thread run after another, with nothing else running.
)
# What limits the processor for both sides, as on a machine without AVX-512 and BF16 instructions.
ISA_VARIABLES = ("TERN_ISA", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
KEPT = ("tokens_per_second", "peak_rss_bytes", "loss_first", "loss_last")


def parse_args():
    default_cache = pathlib.Path.home() / ".cache/tern"
    cache = pathlib.Path(os.environ.get("TERN_CACHE", default_cache))
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--shape", default="d256", choices=["d256", "d512"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--tern-precision", choices=["fp32", "bf16"], help="default: --precision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3, help="steps before timing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", default="eager,compiled,eager-tuned,compiled-tuned")
    parser.add_argument("--tern", default=str(REPO / "build/cpu/bin/tern"))
    parser.add_argument("--tern-args", default="", help="further arguments of `tern bench train`")
    parser.add_argument("--python", default=str(cache / "peers/bin/python"))
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one run")
    parser.add_argument("--output", type=pathlib.Path, default=REPO / "benchmarks/results")
    args = parser.parse_args()
    args.peers = [name for name in args.peers.split(",") if name]
    args.tern_precision = args.tern_precision or args.precision
    unknown = set(args.peers) - set(PEERS)
    if unknown or not args.peers or args.rounds < 1:
        parser.error(f"--peers wants some of {', '.join(PEERS)}; --rounds at least 1")
    return args


def commands(args):
    """{contestant: command}."""
    tern = [args.tern, "bench", "train", "--shape", args.shape, "--precision", args.tern_precision]
    tern += ["--steps", str(args.steps), "--warmup", str(args.warmup)]
    tern += ["--threads", str(args.threads), "--json", *shlex.split(args.tern_args)]
    peer = [args.python, str(REPO / "tests/peers/pytorch_bitnet.py"), "--shape", args.shape]
    peer += ["--precision", args.precision, "--steps", str(args.steps)]
    peer += ["--warmup", str(args.warmup), "--threads", str(args.threads)]
    return {"tern": tern} | {name: peer + PEERS[name] for name in args.peers}


def run(name, command, args):
    """The last JSON line a contestant prints, with the load of the machine before it began."""
    load = os.getloadavg()[0]
    threads = str(args.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if name.endswith("-tuned"):
        environment |= KEEP_FREED
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=args.timeout, check=False
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode != 0 or not lines:
        tail = "\n".join(result.stderr.splitlines()[-10:])
        sys.exit(f"{shlex.join(command)} ended with {result.returncode}:\n{tail}")
    figures = json.loads(lines[-1])
    missing = [key for key in KEPT[:2] if key not in figures]
    if missing:
        sys.exit(f"{shlex.join(command)}: no {', '.join(missing)} in {lines[-1][:300]}")
    return figures | {"load_before": load}


def measure(args):
    """[{round, peer, tern: figures, other: figures}], tern and peer adjacent in time."""
    pairs, by_name = [], commands(args)
    for round_index in range(args.rounds):
        for peer in args.peers:
            order = ["tern", peer] if round_index % 2 == 0 else [peer, "tern"]
            seen = {name: run(name, by_name[name], args) for name in order}
            pairs.append(
                {"round": round_index, "peer": peer, "tern": seen["tern"], "other": seen[peer]}
            )
            ours, theirs = (seen[n]["tokens_per_second"] for n in ("tern", peer))
            print(f"round {round_index + 1}/{args.rounds} {peer}: tern {ours:.0f} tokens/s, "
                  f"{peer} {theirs:.0f}, ratio {ours / theirs:.2f}", file=sys.stderr)  # fmt: skip
    return pairs


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(pairs, peers):
    """{contestant: {tokens_per_second, peak_rss_bytes}}, and the ratios {peer: {speed, memory}}."""
    runs = {"tern": [p["tern"] for p in pairs]}
    runs |= {name: [p["other"] for p in pairs if p["peer"] == name] for name in peers}
    figures = {
        name: {key: spread([f[key] for f in found]) for key in KEPT[:2]}
        for name, found in runs.items()
    }
    ratios = {}
    for name in peers:
        mine = [p for p in pairs if p["peer"] == name]
        ratio = lambda key: spread([p["tern"][key] / p["other"][key] for p in mine])
        ratios[name] = {"speed": ratio("tokens_per_second"), "memory": ratio("peak_rss_bytes")}
    return figures, ratios


def output_of(*command):
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False)
    return result.stdout.strip()


def hardware():
    cpu = {}
    for line in output_of("lscpu").splitlines():
        key, _, value = line.partition(":")
        cpu[key.strip()] = value.strip()
    flags = cpu.get("Flags", "").split()
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    return {
        "model": cpu.get("Model name", "unknown"),
        "cpus": cpu.get("CPU(s)", "?"),
        "threads_per_core": cpu.get("Thread(s) per core", "?"),
        "l3": cpu.get("L3 cache", "?"),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "memory_gib": round(int(memory) / 2**20, 1),
        "kernel": os.uname().release,
    }


def markdown(record):
    machine, config = record["hardware"], record["config"]
    lines = [
        f"# Training against PyTorch: {config['shape']}, {config['precision']}, {record['date']}",
        "",
        f"tern in {config['tern_precision']}, PyTorch in {config['precision']}."
        + "".join(f" `{name}={value}`" for name, value in record["environment"].items()),
        "",
        f"- machine: {machine['model']}, {machine['cpus']} CPUs, L3 {machine['l3']}, "
        f"{machine['memory_gib']} GiB, {' '.join(machine['flags'])}, kernel {machine['kernel']}",
        f"- commit: {record['commit']}{' with local changes' if record['dirty'] else ''}",
        f"- PyTorch {record['torch']}, {config['threads']} threads each, {config['rounds']} rounds "
        f"of adjacent pairs, {config['steps']} steps a run; load before a run up to "
        f"{record['max_load']:.1f}",
        "",
    ]
    if record["max_load"] > QUIET_LOAD:
        lines += ["**The machine was busy with other work: the figures are indicative only.**", ""]
    lines += [
        "| program | tokens/s, median (min-max) | peak memory, MiB |",
        "| --- | --- | --- |",
    ]
    for name, figures in record["figures"].items():
        speed, memory = figures["tokens_per_second"], figures["peak_rss_bytes"]
        lines.append(f"| {name} | {speed['median']:.0f} ({speed['min']:.0f}-{speed['max']:.0f}) "
                     f"| {memory['median'] / 2**20:.0f} |")  # fmt: skip
    lines += [
        "",
        "| tern against | speed ratio, median (min-max) | memory ratio |",
        "| --- | --- | --- |",
    ]
    for name, ratio in record["ratios"].items():
        speed, memory = ratio["speed"], ratio["memory"]
        lines.append(f"| {name} | {speed['median']:.2f} ({speed['min']:.2f}-{speed['max']:.2f}) "
                     f"| {memory['median']:.2f} |")  # fmt: skip
    lines += [
        "",
        "A ratio is taken between two runs next to each other in time. Peers named -tuned run with "
        + " ".join(f"{key}={value}" for key, value in KEEP_FREED.items())
        + ". Commands:",
        "",
        "```",
    ]
    lines += [shlex.join(command) for command in record["commands"].values()]
    return "\n".join([*lines, "```", "", "Raw numbers: the JSON file beside this one.", ""])


def main():
    args = parse_args()
    for path in (args.tern, args.python):
        if not pathlib.Path(path).exists():
            sys.exit(f"{path} does not exist (build tern; run tests/peers/setup)")
    pairs = measure(args)
    figures, ratios = summarize(pairs, args.peers)
    strip = lambda word: word.replace(f"{REPO}/", "").replace(str(pathlib.Path.home()), "~")
    record = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "commit": output_of("git", "rev-parse", "HEAD"),
        "dirty": bool(output_of("git", "status", "--porcelain", "--untracked-files=no")),
        "torch": pairs[0]["other"].get("torch", "?"),
        "config": {
            k: getattr(args, k)
            for k in ("shape", "precision", "tern_precision", "rounds", "steps", "threads")
        },
        "environment": {k: os.environ[k] for k in ISA_VARIABLES if k in os.environ},
        "commands": {name: [strip(w) for w in words] for name, words in commands(args).items()},
        "max_load": max(p[side]["load_before"] for p in pairs for side in ("tern", "other")),
        "figures": figures,
        "ratios": ratios,
        "pairs": pairs,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    stem = f"{record['date']}-train-vs-pytorch-{args.shape}-{args.precision}"
    if args.tern_precision != args.precision:
        stem += f"-tern-{args.tern_precision}"
    if record["environment"]:
        stem += "-" + "-".join(sorted(set(v.lower() for v in record["environment"].values())))
    (args.output / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    (args.output / f"{stem}.md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
