#!/usr/bin/env python3
"""Fits a power law to a run's validation losses: loss - teacher's loss = a tokens^-b, by least squares of the logarithms, and
says how many tokens it wants for a perplexity of 1.5 and 1.1 times the teacher's. An extrapolation over many times the
tokens seen, no measurement: the points before the last one stand at a rate that had not yet fallen.

    benchmarks/learning_curve.py checkpoints/qat_int2_smollm2 --teacher-loss 3.31 [--skip 1]
"""
import argparse
import json
import math


def validation_losses(run):
    """Tokens seen and validation loss, in nats a token, in the order of training; stages follow each other."""
    points, tokens, steps = [], 0, {}
    with open(f"{run}/metrics.jsonl") as file:
        for line in file:
            record = json.loads(line)
            if "validation_loss" not in record and "tokens" not in record:
                continue
            key = (record["stage"], record["step"])
            if key not in steps:  # A run that went on after a kill has some steps twice.
                tokens += record.get("tokens", 0)
                steps[key] = tokens
            if "validation_loss" in record:
                points.append((steps[key], record["validation_loss"]))
    return points


def fit(points, floor):
    """a, b of loss - floor = a tokens^-b, and the share of the variance of the logarithms that it leaves."""
    xs = [math.log(tokens) for tokens, _ in points]
    ys = [math.log(loss - floor) for _, loss in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / sum((x - mean_x) ** 2 for x in xs)
    left = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(xs, ys))
    return math.exp(mean_y - slope * mean_x), -slope, left / sum((y - mean_y) ** 2 for y in ys)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--teacher-loss", type=float, required=True, help="nats a token on the same held-out text")
    parser.add_argument("--skip", type=int, default=1, help="first points left out of the fit")
    options = parser.parse_args()
    points = validation_losses(options.run)
    for tokens, loss in points:
        print(f"{tokens:>10} tokens: loss {loss:.4f}, perplexity {math.exp(loss - options.teacher_loss):.3f} of the teacher's")
    used = points[options.skip:]
    if len(used) < 3:
        parser.error(f"{len(used)} points behind the first {options.skip}; a fit wants 3")
    if min(loss for _, loss in used) <= options.teacher_loss:
        parser.error("a loss is not above the teacher's: there is nothing to extrapolate")
    a, b, left = fit(used, options.teacher_loss)
    print(f"loss - {options.teacher_loss:.4f} = {a:.4g} tokens^-{b:.3f}, {len(used)} points, {100 * left:.1f} % of the variance left")
    for ratio in (1.5, 1.1):
        tokens = (a / math.log(ratio)) ** (1 / b) if b > 0 else math.inf
        print(f"EXTRAPOLATED: {ratio} times the teacher's perplexity after {tokens:.2g} tokens, {tokens / points[-1][0]:.2g} times those seen")


if __name__ == "__main__":
    main()
