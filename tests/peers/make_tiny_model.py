"""Makes a tiny random ternary model in every form the peers read, with the logits they must give.

  make_tiny_model.py -o DIR [--family bitnet|llama|qwen3] [--heads 4 --kv-heads 2] [--untied]

DIR gets <scale>-<embed>.gguf, hf-<kind>/, tokenizer.model, text.txt, text.ids.txt, ids.txt and
logits.<activation rule>.f32 (float32 [T, V] without a header), computed by tiny_reference.py in
float64. Same seed, same files.
"""

import argparse
import pathlib

import numpy as np
import sentencepiece

import tiny_files
import tiny_tokenizer
from tiny_reference import ACTIVATIONS, TinyConfig, forward, make_model


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", required=True, type=pathlib.Path)
    parser.add_argument("--family", choices=tiny_files.HF_CLASS, default="bitnet")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--untied", action="store_true", help="own output matrix (llama, qwen3)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--num-tokens", type=int, default=48)
    return parser.parse_args()


def write_text_ids(folder, tokenizer_bytes):
    """text.txt with awkward characters and text.ids.txt, SentencePiece's ids of it after BOS."""
    text = "  The king,  and\tthe queen:\n\n caf\u00e9 \u2603 \U0001f642 0x41 <0x41> of this land "
    spm = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_bytes)
    ids = [spm.bos_id(), *spm.encode(text)]
    (folder / "text.txt").write_text(text, encoding="utf-8", newline="")
    (folder / "text.ids.txt").write_text(" ".join(map(str, ids)) + "\n")


def main():
    args = parse_args()
    config = TinyConfig(
        family=args.family, num_heads=args.heads, num_kv_heads=args.kv_heads, tied=not args.untied
    )
    model = make_model(config, args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer.train_tokenizer(config.vocab_size)
    (args.output / "tokenizer.model").write_bytes(tokenizer)
    write_text_ids(args.output, tokenizer)

    for scale in ("separate", "in_block", "both"):
        for embed_type in ("f32", "f16"):
            path = args.output / f"{scale}-{embed_type}.gguf"
            tiny_files.write_gguf(path, config, model, tokenizer, scale, embed_type)
    tiny_files.write_gguf(args.output / "separate-f32-novocab.gguf", config, model, None)
    for kind in ("bitnet", "autobitnet", "online", "dense"):
        tiny_files.write_hf(args.output / f"hf-{kind}", config, model, tokenizer, kind)

    ids = np.random.default_rng(args.seed + 1).integers(3, config.vocab_size, args.num_tokens)
    (args.output / "ids.txt").write_text(" ".join(map(str, ids)) + "\n")
    for activation in ACTIVATIONS:
        logits = forward(config, model, ids, activation).astype(np.float32)
        logits.tofile(args.output / f"logits.{activation}.f32")
    print(f"{args.output}: {config}, {args.num_tokens} tokens")


if __name__ == "__main__":
    main()
