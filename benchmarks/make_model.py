#!/usr/bin/env python3
"""Writes a GGUF of random weights for measuring speed: llama architecture, no vocabulary, any block type.

The bits of the weights are random; only the blocks' fp16 scales are set, so that every type can be made without a
quantizer. The outputs mean nothing. Needs numpy and the gguf package (tests/peers/setup).

    benchmarks/make_model.py --type tq2_0 -o speed-tq2_0.gguf
"""
import argparse

import gguf
import numpy as np

# Byte offsets of the fp16 scales of a block.
SCALES = {"F16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "Q3_K": [108], "Q2_K": [80, 82], "TQ2_0": [64], "TQ1_0": [52]}


def random_rows(rng, kind, rows, columns):
    """The bytes of `rows` rows of weights of some 0.02 in size."""
    if kind == "F16":
        return (rng.standard_normal((rows, columns), dtype=np.float32) * 0.02).astype(np.float16)
    weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (rows * columns // weights, size), dtype=np.uint8)
    if kind == "TQ2_0":  # Codes 0 to 2 only
        codes = blocks[:, :64]
        blocks[:, :64] = codes & ~((codes & 0xAA) >> 1)
    if kind == "TQ1_0":
        blocks[:, :52] = blocks[:, :52] % 243
    scale = np.frombuffer(np.float16(0.02 if kind.startswith("TQ") else 0.002).tobytes(), np.uint8)
    for offset in SCALES[kind]:
        blocks[:, offset:offset + 2] = scale
    return blocks.reshape(rows, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--type", default="tq2_0", help="of the layers' matrices")
    parser.add_argument("--head-type", default="f16", help="of the tied embedding and head")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=2560)
    parser.add_argument("--ffn", type=int, default=6912)
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--kv-heads", type=int, default=5)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--context", type=int, default=4096)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(args.output, "llama")
    writer.add_context_length(args.context)
    writer.add_embedding_length(args.hidden)
    writer.add_block_count(args.layers)
    writer.add_feed_forward_length(args.ffn)
    writer.add_head_count(args.heads)
    writer.add_head_count_kv(args.kv_heads)
    writer.add_rope_dimension_count(args.hidden // args.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(args.vocab)
    writer.add_tokenizer_model("none")
    if args.type.lower().startswith("tq"):
        writer.add_string("tern.activation", "int8_token")

    def add(name, kind, rows, columns):
        kind = kind.upper()
        writer.add_tensor(name, random_rows(rng, kind, rows, columns),
                          raw_dtype=gguf.GGMLQuantizationType[kind])

    add("token_embd.weight", args.head_type, args.vocab, args.hidden)
    writer.add_tensor("output_norm.weight", np.ones(args.hidden, np.float32))
    kv = args.hidden // args.heads * args.kv_heads
    for layer in range(args.layers):
        prefix = f"blk.{layer}."
        for name, rows, columns in [("attn_q", args.hidden, args.hidden), ("attn_k", kv, args.hidden),
                                    ("attn_v", kv, args.hidden), ("attn_output", args.hidden, args.hidden),
                                    ("ffn_gate", args.ffn, args.hidden), ("ffn_up", args.ffn, args.hidden),
                                    ("ffn_down", args.hidden, args.ffn)]:
            add(prefix + name + ".weight", args.type, rows, columns)
        for name in ["attn_norm", "ffn_norm"]:
            writer.add_tensor(prefix + name + ".weight", np.ones(args.hidden, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
