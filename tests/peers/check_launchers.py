"""Holds tern's launcher resolver and failures against the real launchers: torchrun, mpirun, srun.

  check_launchers.py --tern build/cpu/bin/tern [--only torchrun,mpirun,srun]

A run of a second with two ranks under each launcher that answers here, beside `--ranks 2`: the
first lines name the launcher, the metrics are equal to the bit, a rank that is killed ends the run
in a bounded time, and the same command then goes on to the same bits. torchrun must start the
ranks again by itself. srun needs a SLURM that gives two tasks on this machine. Nothing is
installed and no daemon is started. Exit 0 all hold, 4 one does not.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

RECIPE = """name: small
model: {hidden_size: 256, intermediate_size: 256, num_layers: 1, num_heads: 4, num_kv_heads: 2, context_length: 32,
        sub_norms: outputs, tied_head: true}
data: {files: [FOLDER/*.txt], validation_fraction: 0.2, tokenizer: {vocab_size: 300}}
stages:
  - train: {steps: 400, tokens_per_step: 128, sequence_length: 32, eval_every: 400, eval_tokens: 256,
            checkpoint_every: 50}
"""
BOUND_S = 60  # From a killed rank to the end of all, on a busy machine

TERN_RUN = ["run", "recipe.yaml", "--runs"]
LAUNCHERS = {
    "torchrun": ["torchrun", "--no-python", "--nproc-per-node", "2", "--max-restarts", "2",
                 "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"],
    "mpirun": ["mpirun", "--oversubscribe", "-n", "2"],
    "srun": ["srun", "-n", "2"],
    "mpirun in a SLURM step": ["srun", "-n", "1", "-c", "2", "mpirun", "--oversubscribe", "-n", "2"],
}
NAMES = {"srun": "SLURM", "mpirun in a SLURM step": "mpirun"}
RANK_VARIABLES = {"torchrun": "RANK", "srun": "SLURM_PROCID"}


def write_inputs(folder):
    for i in range(6):
        words = random.Random(i)
        pool = ["".join(words.choices("abcdefghij", k=words.randint(2, 7))) for _ in range(200)]
        (folder / f"{i}.txt").write_text(" ".join(words.choices(pool, k=1600)) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.replace("FOLDER", str(folder)))


def start(folder, command, log):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log,
                            stdin=subprocess.DEVNULL)


def ranks_of(runs, variable):
    """Processes of tern below that run folder, by rank."""
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(runs).encode() not in command or not command[0].endswith(b"tern"):
            continue
        for entry in environment:
            name, _, value = entry.partition(b"=")
            if name == variable.encode():
                found[int(value)] = int(process.name)
    return found


def metrics(runs):
    lines = [json.loads(line) for line in (runs / "small/metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("tokens_per_second")
    return lines


def kill_rank(runs, variable):
    """Kills rank 1 once a checkpoint is there; the time, or None when the run was quicker."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        ranks = ranks_of(runs, variable)
        if 1 in ranks and list((runs / "small/train").glob("step-*")):
            os.kill(ranks[1], signal.SIGKILL)
            return time.monotonic()
        time.sleep(0.02)
    return None


def check(name, folder, tern, want, report):
    launcher, variable = LAUNCHERS[name], RANK_VARIABLES.get(name, "OMPI_COMM_WORLD_RANK")
    slug = name.replace(" ", "_")
    undisturbed, disturbed = folder / f"{slug}_runs", folder / f"{slug}_killed_runs"
    with open(folder / f"{slug}.log", "w+b") as log:
        code = start(folder, launcher + [tern] + TERN_RUN + [str(undisturbed)], log).wait(600)
        log.seek(0)
        text = log.read().decode(errors="replace")
        report(f"{name}: ends well", code == 0, text[-800:] if code else "")
        named = f"launcher {NAMES.get(name, name)} (" in text
        report(f"{name}: named", named, "" if named else text[:300])
        report(f"{name}: the bits of --ranks 2", code == 0 and metrics(undisturbed) == want)
        command = launcher + [tern] + TERN_RUN + [str(disturbed)]
        process = start(folder, command, log)
        killed = kill_rank(disturbed, variable)
        code = process.wait(600)
        seconds = time.monotonic() - (killed or 0)
        again = name == "torchrun"  # It starts all ranks again; the others end.
        report(f"{name}: a killed rank", killed is not None and (code == 0) == again and (again or seconds < BOUND_S),
               f"exit code {code} after {seconds:.1f} s")
        report(f"{name}: no process left", not ranks_of(disturbed, variable))
        if not again:
            code = start(folder, command, log).wait(600)
        report(f"{name}: goes on to the same bits", code == 0 and metrics(disturbed) == want)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tern", required=True)
    parser.add_argument("--only", default=",".join(LAUNCHERS))
    arguments = parser.parse_args()
    tern = str(pathlib.Path(arguments.tern).resolve())
    results = []

    def report(label, holds, detail=""):
        print(f"{'pass' if holds else 'FAIL'}  {label}{': ' if detail else ''}{detail}", flush=True)
        results.append(bool(holds))

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_inputs(folder)
        own = folder / "own_runs"
        with open(folder / "own.log", "wb") as log:
            code = start(folder, [tern] + TERN_RUN + [str(own), "--ranks", "2"], log).wait(600)
        if code != 0:
            sys.exit((folder / "own.log").read_text())
        for launcher in arguments.only.split(","):
            missing = [p for p in ("torchrun", "mpirun", "srun") if p in LAUNCHERS[launcher] and not shutil.which(p)]
            if missing:
                print(f"skip  {launcher}: no {missing[0]} here")
                continue
            check(launcher, folder, tern, metrics(own), report)
    return 0 if results and all(results) else 4


if __name__ == "__main__":
    sys.exit(main())
