"""Holds tern-engine against transformers on the models of make_hf_models.py and make_ct_models.py.

  check_hf_models.py DIR --engine build/cpu/bin/tern-engine [--max-kl 1e-9] [--max-diff 1e-3]

For each DIR/<name>/ with DIR/<name>.f32, tern's logits of DIR/ids.txt must agree. Both compute in
float32 in another order of sums, so the limits are rounding. Exit 0 all hold, 4 one does not.
"""

import argparse
import pathlib
import subprocess
import tempfile

import compare
from compare import Bound


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--max-kl", type=float, default=1e-9)
    parser.add_argument("--max-diff", type=float, default=1e-3)
    parser.add_argument("--report")
    args = parser.parse_args()
    ids = args.folder / "ids.txt"
    count = len(compare.load_ids(ids))
    results, record = [], {}
    for wanted in sorted(args.folder.glob("*.f32")):
        model = wanted.with_suffix("")
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run(
                [args.engine, "logits", model, "--tokens", ids, "-o", out.name], check=True
            )
            ours = compare.load_logits(out.name, count)
        stats = compare.statistics(ours, compare.load_logits(wanted, count))
        bound = Bound(max_kl=args.max_kl, max_diff=args.max_diff, why="rounding of float32")
        results.append(compare.judge(model.name, stats, bound))
        record[model.name] = stats
    if not results:
        raise SystemExit(f"{args.folder} has no models")
    compare.finish(results, args.report, record)


if __name__ == "__main__":
    main()
