"""Holds `tern eval` and `tern logits` against transformers on a model of any size.

  check_eval.py MODEL --tern build/cpu/bin/tern --text FILE [--folder DIR] [--windows 10]
                [--context 2048] [--threads N] [--work DIR] [--report out.json]

MODEL is a GGUF file (or a Hugging Face folder). transformers reads --folder, the same weights in
float32: by default what `tern export --format hf/f32` makes of MODEL. Compared are token ids,
logits, log-likelihoods of choices (a file of ARC's layout written here, imported by tern; the
context and the choice encoded together and parted where the context ends) and perplexity by the
papers' protocol. transformers is called directly: nothing of tern computes the wanted values. Both
sides' speed is printed, with whatever else the machine does. Exit 0 all hold, 4 one does not.
The limit on logits is float32's rounding, so tern is asked for --activations f32: as it runs otherwise, codes
of GGUF are multiplied by activations of 16 bits (kernels/code_gemm), which for SmolLM2-135M in Q4_1
means 0.0024 on 256 tokens, mean KL 3e-7.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import compare
import numpy as np

QUESTIONS = (
    ("Which of these gives the Earth most of its light?", ("the Moon", "the Sun", "volcanoes"), 1),
    ("What do plants take from the air to make sugar?", ("carbon dioxide", "helium", "iron"), 0),
    ("Which animal lays eggs?", ("a dog", "a whale", "a hen", "a horse"), 2),
    ("Water that is cooled below 0 degrees Celsius", ("boils.", "freezes.", "burns."), 1),
    ("Which tool measures temperature?", ("a ruler", "a scale", "a clock", "a thermometer"), 3),
    ("What pulls a falling stone to the ground?", ("gravity", "magnetism", "sound"), 0),
    ("Which part of a plant takes up water?", ("the flower", "the root", "the seed"), 1),
    ("How many legs does an insect have?", ("four", "eight", "six", "ten"), 2),
    ("Which of these is a mammal?", ("a bat", "a trout", "an eagle", "a frog"), 0),
    ("A café in Zürich sells ice at −5 °C. The ice is", ("a gas.", "a liquid.", "a solid."), 2),
)
LETTERS = "ABCD"
LOGIT_TOKENS = 256
MEAN_LOGIT_DIFF = 1e-3
PERPLEXITY_PERCENT = 0.1
# Of a choice's summed log-likelihood, in nats: as loose as the logits, for each of ten tokens.
LOGLIKELIHOOD_DIFF = 1e-2


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--tern", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--folder", help="the same weights for transformers (default: exported)")
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", help="folder for files (default: one that is removed)")
    parser.add_argument("--report")
    return parser.parse_args()


class Peer:
    """transformers in float32 on the CPU."""

    def __init__(self, folder, threads):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(self, text):
        return list(self.tokenizer(text).input_ids)

    def logits(self, ids):
        with self.torch.inference_mode():
            return self.model(self.torch.tensor([ids])).logits[0]

    def logprobs(self, ids, first):
        """Log-probabilities of ids[first:], each given all before it; float64."""
        rows = self.logits(ids[:-1])[first - 1 :].double()
        targets = self.torch.tensor(ids[first:])
        return self.torch.log_softmax(rows, -1).gather(1, targets[:, None])[:, 0].numpy()


class Tern:
    def __init__(self, args, work):
        self.args, self.work = args, work

    def run(self, *arguments):
        command = [self.args.tern, *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def logits(self, ids):
        tokens, out = self.work / "ids.txt", self.work / "logits.f32"
        tokens.write_text(" ".join(map(str, ids)))
        self.run("logits", self.args.model, "--tokens", tokens, "-o", out,
                 "--activations", "f32", "--threads", self.args.threads)  # fmt: skip
        return compare.load_logits(out, len(ids))

    def evaluate(self, task, data, *more):
        out = self.work / f"{task}.json"
        for path in (out, out.with_name(out.name + ".journal.jsonl")):
            path.unlink(missing_ok=True)
        self.run("eval", self.args.model, "--task", task, "--data", data, "-o", out,
                 "--activations", "f32", "--threads", self.args.threads, *more)  # fmt: skip
        return json.loads(out.read_text())["tasks"][0]


def judge(label, found, limit, figures):
    holds = found <= limit
    print(f"{'pass' if holds else 'FAIL'}  {label}: {found:.3g} (limit {limit:.3g}); {figures}")
    sys.stdout.flush()
    return bool(holds)


def check_logits(tern, peer, ids, record):
    ours, theirs = tern.logits(ids), peer.logits(ids).double().numpy()
    record["logits"] = compare.statistics(ours, theirs)
    mean = record["logits"]["mean_diff"] = float(np.abs(ours - theirs).mean())
    figures = "max {max_diff:.3g}, mean KL {mean_kl:.3g}, top-1 {top1:.4f}"
    return judge(
        "mean |logit difference|", mean, MEAN_LOGIT_DIFF, figures.format(**record["logits"])
    )


def check_choices(tern, peer, work, record):
    source, task = work / "source.jsonl", work / "arc_easy.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for question, texts, gold in QUESTIONS:
            choices = {"text": texts, "label": list(LETTERS[: len(texts)])}
            line = {"question": question, "choices": choices, "answerKey": LETTERS[gold]}
            file.write(json.dumps(line) + "\n")
    task.unlink(missing_ok=True)
    tern.run("eval", "--import", "arc_easy", source, "--out", task)
    result = tern.evaluate("arc_easy", task)
    worst, right, right_norm = 0.0, 0, 0
    for item, (question, texts, gold) in zip(result["items"], QUESTIONS):
        context = f"Question: {question}\nAnswer:"
        first = len(peer.encode(context))
        sums = [float(peer.logprobs(peer.encode(f"{context} {t}"), first).sum()) for t in texts]
        worst = max(worst, *(abs(a - b) for a, b in zip(item["values"], sums)))
        right += int(np.argmax(sums)) == gold
        right_norm += int(np.argmax([s / len(t) for s, t in zip(sums, texts)])) == gold
    ours = {metric["name"]: metric["value"] for metric in result["metrics"]}
    theirs = {"acc": right / len(QUESTIONS), "acc_norm": right_norm / len(QUESTIONS)}
    record["choices"] = {"max_diff": worst, "tern": ours, "transformers": theirs}
    equal = all(math.isclose(ours[name], value) for name, value in theirs.items())
    figures = f"acc and acc_norm {theirs}, {'equal' if equal else f'not as {ours}'}"
    return judge("choices, max |log-likelihood|", worst, LOGLIKELIHOOD_DIFF, figures) and equal


def check_perplexity(tern, peer, args, record):
    text = pathlib.Path(args.text).read_text(encoding="utf-8")
    result = tern.evaluate("perplexity", args.text, "--protocol", "papers",
                           "--context", args.context, "--limit", args.windows)  # fmt: skip
    print(f"      {result['protocol']}")
    ids = peer.encode(text)
    count = min(args.windows, len(ids) // args.context)
    windows = [ids[w * args.context : (w + 1) * args.context] for w in range(count)]
    begin = time.monotonic()
    sums = [-float(peer.logprobs(window, 1).sum()) for window in windows]
    seconds = time.monotonic() - begin
    theirs = math.exp(sum(sums) / (count * (args.context - 1)))
    ours = result["metrics"][0]["value"]
    tokens = count * args.context
    speed = result["tokens_run"] / result["seconds"], tokens / seconds
    record["perplexity"] = {"tern": ours, "transformers": theirs, "tokens": tokens,
                            "tern_tokens_per_second": speed[0],
                            "transformers_tokens_per_second": speed[1],
                            "window_nll": [sums, [i["values"][0] for i in result["items"]]]}  # fmt: skip
    figures = (f"tern {ours:.5f}, transformers {theirs:.5f} on {tokens} tokens; "
               f"{speed[0]:.0f} and {speed[1]:.0f} tokens/s")  # fmt: skip
    same = len(result["items"]) == count
    return judge("perplexity, %", 100 * abs(ours / theirs - 1), PERPLEXITY_PERCENT, figures) and same


def check(args, work):
    tern = Tern(args, work)
    folder = args.folder or work / "folder"
    if not args.folder:
        tern.run("export", args.model, "--format", "hf/f32", "-o", folder)
    peer, record = Peer(folder, args.threads), {"model": pathlib.Path(args.model).name}
    ids = peer.encode(pathlib.Path(args.text).read_text(encoding="utf-8"))[:LOGIT_TOKENS]
    results = [
        check_logits(tern, peer, ids, record),
        check_choices(tern, peer, work, record),
        check_perplexity(tern, peer, args, record),
    ]
    compare.finish(results, args.report, record)


def main():
    args = parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.work:
        work = pathlib.Path(args.work)
        work.mkdir(parents=True, exist_ok=True)
        return check(args, work)
    with tempfile.TemporaryDirectory() as work:
        check(args, pathlib.Path(work))


if __name__ == "__main__":
    main()
