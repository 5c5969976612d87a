"""Reads a ternary GGUF into tiny_reference's model, so that its float64 forward serves as the
oracle.

Handles the architectures bitnet, llama and qwen3 with TQ1_0 or TQ2_0 linears (scale in `.scale`, or
in the blocks when there is none), F32 or F16 tables. It refuses what it does not know: an unknown
tensor, a linear of another type, blocks of one tensor with unequal scales.
"""

import gguf
import numpy as np

from tiny_files import GGUF_LINEAR, GGUF_NORM
from tiny_reference import ACTIVATIONS, TinyConfig, forward, quantize_int8_token, quantize_q8_k

TERNARY = (gguf.GGMLQuantizationType.TQ1_0, gguf.GGMLQuantizationType.TQ2_0)


def read_config(reader, tensors):
    arch = reader.get_field("general.architecture").contents()
    if arch not in ("bitnet", "llama", "qwen3"):
        raise SystemExit(f"architecture {arch!r}: the reference knows bitnet, llama, qwen3")

    def key(name, default=None):
        field = reader.get_field(f"{arch}.{name}")
        if field is None and default is None:
            raise SystemExit(f"key {arch}.{name} is missing")
        return default if field is None else field.contents()

    heads = key("attention.head_count")
    return TinyConfig(
        family=arch,
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        width=key("embedding_length"),
        ffn_width=key("feed_forward_length"),
        num_layers=key("block_count"),
        num_heads=heads,
        num_kv_heads=key("attention.head_count_kv", heads),
        rope_theta=key("rope.freq_base", 10000.0),
        norm_eps=key("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in tensors,
        context=key("context_length"),
    )


def read_linear(tensors, stem):
    """{"codes" int8 [N, K], "beta" float32} of one ternary matrix."""
    tensor = tensors[f"{stem}.weight"]
    if tensor.tensor_type not in TERNARY:
        raise SystemExit(
            f"{stem}.weight is {tensor.tensor_type.name}; the reference reads TQ1_0, TQ2_0"
        )
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    sizes = np.unique(np.abs(values[values != 0]))
    if sizes.size > 1:
        raise SystemExit(
            f"{stem}.weight: {sizes.size} different block scales; one a tensor is wanted"
        )
    beta = np.float32(sizes[0]) if sizes.size else np.float32(1)
    scale = tensors.get(f"{stem}.scale")
    if scale is not None:
        beta = np.float32(beta * np.float32(scale.data.reshape(-1)[0]))
    return {"codes": np.sign(values).astype(np.int8), "beta": beta}


def unpermute_rotary(w_NK, num_heads):
    n, k = w_NK.shape
    return w_NK.reshape(num_heads, n // num_heads // 2, 2, k).swapaxes(1, 2).reshape(n, k)


def read_model(path):
    """(config, model) for tiny_reference.forward."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: t for t in reader.tensors}
    config = read_config(reader, tensors)
    seen = set()

    def dense(name):
        seen.add(name)
        tensor = tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    embed = dense("token_embd.weight")
    model = {"embed": embed, "norm": dense("output_norm.weight"), "layers": []}
    model["head"] = embed if config.tied else dense("output.weight")
    for i in range(config.num_layers):
        layer = {}
        for name, target in GGUF_LINEAR.items():
            stem = f"blk.{i}.{target}"
            layer[name] = read_linear(tensors, stem)
            seen.update({f"{stem}.weight", f"{stem}.scale"})
            if config.family == "llama" and name in ("q", "k"):
                heads = config.num_heads if name == "q" else config.num_kv_heads
                layer[name]["codes"] = unpermute_rotary(layer[name]["codes"], heads)
        for name, target in GGUF_NORM.items():
            if f"blk.{i}.{target}.weight" in tensors:
                layer[name] = dense(f"blk.{i}.{target}.weight")
        model["layers"].append(layer)
    unknown = sorted(set(tensors) - seen)
    if unknown:
        raise SystemExit(f"tensors the reference does not know: {unknown[:5]}")
    return config, model


def noisy_forward(config, model, ids, activation, seed, relative=2e-7):
    """The forward with relative noise at every quantizer's input: what rounding does to logits.

    2e-7 is 2 units in the last place of float32. The peers, real float32 programs, differ from the
    exact forward by no more than this noise does (FACTS.md).
    """
    rng = np.random.default_rng(seed)
    exact = {"int8_token": quantize_int8_token, "q8_k": quantize_q8_k}[activation]
    ACTIVATIONS["noisy"] = lambda x: exact(x * (1 + relative * rng.standard_normal(x.shape)))
    try:
        return forward(config, model, ids, "noisy")
    finally:
        del ACTIVATIONS["noisy"]
