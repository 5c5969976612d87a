"""Reads tern's event files with TensorBoard's own reader and checks them against metrics.jsonl.

  check_tensorboard.py EVENTS_FOLDER [--metrics METRICS.jsonl --stage ID --pair loss=train/loss ...]
                       [--json]

Every scalar tag must have steps that rise, none twice: so the restarts of a resumed run were
understood. With --metrics, each --pair KEY=TAG compares the values of that tag with the numbers KEY
of metrics.jsonl, step by step, exactly as fp32 (event files hold fp32). Needs the package
tensorboard (requirements.txt). Exit 0 good, 4 not.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EXIT_MISMATCH = 4


def parse_args():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("events", type=pathlib.Path)
    parser.add_argument("--metrics", type=pathlib.Path)
    parser.add_argument("--stage", default="train")
    parser.add_argument("--pair", action="append", default=[], metavar="KEY=TAG")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def read_events(folder):
    """{tag: [(step, value)]} as TensorBoard shows them, without its sampling."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, np.float32(event.value)) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def read_metrics(path, stage, key):
    """[(step, value as fp32)] of the records of a stage that hold a number for key."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (record["step"], np.float32(record[key]))
        for record in records
        if record["stage"] == stage and isinstance(record.get(key), (int, float))
    ]


def find_problems(scalars, args):
    problems = [] if scalars else ["no scalars at all"]
    for tag, points in scalars.items():
        steps = [step for step, _ in points]
        if steps != sorted(set(steps)):
            problems.append(f"{tag}: steps do not rise: {steps[:20]} ...")
    for pair in args.pair if args.metrics else []:
        key, tag = pair.split("=", 1)
        wanted, found = read_metrics(args.metrics, args.stage, key), scalars.get(tag, [])
        if not wanted or wanted != found:
            first = next((a, b) for a, b in zip(wanted + [None], found + [None]) if a != b or a is None)
            problems.append(f"{tag}: {len(found)} points, {key}: {len(wanted)}; first other pair {first}")
    return problems


def main():
    args = parse_args()
    scalars = read_events(args.events)
    problems = find_problems(scalars, args)
    if args.json:
        sizes = {tag: len(points) for tag, points in scalars.items()}
        print(json.dumps({"points": sizes, "problems": problems}, indent=2))
    else:
        for tag, points in sorted(scalars.items()):
            print(f"{tag}: {len(points)} points, steps {points[0][0]} to {points[-1][0]}, last {points[-1][1]}")
    for text in problems:
        print(f"FAIL  {text}", file=sys.stderr)
    sys.exit(EXIT_MISMATCH if problems else 0)


if __name__ == "__main__":
    main()
