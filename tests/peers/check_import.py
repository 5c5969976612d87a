"""Holds tern's import and export against transformers: the logits come back as they went in.

  check_import.py DIR --tern build/cpu/bin/tern [--report out.json]

For each DIR/<name>/ of make_hf_models.py with DIR/<name>.f32 (the logits that transformers gave),
the folder becomes a model file (tern import), that an hf/f32 folder and a gguf/f32 file, and the
GGUF file a model file and a folder again. transformers reads both folders in float32: nothing of
tern computes what is compared. Every step keeps float32 values, so the logits must be equal to the
bit; models of other types than float32 are compared within their own type's rounding of sums, which
is none either, as transformers reads them as float32. Exit 0 all hold, 4 one does not.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import compare
from compare import Bound


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tern", required=True)
    parser.add_argument("--report")
    return parser.parse_args()


def transformers_logits(folder, ids):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].double().numpy()


class RoundTrip:
    def __init__(self, tern, work):
        self.tern, self.work = tern, pathlib.Path(work)

    def run(self, *arguments):
        done = subprocess.run([self.tern, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"tern {' '.join(map(str, arguments))}: {done.stderr}")

    def through(self, source, *steps):
        """`source` as a model file, exported and imported step by step; the last result."""
        for number, step in enumerate(steps):
            model = self.work / f"{number}.h5"
            self.run("import", source, "-o", model)
            source = self.work / f"{number}-{step.replace('/', '-')}"
            if step.startswith("gguf"):
                source = source.with_suffix(".gguf")
            self.run("export", model, "--format", step, "-o", source)
        return source


def main():
    args = parse_args()
    ids = compare.load_ids(args.folder / "ids.txt")
    results, record = [], {}
    bound = Bound(max_diff=0.0, why="every step keeps the values")
    for wanted in sorted(args.folder.glob("*.f32")):
        name = wanted.stem
        if name.endswith("-window"):  # Exports are decoders', whose context is cut to the window
            continue
        theirs = compare.load_logits(wanted, len(ids))
        for steps in (["hf/f32"], ["gguf/f32", "hf/f32"]):
            with tempfile.TemporaryDirectory() as work:
                folder = RoundTrip(args.tern, work).through(wanted.with_suffix(""), *steps)
                stats = compare.statistics(transformers_logits(folder, ids), theirs)
            label = f"{name} by {' and '.join(steps)}"
            results.append(compare.judge(label, stats, bound))
            record[label] = stats
    if not results:
        raise SystemExit(f"{args.folder} has no models")
    compare.finish(results, args.report, record)


if __name__ == "__main__":
    main()
