"""Checks an exported Hugging Face folder with transformers: logits in float32 on CPU, and token
ids.

  check_transformers.py FOLDER --ids ids.txt --ours logits.f32 [--gguf MODEL.gguf]
                        [--text FILE --our-ids ids.txt] [--compiled] [--report out.json]

--ours is tern's float32 [T, V] without a header, for the same ids; --our-ids are tern's ids of the
text, BOS included. transformers uses BitNet's activation rule, so the two must agree up to
rounding: with --gguf (the GGUF of the same checkpoint) the bound is calibrated as in
check_llama_cpp.py, without it --max-mean-kl and --max-kl hold. Loading must also leave no missing,
unexpected or mismatched tensor. Exit 0 all hold, 4 one does not.
"""

import argparse
import os
import pathlib
import sys

import compare
from compare import Bound


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--ids", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--gguf", help="calibrate the bound with this file of the same checkpoint")
    parser.add_argument("--text")
    parser.add_argument("--our-ids")
    parser.add_argument(
        "--compiled", action="store_true", help="leave torch.compile on (slow start)"
    )
    parser.add_argument("--max-mean-kl", type=float, default=5e-3)
    parser.add_argument("--max-kl", type=float, default=5e-2)
    parser.add_argument("--report")
    return parser.parse_args()


def their_logits(folder, ids):
    """(class names, loading problems, logits [T, V] float64); imports torch only here."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().numpy()
    linear = type(model.model.layers[0].self_attn.q_proj).__name__
    problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
    return f"{type(model).__name__} with {linear}", problems, logits


def bound_of(args, ids):
    if not args.gguf:
        return Bound(mean_kl=args.max_mean_kl, max_kl=args.max_kl)
    import check_llama_cpp
    import gguf_reference
    from tiny_reference import forward

    config, model = gguf_reference.read_model(args.gguf)
    reference = forward(config, model, ids, "int8_token")
    return check_llama_cpp.rounding_bound(config, model, ids, "int8_token", reference)


def check_tokenizer(args):
    from transformers import AutoTokenizer

    text = pathlib.Path(args.text).read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    theirs = list(tokenizer(text).input_ids)
    label = f"token ids ({type(tokenizer).__name__})"
    return compare.judge_ids(label, compare.load_ids(args.our_ids), theirs)


def main():
    args = parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not args.compiled:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    if bool(args.text) != bool(args.our_ids):
        sys.exit("--text and --our-ids belong together")
    ids = compare.load_ids(args.ids)
    kind, problems, theirs = their_logits(args.folder, ids)
    ours = compare.load_logits(args.ours, len(ids))
    results = []
    for what, names in problems.items():
        print(f"FAIL  loading: {what}: {names[:4]}")
        results.append(False)
    bound, stats = bound_of(args, ids), compare.statistics(ours, theirs)
    results.append(compare.judge(f"tern against {kind}", stats, bound))
    if args.text:
        results.append(check_tokenizer(args))
    record = {"folder": args.folder, "class": kind, "loading": problems, "logits": stats}
    compare.finish(results, args.report, record)


if __name__ == "__main__":
    main()
