"""Makes tiny Llama folders in the formats of compressed-tensors, packed by that package, and the
logits of the weights it unpacks from them.

  make_ct_models.py -o DIR [--scales float32|bfloat16] [--num-tokens 40]

DIR/<name>/ gets config.json and model.safetensors, DIR/<name>.f32 the logits (float32 [T, V]
without a header) of the ids in DIR/ids.txt: weights as the package unpacks them, activations not
quantized, computed by transformers in float32. With scales in bfloat16 the package also rounds the
product of code and scale to bfloat16, which tern does not; so the close comparison is the one with
float32. Same seed, same files.
"""

import argparse
import json
import os
import pathlib

BLOCK = 128


def schemes():
    """{name: (format, QuantizationArgs of the weights, ...of the activations or None)}"""
    from compressed_tensors.quantization import QuantizationArgs as Args

    def int4(**more):
        return Args(num_bits=4, type="int", **more)

    fp8 = {"num_bits": 8, "type": "float"}
    token = {"strategy": "token", "dynamic": True}
    int8 = {"num_bits": 8, "type": "int"}
    return {
        "int4-g128": ("pack-quantized", int4(strategy="group", group_size=128), None),
        "int4-g32": ("pack-quantized", int4(strategy="group", group_size=32), None),
        "int4-channel": ("pack-quantized", int4(strategy="channel"), None),
        "int4-g128-asym": (
            "pack-quantized", int4(strategy="group", group_size=128, symmetric=False), None,
        ),
        "int4-g32-asym": (
            "pack-quantized", int4(strategy="group", group_size=32, symmetric=False), None,
        ),
        "int4-channel-asym": ("pack-quantized", int4(strategy="channel", symmetric=False), None),
        "int8": ("int-quantized", Args(**int8, strategy="channel"), Args(**int8, **token)),
        "fp8-tensor": ("float-quantized", Args(**fp8, strategy="tensor"), None),
        "fp8-channel": ("float-quantized", Args(**fp8, strategy="channel"), Args(**fp8, **token)),
        "fp8-block": (
            "float-quantized", Args(**fp8, strategy="block", block_structure=[BLOCK, BLOCK]), None,
        ),
    }  # fmt: skip


def extremes(w, args):
    """(lowest, highest) of the weights that share a scale, in the shape of the scales."""
    import torch

    n, k = w.shape
    if args.strategy == "tensor":
        parts = w.reshape(1, -1)
        return parts.amin(-1), parts.amax(-1)
    if args.strategy == "group":
        parts = w.reshape(n, k // args.group_size, args.group_size)
        return parts.amin(-1), parts.amax(-1)
    if args.strategy == "block":
        padded = torch.nn.functional.pad(w, (0, -k % BLOCK, 0, -n % BLOCK))
        parts = padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
        return parts.amin((1, 3)), parts.amax((1, 3))
    return w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)


def quantize_model(model, form, args, activations, scale_dtype):
    """(tensors of the folder, float model's weights, quantization_config)"""
    import torch
    from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    compressor = (
        PackedQuantizationCompressor if form == "pack-quantized" else NaiveQuantizationCompressor
    )
    scheme = QuantizationScheme(
        targets=["Linear"], weights=args, input_activations=activations, format=form
    )
    folder, floats = {}, {}
    for name, value in model.state_dict().items():
        value = value.detach().clone().float()
        if not name.endswith("_proj.weight"):
            folder[name] = floats[name] = value
            continue
        scale, zero_point = calculate_qparams(*extremes(value, args), args)
        state = {"weight": value.to(scale_dtype), "weight_scale": scale.to(scale_dtype)}
        if not args.symmetric:
            state["weight_zero_point"] = zero_point
        packed = compressor.compress(state, scheme)
        base = name.removesuffix("weight")
        folder |= {base + part: tensor.contiguous() for part, tensor in packed.items()}
        floats[name] = compressor.decompress(packed, scheme)["weight"].to(torch.float32)
    config = QuantizationConfig(
        config_groups={"group_0": scheme},
        format=form,
        ignore=["lm_head"],
        quantization_status="compressed",
    )
    return folder, floats, config.to_dict()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", required=True, type=pathlib.Path)
    parser.add_argument("--scales", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--num-tokens", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(options.seed)
    ids = torch.randint(3, 300, (options.num_tokens,)).tolist()
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "ids.txt").write_text(" ".join(map(str, ids)) + "\n")
    for name, (form, args, activations) in schemes().items():
        config = LlamaConfig(
            vocab_size=300,
            hidden_size=256,
            intermediate_size=320 if name == "fp8-block" else 384,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.1,
        )
        model = LlamaForCausalLM(config)
        tensors, floats, quantization = quantize_model(
            model, form, args, activations, getattr(torch, options.scales)
        )
        folder = options.output / name
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        described = config.to_dict() | {"quantization_config": quantization}
        (folder / "config.json").write_text(json.dumps(described, indent=2, default=str))
        model.load_state_dict(floats)
        with torch.no_grad():
            logits = model.float()(torch.tensor([ids])).logits[0]
        logits.numpy().tofile(options.output / f"{name}.f32")
        print(f"{folder}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
