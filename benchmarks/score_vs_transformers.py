#!/usr/bin/env python3
"""Log-likelihoods of choices and perplexity: tern eval against a plain loop over transformers, in turns.

  benchmarks/score_vs_transformers.py TOOL MODEL TEXT --folder DIR [--runtime ...] [--questions 16] [--rounds 3]
                                      [--threads 2] -o benchmarks/results/NAME.json

TOOL is tern or tern-engine, MODEL what it evaluates, DIR the same weights for transformers in float32 (`tern export MODEL --format
hf/f32 -o DIR`). Questions of four choices are cut from TEXT in three shapes (words of context and choice as ARC, HellaSwag and MMLU
with five examples have them). The peer does what lm-evaluation-harness does: every pair of context and choice is a row, longest first, padded
to the longest of its batch (1 and 8); log-probabilities of the choice's rows alone, which favours it. Tokens are counted alike for both:
those of all rows, so shared beginnings count each time. Log-likelihoods are compared. Both are timed inside, without loading;
processor seconds (tern's with loading) say more on a shared machine.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

SHAPES = {"arc": (22, 4, 0), "hellaswag": (60, 18, 0), "mmlu_5_shot": (50, 1, 350)}  # Words: context, choice, preamble
WINDOW = 2048


def write_questions(path, words, count, shape):
    context, choice, preamble = SHAPES[shape]
    before = " ".join(words[:preamble]) + "\n\n" if preamble else ""
    at, rows = preamble, []
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(words[at : at + context])
            at += context
            choices = [" ".join(words[at + i * choice : at + (i + 1) * choice]) for i in range(4)]
            if len(set(choices)) < 4:  # One word each, drawn twice
                choices = [f"{c} {i}" for i, c in enumerate(choices)]
            at += 4 * choice
            question = {"context": text, "choices": choices, "gold": number % 4}
            if before:
                question["preamble"] = before
            file.write(json.dumps(question, ensure_ascii=False) + "\n")
            rows += [(before + text, c) for c in choices]
    return rows


class Clock:
    def __init__(self, who):
        self.who, self.begin, self.cpu = who, time.perf_counter(), self.processor(who)

    @staticmethod
    def processor(who):
        usage = resource.getrusage(who)
        return usage.ru_utime + usage.ru_stime

    def read(self):
        return {"seconds": time.perf_counter() - self.begin, "processor_seconds": self.processor(self.who) - self.cpu}


class Peer:
    def __init__(self, folder, threads):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def encode(self, text):
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def score(self, rows, batch):
        """[(ids, first scored)] to sums of log-probabilities, in the rows' order."""
        torch, sums = self.torch, [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        with torch.inference_mode():
            for begin in range(0, len(order), batch):
                some = order[begin : begin + batch]
                longest = len(rows[some[0]][0]) - 1
                ids = torch.zeros(len(some), longest, dtype=torch.long)
                for j, i in enumerate(some):
                    ids[j, : len(rows[i][0]) - 1] = torch.tensor(rows[i][0][:-1])
                logits = self.model(ids, use_cache=False).logits
                for j, i in enumerate(some):
                    tokens, first = rows[i]
                    part = torch.log_softmax(logits[j, first - 1 : len(tokens) - 1], -1)
                    sums[i] = float(part.gather(1, torch.tensor(tokens[first:])[:, None]).sum())
        return sums


def run_tern(options, task, data, *more):
    command = [options.tool, "eval", options.model, "--task", task, "--data", data, "--json", "--threads", options.threads]
    if options.runtime:
        command += ["--runtime", options.runtime]
    clock = Clock(resource.RUSAGE_CHILDREN)
    out = subprocess.run([str(part) for part in (*command, *more)], check=True, stdout=subprocess.PIPE)
    result = json.loads(out.stdout)["tasks"][0]
    return {**clock.read(), "seconds": result["seconds"], "tokens_run": result["tokens_run"]}, [i["values"] for i in result["items"]]


def measure(options, name, tokens, ours, theirs):
    """ours(), theirs[batch]() give times and sums; prints and returns the record."""
    record = {"tokens": tokens, "rounds": []}
    for number in range(options.rounds):
        sides = {"tern": ours, **theirs}
        times, sums = {}, {}
        for side in list(sides) if number % 2 == 0 else reversed(list(sides)):
            times[side], sums[side] = sides[side]()
        record["rounds"].append(times)
        for side in theirs:
            worst = max(abs(a - b) for a, b in zip(sums["tern"], sums[side]))
            record["max_difference"] = max(worst, record.get("max_difference", 0.0))
    for side in theirs:
        for key in ("seconds", "processor_seconds"):
            ratio = statistics.median(r[side][key] / r["tern"][key] for r in record["rounds"])
            record[f"ratio_{side}_{key}"] = round(ratio, 3)
        rates = [tokens / statistics.median(r[s]["seconds"] for r in record["rounds"]) for s in ("tern", side)]
        print(f"{name}, {tokens} tokens: tern {rates[0]:.0f} tokens/s, {side} {rates[1]:.0f}; ratio {record[f'ratio_{side}_seconds']:.2f}, of "
              f"processor time {record[f'ratio_{side}_processor_seconds']:.2f}; sums differ by at most {record['max_difference']:.2g}", flush=True)
    return record


def timed(call):
    clock = Clock(resource.RUSAGE_SELF)
    result = call()
    return clock.read(), result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--runtime", help="of tern eval (engine, libtorch)")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # Threads that wait take nothing from the others of the machine
    import torch
    import transformers

    peer = Peer(options.folder, options.threads)
    text = pathlib.Path(options.text).read_text(encoding="utf-8")
    report = {"model": os.path.basename(options.model), "runtime": options.runtime or "as it is", "threads": options.threads,
              "transformers": transformers.__version__, "torch": torch.__version__, "processors": os.cpu_count(),
              "load": os.getloadavg(), "shapes": {}}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for shape in SHAPES:
            path = pathlib.Path(folder) / f"{shape}.jsonl"
            pairs = write_questions(path, text.split(), options.questions, shape)
            rows = [(peer.encode(f"{c} {t}"), len(peer.encode(c))) for c, t in pairs]

            def ours(shape=shape, path=path):
                times, items = run_tern(options, shape, path)
                return times, [value for item in items for value in item[:4]]

            theirs = {f"transformers, batch {b}": lambda b=b, rows=rows: timed(lambda: peer.score(rows, b)) for b in (1, 8)}
            report["shapes"][shape] = measure(options, shape, sum(len(r[0]) - 1 for r in rows), ours, theirs)
        ids = peer.encode(text)
        windows = [(ids[w * WINDOW : (w + 1) * WINDOW], 1) for w in range(options.windows)]

        def ours_windows():
            times, items = run_tern(options, "perplexity", options.text, "--context", WINDOW, "--limit", options.windows)
            return times, [-item[0] for item in items]

        theirs = {"transformers, batch 1": lambda: timed(lambda: peer.score(windows, 1))}
        report["shapes"]["perplexity"] = measure(options, "perplexity", options.windows * (WINDOW - 1), ours_windows, theirs)
    report["load_after"] = os.getloadavg()
    with open(options.output, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
