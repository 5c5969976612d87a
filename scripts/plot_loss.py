#!/usr/bin/env python3
"""Draws the loss curves of run folders as one SVG: scripts/plot_loss.py OUT.svg NAME=RUN_FOLDER...

Reads metrics.jsonl only. A line is the training loss (mean of a few steps), dots are the validation
loss. Needs nothing but Python.
"""

import json
import pathlib
import sys

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 380, 56, 40, 16, 16
COLOURS = ("#1f6feb", "#d1571b", "#1a7f37", "#8250df")
SMOOTHED_STEPS = 5


def read(folder):
    """([(step, training loss)], [(step, validation loss)])."""
    train, validation = [], []
    for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        train.append((record["step"], record["loss"]))
        if "validation_loss" in record:
            validation.append((record["step"], record["validation_loss"]))
    return smooth(train), validation


def smooth(points):
    groups = [points[i : i + SMOOTHED_STEPS] for i in range(0, len(points), SMOOTHED_STEPS)]
    mean = lambda values: sum(values) / len(values)
    return [(mean([s for s, _ in g]), mean([l for _, l in g])) for g in groups]


class Axes:
    """Maps steps and nats a token to the picture; both axes are linear."""

    def __init__(self, curves):
        points = [p for train, validation in curves for p in train + validation]
        self.last = max(step for step, _ in points)
        self.low = int(min(loss for _, loss in points) * 2) / 2
        self.high = int(max(loss for _, loss in points) * 2 + 1) / 2

    def x(self, step):
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.last

    def y(self, loss):
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - loss) / (self.high - self.low)

    def svg(self):
        out, loss = [], self.low
        while loss <= self.high:
            y = self.y(loss)
            out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#d8dee4"/>')
            out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{loss:g}</text>')
            loss += 0.5
        for part in range(5):
            step = self.last * part / 4
            out.append(f'<text x="{self.x(step):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{step:.0f}</text>')
        out.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 3}" text-anchor="middle">optimizer steps</text>')
        out.append(f'<text x="12" y="{HEIGHT / 2}" text-anchor="middle" '
                   f'transform="rotate(-90 12 {HEIGHT / 2})">loss, nats a token</text>')  # fmt: skip
        return out


def draw(names, curves):
    axes = Axes(curves)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *axes.svg()]  # fmt: skip
    for index, (name, (train, validation)) in enumerate(zip(names, curves)):
        colour = COLOURS[index % len(COLOURS)]
        line = " ".join(f"{axes.x(s):.1f},{axes.y(l):.1f}" for s, l in train)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        for step, loss in validation:
            out.append(f'<circle cx="{axes.x(step):.1f}" cy="{axes.y(loss):.1f}" r="4" fill="{colour}"/>')
        y = TOP + 18 + 18 * index
        text = f"{name}: validation loss {validation[-1][1]:.3f}" if validation else name
        out.append(f'<text x="{WIDTH - RIGHT - 8}" y="{y}" text-anchor="end" fill="{colour}">{text}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    if len(sys.argv) < 3 or any("=" not in word for word in sys.argv[2:]):
        sys.exit(__doc__)
    names, folders = zip(*(word.split("=", 1) for word in sys.argv[2:]))
    pathlib.Path(sys.argv[1]).write_text(draw(names, [read(folder) for folder in folders]))


if __name__ == "__main__":
    main()
