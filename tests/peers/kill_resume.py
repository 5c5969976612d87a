#!/usr/bin/env python3
"""Kills a run at random moments, lets it go on, and compares it bit for bit with a calm run.

  kill_resume.py recipes/quickstart.yaml [key=value ...] [--kills 5] [--seed 1] [--keep]

Runs `tern run RECIPE key=value... --runs DIR` twice in a temporary folder: once undisturbed, once
killed with SIGKILL (the whole process group) at N moments drawn from the seed (every second one
after a new checkpoint), then run again until it exits 0. It must hold that
 - every restart ends by itself with exit code 0 (or 75) or by our kill, never by an error;
 - metrics.jsonl has every step once, with equal bits in all but times and memory;
 - the newest checkpoints have the same step, and all their datasets the same SHA-256 (h5py).
Exit 0 all hold, 4 one does not; the folders stay with --keep or on failure. Needs h5py.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import check_h5py

REPO = pathlib.Path(__file__).resolve().parents[2]
EXIT_SAVED = 75
EXIT_MISMATCH = 4
POLL_SECONDS = 0.01
# Keys of metrics.jsonl that hold a clock or the machine; every other key must have equal bits.
MACHINE_KEYS = ("per_second", "second", "time", "bytes", "memory", "rss")


def parse_args():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("recipe", type=pathlib.Path)
    parser.add_argument("overrides", nargs="*", help="key=value, passed on")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tern", default=str(REPO / "build/cpu/bin/tern"))
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one whole run")
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def start(args, runs, log):
    """Starts the run as leader of its own process group, so that one kill reaches all of it."""
    command = [args.tern, "run", str(args.recipe.resolve()), *args.overrides, "--runs", str(runs)]
    return subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, cwd=REPO, start_new_session=True
    )


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # It ended between the time-out and the kill; wait() below tells how.
    return process.wait()


def num_checkpoints(runs):
    return sum(1 for _ in runs.rglob("step-*/manifest.json"))


def num_lines(runs):
    """Lines of metrics.jsonl so far, the last one perhaps cut."""
    return sum(path.read_bytes().count(b"\n") for path in runs.rglob("metrics.jsonl"))


def run_to_end(args, runs, log):
    """Exit code of a run that is left alone."""
    process = start(args, runs, log)
    try:
        return process.wait(timeout=args.timeout)
    except subprocess.TimeoutExpired:
        kill_group(process)
        sys.exit(f"the run took more than --timeout {args.timeout} s; output: {log.name}")


def run_and_kill(args, runs, log, delay, after_save):
    """Starts a run and kills it `delay` seconds later, or later than its next new checkpoint."""
    process = start(args, runs, log)
    saved = num_checkpoints(runs)
    begin = time.monotonic()
    while after_save and process.poll() is None and num_checkpoints(runs) == saved:
        if time.monotonic() - begin > args.timeout:
            break
        time.sleep(POLL_SECONDS)
    try:
        return process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        return kill_group(process)


def disturbed(args, runs, log, seconds):
    """Kills, then lets the run end. Returns (kills that hit, restarts that found a checkpoint)."""
    rng = random.Random(args.seed)
    code, hits, resumed = None, 0, 0
    for index in range(args.kills):
        # Every other kill waits for a save: kills at random alone may never let a run get that far.
        after_save, delay = index % 2 == 1, rng.uniform(0, 1) * seconds / args.kills
        resumed += num_checkpoints(runs) > 0
        code = run_and_kill(args, runs, log, delay, after_save)
        hits += code == -signal.SIGKILL
        how = "killed" if code == -signal.SIGKILL else f"ended with {code}"
        when = f"{delay:.2f} s after {'a save' if after_save else 'the start'}"
        print(f"kill {index + 1}/{args.kills}: {when}, {how}, {num_lines(runs)} steps")
        if code not in (0, EXIT_SAVED, -signal.SIGKILL):
            sys.exit(f"FAIL  a restart ended with {code}; output: {log.name}")
        if code == 0:
            break
    while code != 0:
        resumed += num_checkpoints(runs) > 0
        code = run_to_end(args, runs, log)
        if code not in (0, EXIT_SAVED):
            sys.exit(f"FAIL  the last restart ended with {code}; output: {log.name}")
    return hits, resumed


def bits(value):
    """A number as its float64 bits, so that equality is equality of bits; the rest as it is."""
    return struct.pack("<d", value).hex() if isinstance(value, (int, float)) else value


def of_machine(key):
    return any(word in key for word in MACHINE_KEYS)


def read_steps(run_folder):
    """({(stage, step): {key: bits}}, problems) of metrics.jsonl; a step twice is a problem."""
    steps, problems = {}, []
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            problems.append(f"metrics.jsonl line {number} is not JSON: {line[:60]!r}")
            continue
        if "loss" not in record:
            continue
        key = (record.get("stage", ""), record["step"])
        if key in steps:
            problems.append(f"step {key} is in metrics.jsonl twice")
        steps[key] = {k: bits(v) for k, v in record.items() if not of_machine(k)}
    return steps, problems


def newest_checkpoint(run_folder):
    found = sorted(p for p in run_folder.rglob("step-*") if (p / "manifest.json").exists())
    if not found:
        sys.exit(f"no finished checkpoint under {run_folder}")
    return found[-1]


def compare_runs(a, b):
    """Problems between the run folders a (undisturbed) and b (killed)."""
    steps_a, problems = read_steps(a)
    steps_b, more = read_steps(b)
    problems += more
    for key in sorted(set(steps_a) ^ set(steps_b)):
        problems.append(f"step {key} is in one metrics.jsonl only")
    differing = sorted(k for k in set(steps_a) & set(steps_b) if steps_a[k] != steps_b[k])
    if differing:
        key = differing[0]
        problems.append(
            f"{len(differing)} steps differ, first {key}: {steps_a[key]}, {steps_b[key]}"
        )
    last_a, last_b = newest_checkpoint(a), newest_checkpoint(b)
    if last_a.name != last_b.name:
        problems.append(f"newest checkpoints are {last_a.name} and {last_b.name}")
        return problems
    data_a = check_h5py.describe(last_a / "state.h5")["datasets"]
    data_b = check_h5py.describe(last_b / "state.h5")["datasets"]
    for name in sorted(set(data_a) ^ set(data_b)):
        problems.append(f"dataset {name} is in one checkpoint only")
    for name in sorted(set(data_a) & set(data_b)):
        if data_a[name]["sha256"] != data_b[name]["sha256"]:
            problems.append(f"{last_a.name}: dataset {name} differs")
    last = max(steps_a)
    print(
        f"{len(steps_a)} steps, {len(data_a)} datasets compared; last step {last}: {steps_a[last]}"
    )
    return problems


def run_folder_of(runs):
    folders = [p.parent for p in runs.rglob("metrics.jsonl")]
    if len(folders) != 1:
        sys.exit(f"{runs}: {len(folders)} run folders with metrics.jsonl, want 1")
    return folders[0]


def main():
    args = parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="tern-kill-resume-"))
    runs = {name: root / name / "runs" for name in ("calm", "killed")}
    for folder in runs.values():
        folder.mkdir(parents=True)
    begin = time.monotonic()
    with open(root / "calm.log", "wb") as log:
        code = run_to_end(args, runs["calm"], log)
    seconds = time.monotonic() - begin
    if code != 0:
        sys.exit(f"the undisturbed run ended with {code}; output: {root / 'calm.log'}")
    print(f"undisturbed: {seconds:.1f} s; folder {root}")
    with open(root / "killed.log", "wb") as log:
        hits, resumed = disturbed(args, runs["killed"], log, seconds)
    problems = compare_runs(run_folder_of(runs["calm"]), run_folder_of(runs["killed"]))
    if hits == 0 or resumed == 0:
        problems.append(f"{hits} kills, {resumed} restarts from a checkpoint: proves nothing; "
                        "give more --kills, or save more often")  # fmt: skip
    for text in problems:
        print(f"FAIL  {text}")
    if problems:
        print(f"kept for a look: {root}")
        sys.exit(EXIT_MISMATCH)
    print(f"pass  {hits} kills, {resumed} restarts from a checkpoint, equal bits")
    if not args.keep:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
