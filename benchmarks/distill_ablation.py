#!/usr/bin/env python3
"""What each part of ternary distillation gives on a small model: distill_ablation.py [--steps N] [--seeds 1,2,3].

Trains a dense teacher on Shakespeare (the shape of configs/model/bitnet_3m.yaml without sub-norms), then turns it into a
ternary model by each way in SETTINGS with the same tokens, once a seed (data order; the held-out texts are the same), and
measures perplexity on held-out text. Writes results/DATE-distill-ablation.{json,md}. Runs are kept in --work, so that it goes
on after an interruption.
"""

import argparse
import datetime
import json
import math
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

DATA = """data:
  fetch: shakespeare
  files: ["{fetched}/*_gut.txt"]
  validation_files: ["{fetched}/hamlet_gut.txt", "{fetched}/henry_iv_part_1_gut.txt"]
"""

TEACHER = """name: teacher
seed: 42
model: {use: model/bitnet_3m, linear: dense, sub_norms: false}
DATA  tokenizer: {vocab_size: 2048}
stages:
  - train:
      use: train/dense_cosine
      steps: STEPS
      tokens_per_step: 4096
      sequence_length: 256
      eval_every: 0
      schedule: {peak_lr: 2.0e-3, final_lr: 2.0e-4, warmup_steps: 20}
  - eval: {perplexity: {split: validation, tokens: 65536}}
  - export: {formats: [hf/f32]}
"""

STUDENT = """name: NAME
seed: SEED
model: {from: MODEL}
teacher: {from: MODEL}
DATAstages:
  - train:
      steps: STEPS
      tokens_per_step: 2048
      sequence_length: 256
      eval_every: 0
      eval_tokens: 1
      checkpoint_every: 1000
      keep_last: 1
      health_every: 0
      optimizer: {weight_decay: 0}
      schedule: {kind: cosine, peak_lr: 1.0e-3, final_lr: 0, warmup_steps: 3}
  - eval: {perplexity: {split: validation, tokens: 65536}}
"""

KL = "train.losses={cross_entropy: {weight: 0.5}, forward_kl: {weight: 1}"
# name -> (overrides, whether it is trained at all)
SETTINGS = {
    "ternary, not trained": (["model.linear=bitlinear"], False),
    "cross-entropy": (["model.linear=bitlinear"], True),
    "sub-norms, cross-entropy": (["model.linear=bitlinear", "model.sub_norms=true"], True),
    "sub-norms, cross-entropy + KL": (["model.linear=bitlinear", "model.sub_norms=true", KL + "}"], True),
    "sub-norms, cross-entropy + KL + relations": (
        ["model.linear=bitlinear", "model.sub_norms=true", KL + ", relations: {weight: 1}}"],
        True,
    ),
    "2 bits (seq2), cross-entropy": (["train.quantize.rules={body: {weights: seq2}}"], True),
    "2 bits (seq2), cross-entropy + KL": (["train.quantize.rules={body: {weights: seq2}}", KL + "}"], True),
}


def run(args, name, yaml, overrides):
    """The results of the stages of one run, made if they are not there."""
    recipe = os.path.join(args.work, name + ".yaml")
    with open(recipe, "w", encoding="utf-8") as file:
        file.write(yaml)
    runs = os.path.join(args.work, "runs")
    command = [args.tern, "run", recipe, "--runs", runs, *overrides]
    environment = dict(os.environ, TERN_CONFIGS=os.path.join(ROOT, "configs"))
    # Recipes find scripts/fetch above them; these lie elsewhere.
    os.makedirs(os.path.join(args.work, "scripts"), exist_ok=True)
    fetch = os.path.join(args.work, "scripts", "fetch")
    if not os.path.exists(fetch):
        os.symlink(os.path.join(ROOT, "scripts", "fetch"), fetch)
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    result = {}
    for stage in ("train", "eval"):
        with open(os.path.join(runs, name, "stages", stage + ".json"), encoding="utf-8") as file:
            result[stage] = json.load(file)["result"]
    return result


def interval(values):
    """Mean and half-width of the 95 % interval of Student's t."""
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, float("nan")
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(n, 2.0)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, t * deviation / math.sqrt(n)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tern", default=os.path.join(ROOT, "build/cpu/bin/tern"))
    parser.add_argument("--work", default="distill_ablation")
    parser.add_argument("--teacher-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", default="1,2,3")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    teacher = run(args, "teacher", TEACHER.replace("DATA", DATA).replace("STEPS", str(args.teacher_steps)), [])
    model = os.path.join(args.work, "runs/teacher/exports/teacher-hf-f32")
    rows = []
    for index, (name, (overrides, trained)) in enumerate(SETTINGS.items()):
        losses = []
        for seed in args.seeds.split(",") if trained else ["1"]:
            label = f"s{index}_seed{seed}"
            yaml = STUDENT.replace("DATA", DATA).replace("MODEL", model).replace("NAME", label).replace("SEED", seed)
            more = overrides if trained else [*overrides, "train.schedule={kind: constant, peak_lr: 1.0e-10, warmup_steps: 0}"]
            losses.append(run(args, label, yaml.replace("STEPS", str(args.steps if trained else 1)), more)["eval"]["loss"])
            print(f"{name}, seed {seed}: loss {losses[-1]:.4f}, perplexity {math.exp(losses[-1]):.2f}", flush=True)
        mean, half = interval(losses)
        rows.append({"setting": name, "losses": losses, "mean": mean, "half_width_95": half})
    write(args, teacher, rows)


def write(args, teacher, rows):
    date = datetime.date.today().isoformat()
    base = os.path.join(ROOT, "benchmarks/results", f"{date}-distill-ablation")
    dense = teacher["eval"]["loss"]
    record = {"teacher_loss": dense, "teacher_steps": args.teacher_steps, "steps": args.steps, "tokens_per_step": 2048, "rows": rows}
    with open(base + ".json", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
    lines = [
        f"# Ternary and 2-bit students of a small dense model, {date}",
        "",
        f"`benchmarks/distill_ablation.py --teacher-steps {args.teacher_steps} --steps {args.steps} --seeds {args.seeds}`: "
        f"2.9 M parameters, Shakespeare, {args.steps * 2048:,} tokens a student. Held-out loss of the dense teacher: {dense:.4f} "
        f"(perplexity {math.exp(dense):.2f}). Interval: 95 %, Student's t over the seeds. Raw numbers: the JSON file beside.",
        "",
        "| student | held-out loss | perplexity | above the teacher |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        half = "" if math.isnan(row["half_width_95"]) else f" ± {row['half_width_95']:.4f}"
        above = 100 * (math.exp(row["mean"] - dense) - 1)
        lines.append(f"| {row['setting']} | {row['mean']:.4f}{half} | {math.exp(row['mean']):.2f} | {above:.0f} % |")
    with open(base + ".md", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print(base + ".md")


if __name__ == "__main__":
    main()
