#!/usr/bin/env python3
"""Logits of programs on a GGUF of any block type against a float64 evaluation of the file's own values.

    check_block_gguf.py MODEL.gguf --ids ids.txt LOGITS.f32 [LOGITS.f32 ...]

For the llama architecture without extras (no biases, no scaled RoPE). Weights are decoded by gguf-py, everything is computed
in float64, so what a file of logits differs by is its program's rounding: of activations before all. Prints a line a file:
mean and largest KL divergence, share of equal first choices, largest difference of a logit.
"""
import argparse

import gguf
import numpy as np
from gguf.quants import dequantize


class Model:
    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}

    def key(self, name, default=None):
        field = self.reader.get_field("llama." + name)
        if field is None and default is None:
            raise SystemExit(f"the key llama.{name} is missing: only the llama architecture is evaluated here")
        return default if field is None else field.contents()

    def weights(self, name):
        tensor = self.tensors[name]
        shape = [int(size) for size in tensor.shape[::-1]]
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float64).reshape(shape)


def rms_norm(x, gain, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def attention(q, k, v):
    """Causal, grouped queries. q: [M, H, E], k and v: [M, J, E]; returns [M, H * E]."""
    rows, heads, width = q.shape
    group = heads // k.shape[1]
    future = np.triu_indices(rows, 1)
    out = np.zeros_like(q)
    for head in range(heads):
        scores = q[:, head] @ k[:, head // group].T / np.sqrt(width)
        scores[future] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, head // group]
    return out.reshape(rows, -1)


def evaluate(model, ids):
    """Logits [M, V] in float64."""
    heads, kv_heads = model.key("attention.head_count"), model.key("attention.head_count_kv")
    eps = model.key("attention.layer_norm_rms_epsilon")
    embedding = model.weights("token_embd.weight")
    x = embedding[ids]
    rows, width = len(ids), x.shape[1] // heads
    angles = np.arange(rows)[:, None] * model.key("rope.freq_base", 10000.0) ** (-2 * np.arange(width // 2) / width)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rotate(y):  # Pairs are neighbours in the file's order of rows
        y = y.reshape(rows, -1, width // 2, 2)
        a, b = y[..., 0], y[..., 1]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(rows, -1, width)

    for layer in range(model.key("block_count")):
        def linear(name, y, layer=layer):
            return y @ model.weights(f"blk.{layer}.{name}.weight").T

        h = rms_norm(x, model.weights(f"blk.{layer}.attn_norm.weight"), eps)
        values = linear("attn_v", h).reshape(rows, kv_heads, width)
        x = x + linear("attn_output", attention(rotate(linear("attn_q", h)), rotate(linear("attn_k", h)), values))
        h = rms_norm(x, model.weights(f"blk.{layer}.ffn_norm.weight"), eps)
        gate = linear("ffn_gate", h)
        x = x + linear("ffn_down", gate / (1 + np.exp(-gate)) * linear("ffn_up", h))
    head = model.weights("output.weight") if "output.weight" in model.tensors else embedding
    return rms_norm(x, model.weights("output_norm.weight"), eps) @ head.T


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--ids", required=True, help="token ids, decimal")
    parser.add_argument("logits", nargs="+", help="float32 [T, V]")
    args = parser.parse_args()
    with open(args.ids) as file:
        ids = [int(word) for word in file.read().split()]
    want = evaluate(Model(args.model), ids)
    for path in args.logits:
        got = np.fromfile(path, np.float32).reshape(want.shape).astype(np.float64)
        p, q = log_softmax(want), log_softmax(got)
        kl = (np.exp(p) * (p - q)).sum(-1)
        equal = (p.argmax(-1) == q.argmax(-1)).mean()
        print(f"{path}: mean KL {kl.mean():.2g}, largest {kl.max():.2g}, first choice equal {100 * equal:.1f} %, "
              f"largest difference {np.abs(want - got).max():.2g}")


if __name__ == "__main__":
    main()
