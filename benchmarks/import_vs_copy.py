#!/usr/bin/env python3
"""`import` to a model file against a plain copy of the same model (cp, then sync of each file), in turns.

  benchmarks/import_vs_copy.py MODEL PROGRAM... [--rounds 7] [--folder DIR] [-o benchmarks/results/NAME.json]

MODEL is a GGUF file or a Hugging Face folder, of which the tensor files are copied; PROGRAM is build/cpu/bin/tern-engine or
tern. Source in the page cache; DIR (default: beside the model) is on the same disk. Before each run the disk is synced, so
that nobody pays for what another one left. Ratio: of the medians and of the least; also seconds of processor time, and peak memory.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import tempfile
import time


def run(*commands):
    """Seconds, processor seconds and peak MiB of the commands, one after the other."""
    before, begin, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    for command in commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{command} failed")
        peak = max(peak, usage.ru_maxrss // 1024)
    seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": round(seconds, 4), "peak_mib": peak,
            "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("-o", "--output")
    options = parser.parse_args()
    files = sorted(options.model.glob("*.safetensors")) if options.model.is_dir() else [options.model]
    report = {"model": options.model.name, "bytes": sum(f.stat().st_size for f in files), "processors": os.cpu_count(),
              "load": os.getloadavg(), "runs": []}
    work = pathlib.Path(tempfile.mkdtemp(dir=options.folder or options.model.parent))
    try:
        for i in range(options.rounds):
            jobs = {"copy": [c for f in files for c in (["cp", f, work / f.name], ["sync", work / f.name])]}
            for program in options.programs:
                jobs[program] = [[program, "import", options.model, "-o", work / "model.h5"]]
            for name in list(jobs) if i % 2 == 0 else reversed(list(jobs)):
                for f in files:
                    subprocess.run(["cat", f], stdout=subprocess.DEVNULL, check=True)
                os.sync()
                report["runs"].append({"what": name, **run(*jobs[name])})
                for left in work.iterdir():
                    left.unlink()
    finally:
        shutil.rmtree(work)
    report["load_after"] = os.getloadavg()

    def of(name, key="seconds"):
        return [r[key] for r in report["runs"] if r["what"] == name]

    for name in ["copy", *options.programs]:
        line = f"{name}: {statistics.median(of(name)):.3f} s (least {min(of(name)):.3f}), " \
               f"processor {statistics.median(of(name, 'processor_seconds')):.3f} s, peak {max(of(name, 'peak_mib'))} MiB"
        if name != "copy":
            ratios = [statistics.median(of(name)) / statistics.median(of("copy")), min(of(name)) / min(of("copy"))]
            report[f"ratio {name}"] = dict(zip(("medians", "least"), (round(r, 3) for r in ratios)))
            line += f"; ratio {ratios[0]:.2f} of medians, {ratios[1]:.2f} of the least"
        print(line)
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
