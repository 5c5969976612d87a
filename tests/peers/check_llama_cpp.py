"""Checks an exported GGUF against llama.cpp: logits three ways, and token ids.

  check_llama_cpp.py MODEL.gguf --ids ids.txt [--ours logits.f32] [--llama-logits PATH]
                     [--text FILE --our-ids ids.txt] [--report out.json]

IDS are decimal numbers; --ours is tern's float32 [T, V] without a header. What must hold:
 1. llama.cpp = float64 reference of the same file under llama.cpp's rule (blocks of 256);
 2. tern      = float64 reference of the same file under BitNet's rule (one scale a token);
 3. tern against llama.cpp: the two rules differ, so a bound on KL (--max-mean-kl, --max-kl).
For 1 and 2 the bound is what rounding can do: FACTOR x the KL that the reference shows against
itself with noise of 2e-7 at its quantizers (FACTS.md, "Rounding cascades"). Each must also be
nearer to its own rule than to any other. Exit 0 all hold, 4 one does not.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import compare
import gguf_reference
from compare import Bound
from tiny_reference import ACTIVATIONS, forward

# Peers round in other places than the noise model: a factor of 4 in KL is a factor of 2 in logits.
FACTOR = 4
NOISE_SEEDS = (1, 2, 3)
# Below this KL only rounding of the head is left (an F16 table rounds the head's input: 5e-8).
FLOOR_KL = 1e-6


def parse_args():
    cache = pathlib.Path(os.environ.get("TERN_CACHE", pathlib.Path.home() / ".cache/tern"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--ids", required=True, help="token ids to evaluate")
    parser.add_argument("--ours", help="tern's logits of the same ids")
    parser.add_argument("--llama-logits", default=str(cache / "llama/llama_logits"))
    parser.add_argument("--text", help="text file to tokenize with llama.cpp")
    parser.add_argument("--our-ids", help="tern's ids of --text")
    parser.add_argument("--max-mean-kl", type=float, default=0.02)
    parser.add_argument("--max-kl", type=float, default=0.2)
    parser.add_argument("--report", help="write the figures as JSON")
    return parser.parse_args()


def run_llama(args, mode, *operands):
    command = [args.llama_logits, mode, args.model, *operands]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        tail = "\n".join(result.stderr.splitlines()[-8:])
        sys.exit(f"{' '.join(command)} ended with {result.returncode}:\n{tail}")
    return result.stdout


def rounding_bound(config, model, ids, activation, reference):
    """Bound on KL from the reference against itself under noise."""
    noisy = [gguf_reference.noisy_forward(config, model, ids, activation, s) for s in NOISE_SEEDS]
    seen = [compare.statistics(reference, x) for x in noisy]
    return Bound(
        mean_kl=max(FLOOR_KL, FACTOR * max(s["mean_kl"] for s in seen)),
        max_kl=max(FLOOR_KL, FACTOR * max(s["max_kl"] for s in seen)),
    )


def judge_nearest(label, logits, references, rule):
    """The rule whose reference is nearest in mean KL must be the one that is claimed."""
    distance = {r: compare.statistics(x, logits)["mean_kl"] for r, x in references.items()}
    nearest = min(distance, key=distance.get)
    figures = " ".join(f"{r} {d:.3g}" for r, d in distance.items())
    print(f"{'pass' if nearest == rule else 'FAIL'}  {label}: nearest rule {nearest} ({figures})")
    return nearest == rule


def main():
    args = parse_args()
    ids = compare.load_ids(args.ids)
    results, record = [], {"model": args.model, "tokens": len(ids), "comparisons": {}}

    def check(label, a, b, bound):
        stats = compare.statistics(a, b)
        results.append(compare.judge(label, stats, bound))
        record["comparisons"][label] = stats | {
            "bound_mean_kl": bound.mean_kl,
            "bound_max_kl": bound.max_kl,
        }

    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/llama.f32"
        run_llama(args, "eval", args.ids, out)
        theirs = compare.load_logits(out, len(ids))
    config, model = gguf_reference.read_model(args.model)
    references = {rule: forward(config, model, ids, rule) for rule in ACTIVATIONS}
    bounds = {
        r: rounding_bound(config, model, ids, r, references[r]) for r in ("q8_k", "int8_token")
    }
    check("llama.cpp against reference (blocks of 256)", references["q8_k"], theirs, bounds["q8_k"])
    results.append(judge_nearest("llama.cpp", theirs, references, "q8_k"))
    if args.ours:
        ours = compare.load_logits(args.ours, len(ids))
        label = "tern against reference (one scale a token)"
        check(label, references["int8_token"], ours, bounds["int8_token"])
        results.append(judge_nearest("tern", ours, references, "int8_token"))
        wide = Bound(mean_kl=args.max_mean_kl, max_kl=args.max_kl)
        check("tern against llama.cpp", ours, theirs, wide)
    if args.text:
        words = run_llama(args, "tokenize", args.text).split()
        if not args.our_ids:
            sys.exit("--text needs --our-ids")
        ours_ids = compare.load_ids(args.our_ids)
        results.append(compare.judge_ids("token ids", ours_ids, [int(w) for w in words]))
    compare.finish(results, args.report, record)


if __name__ == "__main__":
    main()
