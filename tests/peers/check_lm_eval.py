"""lm-evaluation-harness against tern serve and against transformers: equal scores on one model.

  check_lm_eval.py --engine build/cpu/bin/tern-engine --hf FOLDER [--model MODEL] [--report out.json]
  check_lm_eval.py --engine build/cpu/bin/tern-engine --gguf FILE

--hf: a folder that transformers loads; tern serves MODEL of the same weights, or the folder itself.
--gguf: transformers dequantizes the file, tern serves it. The tasks are local files that this
script writes: multiple choice (acc, acc_norm) and log-likelihood of last words. The keys and values
of tern's cache are fp32 here and codes are decoded to it, as transformers do. Exit 0 all hold, 4 one does not.
Limits: both sum in fp32 in another order, so log-likelihoods of a few tokens differ by less than
--max-diff; a score must be equal, since no choice here is that close to another.
"""

import argparse
import json
import os
import pathlib
import tempfile

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import compare
from serve_process import Server

QUESTIONS = [
    ("The capital of France is", ["Paris", "Madrid", "London", "Rome"]),
    ("The capital of Italy is", ["Rome", "Berlin", "Paris", "Oslo"]),
    ("The opposite of hot is", ["cold", "green", "seven", "quickly"]),
    ("The sun rises in the", ["east", "kitchen", "spoon", "never"]),
    ("A week has seven", ["days", "legs", "colours of shoes", "tables"]),
    ("Two plus two equals", ["four", "nine", "a hundred", "zero"]),
    ("Water freezes and becomes", ["ice", "wood", "fire", "music"]),
    ("Bees make", ["honey", "bread made of stones", "cars", "paper money"]),
    ("The colour of fresh grass is", ["green", "purple", "silver", "black"]),
    ("A baby cat is called a", ["kitten", "calf", "table", "river"]),
    ("The largest ocean on Earth is the", ["Pacific Ocean", "Red Sea", "Lake Como", "Nile"]),
    ("People read books in a", ["library", "volcano", "bottle", "cloud"]),
    ("The opposite of up is", ["down", "blue", "often", "butter"]),
    ("In winter it often", ["snows", "reads", "sings loudly in Latin", "types"]),
    ("The Earth moves around the", ["Sun", "spoon", "horse", "letter"]),
    ("A triangle has three", ["sides", "wheels", "oceans", "fathers"]),
]  # fmt: skip

CHOICE_TASK = """task: tern_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc}}
  - {{metric: acc_norm}}
"""
WORD_TASK = """task: tern_last_word
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: " {{{{choices[answer]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
TASKS = ["tern_choice", "tern_last_word"]


def write_tasks(folder):
    data = folder / "questions.jsonl"
    with data.open("w") as out:
        for number, (question, choices) in enumerate(QUESTIONS):
            answer = number % len(choices)  # The right one is not always the first
            moved = choices[1:]
            moved.insert(answer, choices[0])
            out.write(json.dumps({"question": question, "choices": moved, "answer": answer}) + "\n")
    for name, task in zip(TASKS, (CHOICE_TASK, WORD_TASK)):
        (folder / f"{name}.yaml").write_text(task.format(path=data))


def evaluate(folder, model, model_args):
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=model, model_args=model_args, tasks=TASKS, task_manager=manager, log_samples=True,
        bootstrap_iters=0, batch_size=4 if model == "local-completions" else 1,
    )  # fmt: skip


def likelihoods(result, task):
    """[(log-likelihood, greedy)] in order of documents and choices."""
    samples = sorted(result["samples"][task], key=lambda sample: sample["doc_id"])
    return [(float(r[0][0]) if isinstance(r[0], (list, tuple)) else float(r[0]),
             str(r[0][1] if isinstance(r[0], (list, tuple)) else r[1]))
            for sample in samples for r in sample["resps"]]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engine", required=True)
    parser.add_argument("--hf", type=pathlib.Path)
    parser.add_argument("--gguf", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--max-diff", type=float, default=1e-3)
    parser.add_argument("--report")
    args = parser.parse_args()
    if (args.hf is None) == (args.gguf is None):
        parser.error("give --hf or --gguf")
    served = args.model or args.hf or args.gguf
    hf = {"pretrained": str(args.hf or args.gguf.parent), "dtype": "float32", "device": "cpu",
          "add_bos_token": True}
    if args.gguf:
        hf["gguf_file"] = args.gguf.name
    results, record = [], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_tasks(folder)
        theirs = evaluate(folder, "hf", hf)
        tokenizer = folder / "tokenizer"
        if args.gguf:
            import transformers

            transformers.AutoTokenizer.from_pretrained(
                hf["pretrained"], gguf_file=hf["gguf_file"]
            ).save_pretrained(tokenizer)
        else:
            tokenizer = args.hf
        with Server(args.engine, served, "--name", "checked", "--cache", "f32", "--activations", "f32") as server:
            ours = evaluate(folder, "local-completions", {
                "model": "checked", "base_url": server.url + "/v1/completions",
                "tokenizer": str(tokenizer), "num_concurrent": 4, "max_length": 256,
                "add_bos_token": True})  # fmt: skip
    for task in TASKS:
        a, b = likelihoods(ours, task), likelihoods(theirs, task)
        worst = max(abs(x[0] - y[0]) for x, y in zip(a, b))
        scores = {}
        for name, value in theirs["results"][task].items():
            metric = name.split(",")[0]
            if isinstance(value, float) and not metric.endswith("_stderr"):
                scores[metric] = (ours["results"][task][name], value)
        equal = all(x == y for name, (x, y) in scores.items() if name.startswith("acc"))
        greedy = all(x[1] == y[1] for x, y in zip(a, b))
        good = equal and greedy and len(a) == len(b) > 0 and worst < args.max_diff
        print(f"{'pass' if good else 'FAIL'}  {task}: {scores}; {len(a)} log-likelihoods differ by "
              f"at most {worst:.2e} (limit {args.max_diff}); greedy {'equal' if greedy else 'not'}")
        results.append(good)
        record[task] = {"ours_theirs": scores, "max_diff": worst, "count": len(a)}
    compare.finish(results, args.report, record)


if __name__ == "__main__":
    main()
