#!/usr/bin/env python3
"""What post-training quantization costs, method by method, on held-out text of two domains.

  benchmarks/quantize_quality.py MODEL --calibration TEXT --hold NAME=TEXT [--hold NAME=TEXT]
      [--settings w3_rtn,w3_gptq,...] [--tokens 8192] [--eval-windows 4] [--group 64] [--threads 0] -o RESULT

Each setting is one `tern quantize` (seconds, peak memory of the process and its children) and one
`tern eval --task perplexity` a text; RESULT.json has everything, RESULT.md the table. "kept" is the
share of the loss in log-perplexity of rounding to nearest in the same format that is still there.
The first text is of the calibration's domain. A setting that is in RESULT.json is not made again.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import tempfile
import time

FORMATS = {"w4": "int4", "w3": "w3", "w2": "w2", "fp8": "fp8", "w8a8": "int8"}
METHODS = {
    "minmax": ["--method", "rtn", "--min-max"],
    "rtn": ["--method", "rtn"],
    "hqq": ["--method", "hqq"],
    "gptq": ["--method", "gptq", "--rounds", "0"],
    "gptq2": ["--method", "gptq", "--rounds", "2"],
    "gptq2scales30": ["--method", "gptq", "--rounds", "2", "--scale-steps", "30"],
    "gptq2scales": ["--method", "gptq", "--rounds", "2", "--scale-steps", "100"],
    "autoround30": ["--method", "autoround", "--steps", "30"],
    "autoround": ["--method", "autoround"],
    "blockap": ["--method", "block_ap", "--steps", "300", "--weight-lr", "3e-3", "--scale-lr", "1e-3"],
    "awq": ["--method", "rtn", "--channel-scales"],
    "awqgptq": ["--method", "gptq", "--rounds", "2", "--channel-scales"],
    "rotrtn": ["--method", "rtn", "--rotate"],
    "rotgptq2": ["--method", "gptq", "--rounds", "2", "--rotate"],
    "smooth": ["--method", "rtn", "--channel-scales"],
    "rotsmooth": ["--method", "rtn", "--channel-scales", "--rotate"],
}
WITHOUT_CALIBRATION = ("minmax", "rtn", "hqq", "rotrtn")
# The engine rounds activations as the folder asks; libtorch computes with what the weights stand for, and is quicker.
RUNTIMES = {"w8a8": "engine", "fp8": "engine"}


def measured(command):
    """(seconds, peak memory in bytes) of a command that must succeed."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    return time.monotonic() - begin, usage.ru_maxrss * 1024


def log_perplexity(args, model, text, folder, runtime="libtorch"):
    data = pathlib.Path(folder) / "data"
    data.mkdir(exist_ok=True)
    (data / "perplexity.txt").write_bytes(pathlib.Path(text).read_bytes())
    out = subprocess.run(
        [args.tern, "eval", model, "--task", "perplexity", "--data", data, "--context", "2048",
         "--runtime", runtime, *(["--activations", "folder"] if runtime == "engine" else []), "--limit", str(args.eval_windows), "--threads", str(args.threads), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (task,) = json.loads(out.stdout)["tasks"]
    return next(m["value"] for m in task["metrics"] if m["name"] == "loss")


def run_setting(args, setting, holds, work):
    to, method = setting.split("_")
    output = pathlib.Path(work) / setting
    command = [args.tern, "quantize", args.model, "-o", output, "--to", FORMATS[to], "--allow-requantize",
               "--threads", str(args.threads), *METHODS[method]]  # fmt: skip
    if to.startswith("w") and to != "w8a8":
        command += ["--group", str(args.group)]
    if method not in WITHOUT_CALIBRATION:
        command += ["--calibration", args.calibration, "--calibration-tokens", str(args.tokens)]
    seconds, memory = measured(command)
    losses = {name: log_perplexity(args, output, text, work, RUNTIMES.get(to, "libtorch")) for name, text in holds.items()}
    return {"seconds": seconds, "peak_memory_bytes": memory, "log_perplexity": losses}


def table(result, holds):
    head = ["setting", "seconds", "peak memory, MB"]
    for name in holds:
        head += [f"perplexity, {name}", "kept"]
    rows = [head, ["---"] * len(head)]
    source = result["source"]
    rows.append(["source", "", ""] + [x for n in holds for x in (f"{math.exp(source[n]):.2f}", "")])
    for setting, record in result["settings"].items():
        row = [setting, f"{record['seconds']:.0f}", f"{record['peak_memory_bytes'] / 1e6:.0f}"]
        nearest = result["settings"].get(setting.split("_")[0] + "_rtn")
        for name in holds:
            loss = record["log_perplexity"][name]
            kept = ""
            if nearest:
                kept = f"{(loss - source[name]) / (nearest['log_perplexity'][name] - source[name]):.2f}"
            row += [f"{math.exp(loss):.2f}", kept]
        rows.append(row)
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--tern", default="scripts/tern")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--hold", action="append", required=True, metavar="NAME=TEXT")
    parser.add_argument("--settings", default=",".join(f"{f}_{m}" for f in ("w4", "w3", "w2") for m in METHODS))
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--eval-windows", type=int, default=4)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="0: all processors")
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()
    holds = dict(hold.split("=", 1) for hold in args.hold)
    path = pathlib.Path(args.out + ".json")
    result = json.loads(path.read_text()) if path.exists() else {"settings": {}}
    with tempfile.TemporaryDirectory() as work:
        result.setdefault("options", {"model": os.path.basename(args.model), "tokens": args.tokens,
                                      "group": args.group, "windows of 2048": args.eval_windows,
                                      "threads": args.threads or os.cpu_count()})  # fmt: skip
        if "source" not in result:
            result["source"] = {n: log_perplexity(args, args.model, t, work) for n, t in holds.items()}
        for setting in args.settings.split(","):
            if setting in result["settings"]:
                continue
            result["settings"][setting] = run_setting(args, setting, holds, work)
            result["settings"][setting]["load"] = os.getloadavg()[0]
            path.write_text(json.dumps(result, indent=1) + "\n")
            print(setting, result["settings"][setting], flush=True)
    pathlib.Path(args.out + ".md").write_text(table(result, holds))
    print(table(result, holds))


if __name__ == "__main__":
    main()
