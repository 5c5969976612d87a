"""Compares two sets of logits [T, V] and compares two lists of token ids; used by the checks.

KL is KL(softmax(ours) || softmax(theirs)) per position in nats, in float64. A Bound states what
must hold; a check that misses it prints the figure, the limit and exits with code 4. Files of
logits are float32 without a header. It loads no model.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np

EXIT_MISMATCH = 4


@dataclasses.dataclass(frozen=True)
class Bound:
    """Limits of one comparison; None means reported but not bounded."""

    max_kl: float | None = None
    mean_kl: float | None = None
    top1: float | None = None
    max_diff: float | None = None
    why: str = ""


def load_ids(path):
    return [int(word) for word in pathlib.Path(path).read_text().split()]


def load_logits(path, num_tokens):
    """float32 file of [T, V] as float64; refuses a size that T does not divide, NaN and Inf."""
    flat = np.fromfile(path, np.float32)
    if flat.size == 0 or flat.size % num_tokens:
        sys.exit(f"{path}: {flat.size} floats, not a multiple of {num_tokens} tokens")
    if not np.isfinite(flat).all():
        sys.exit(f"{path}: holds NaN or Inf")
    return flat.reshape(num_tokens, -1).astype(np.float64)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def statistics(ours, theirs):
    """Figures of two [T, V] arrays of equal shape."""
    if ours.shape != theirs.shape:
        sys.exit(f"shapes differ: {ours.shape} against {theirs.shape}")
    p, q = log_softmax(ours), log_softmax(theirs)
    kl = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0)
    return {
        "positions": int(ours.shape[0]),
        "vocab_size": int(ours.shape[1]),
        "mean_kl": float(kl.mean()),
        "max_kl": float(kl.max()),
        "top1": float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
        "max_diff": float(np.abs(ours - theirs).max()),
        "logit_std": float(ours.std()),
    }


def judge(label, stats, bound):
    """Prints one line; True when every limit holds."""
    misses = []
    for name in ("mean_kl", "max_kl", "max_diff"):
        limit = getattr(bound, name)
        if limit is not None and not stats[name] <= limit:
            misses.append(f"{name} {stats[name]:.3g} > {limit:.3g}")
    if bound.top1 is not None and not stats["top1"] >= bound.top1:
        misses.append(f"top1 {stats['top1']:.4f} < {bound.top1:.4f}")
    figures = " ".join(
        f"{k} {stats[k]:.3g}" for k in ("mean_kl", "max_kl", "max_diff", "logit_std")
    )
    verdict = "FAIL" if misses else "pass"
    print(f"{verdict}  {label}: {figures} top1 {stats['top1']:.4f}  {'; '.join(misses)}".rstrip())
    return not misses


def judge_ids(label, ours, theirs):
    """Equality of two id lists; says where they part."""
    ours, theirs = list(ours), list(theirs)
    if ours == theirs:
        print(f"pass  {label}: {len(ours)} ids equal")
        return True
    at = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs))
    )
    print(f"FAIL  {label}: {len(ours)} ids against {len(theirs)}; first difference at {at}: "
          f"{ours[at:at + 6]} against {theirs[at:at + 6]}")  # fmt: skip
    return False


def finish(results, report_path, record):
    """Writes the record as JSON when asked and exits 0 or 4."""
    record["passed"] = all(results)
    if report_path:
        pathlib.Path(report_path).write_text(json.dumps(record, indent=2) + "\n")
    if not results:
        sys.exit("nothing was compared")
    sys.exit(0 if all(results) else EXIT_MISMATCH)
