#!/usr/bin/env python3
"""Writes golden.json beside this file: bytes of block types, a GGUF and a safetensors file as the reference programs
write them. Needs numpy, gguf 0.19.0, safetensors 0.8.0 (pip install, see tests/peers/README.md); the tests need only
the JSON. Usage: generate.py [--check]  (--check: compare with the file that is there, exit 4 when it differs)."""

import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save

SEED = 20261124
HERE = os.path.dirname(os.path.abspath(__file__))


def hex_of(array):
    return np.ascontiguousarray(array).tobytes().hex()


def block_cases(rng):
    specials = np.array(
        [0.0, -0.0, 1.0, -1.0, 65504.0, 65519.0, 6e-8, 3e-8, 2.9802322e-08, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8,
         1 + 3 * 2**-8, 1e-40, 3.0e38, -3.4e38, 0.1, 1 / 3, 1e-5, 127.0, 0.5, 1.5, 2.5, -2.5], dtype=np.float32)
    normal = rng.standard_normal(512).astype(np.float32)
    codes = rng.integers(-1, 2, 512).astype(np.float32)
    ties = np.concatenate([[127], np.arange(31) - 15.5]).astype(np.float32)  # d = 1: halves are to be rounded
    ternary_ties = np.resize(np.array([1, 0.5, -0.5, 0.25, -1], dtype=np.float32), 256)
    tiny = (normal[:32] * np.float32(1e-9)).astype(np.float32)  # d is 0 as fp16, q is not
    with np.errstate(over="ignore"):
        inputs = [
            (Type.F16, specials), (Type.BF16, specials),
            (Type.Q8_0, normal[:64]), (Type.Q8_0, np.zeros(32, np.float32)), (Type.Q8_0, ties), (Type.Q8_0, tiny),
            (Type.TQ1_0, codes), (Type.TQ2_0, codes),
            (Type.TQ1_0, normal[:256]), (Type.TQ2_0, normal[:256]),
            (Type.TQ1_0, np.zeros(256, np.float32)), (Type.TQ2_0, np.zeros(256, np.float32)),
            (Type.TQ1_0, ternary_ties), (Type.TQ2_0, ternary_ties),
        ]
        for kind, x in inputs:
            packed = gguf.quants.quantize(x.reshape(1, -1), kind)
            decoded = gguf.quants.dequantize(packed, kind).astype(np.float32)
            yield {"type": kind.name, "k": int(x.size), "input_f32": hex_of(x), "bytes": hex_of(packed),
                   "decoded_f32": hex_of(decoded)}


def foreign_cases(rng):
    """Blocks that no quantizer of ours writes: only decoding is compared."""
    for kind in (Type.Q8_0, Type.TQ1_0, Type.TQ2_0):
        block_weights, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (1, block_bytes), dtype=np.uint8)
        scale = np.array([rng.uniform(0.01, 2)], dtype=np.float16).view(np.uint8)
        where = 0 if kind == Type.Q8_0 else block_bytes - 2
        raw[0, where : where + 2] = scale
        decoded = gguf.quants.dequantize(raw, kind).astype(np.float32)
        yield {"type": kind.name, "k": block_weights, "bytes": hex_of(raw), "decoded_f32": hex_of(decoded)}


# Where a block has its fp16 numbers: d and, where there is one, the offset or dmin.
SCALES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q2_K: [80, 82],
          Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}
# Of one block each: usual ones, the largest, subnormal ones of both signs, zeros.
SCALE_PAIRS = [(0.0123, 0.0456), (-65504, 65504), (2**-24, -3 * 2**-24), (0.0, -0.0)]


def read_only_cases(rng):
    """Random blocks of the types that are only read, one row a type. The blocks of 256 have all scales but the last
    pair, so that the file stays small."""
    for kind, offsets in SCALES.items():
        block_weights, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        pairs = SCALE_PAIRS if block_weights == 32 else SCALE_PAIRS[:3]
        raw = rng.integers(0, 256, (len(pairs), block_bytes), dtype=np.uint8)
        for block, pair in zip(raw, pairs):
            for offset, scale in zip(offsets, pair):
                block[offset : offset + 2] = np.array([scale], dtype=np.float16).view(np.uint8)
        decoded = gguf.quants.dequantize(raw.reshape(1, -1), kind).astype(np.float32)
        yield {"type": kind.name, "k": int(decoded.size), "bytes": hex_of(raw), "decoded_f32": hex_of(decoded)}


def gguf_file(rng):
    path = os.path.join(tempfile.mkdtemp(), "golden.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_int64("test.int64", -(2**40))
    writer.add_uint8("test.uint8", 200)
    writer.add_float64("test.float64", 1 / 3)
    writer.add_array("tokenizer.ggml.tokens", ["<unk>", "\u2581the", "\U0001f600", ""])
    writer.add_array("tokenizer.ggml.scores", [0.0, -1.5, -2.25, 3.0])
    writer.add_array("tokenizer.ggml.token_type", [2, 1, 1, 6])
    matrix = rng.standard_normal((3, 64)).astype(np.float32)
    codes = rng.integers(-1, 2, (2, 256)).astype(np.float32)
    writer.add_tensor("dense.weight", matrix)
    writer.add_tensor("half.weight", matrix.astype(np.float16))
    writer.add_tensor("q8.weight", gguf.quants.quantize(matrix, Type.Q8_0), raw_dtype=Type.Q8_0)
    writer.add_tensor("ternary.weight", gguf.quants.quantize(codes, Type.TQ2_0), raw_dtype=Type.TQ2_0)
    writer.add_tensor("ternary.scale", np.array([0.125], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open(path, "rb") as file:
        data = file.read()
    return {"bytes": data.hex(), "dense_f32": hex_of(matrix), "codes_f32": hex_of(codes)}


def safetensors_file(rng):
    matrix = rng.standard_normal((2, 3)).astype(np.float32)
    tensors = {"a.weight": matrix, "b.weight": np.arange(5, dtype=np.uint8), "c": np.array(2.5),
               "empty": np.zeros((0, 7), np.float16), "d": np.array([-1, 2**40], dtype=np.int64)}
    return {"bytes": save(tensors, metadata={"format": "pt"}).hex(), "a_f32": hex_of(matrix)}


def main():
    rng = np.random.default_rng(SEED)
    golden = {
        "generator": "tests/formats/golden/generate.py",
        "versions": {name: importlib.metadata.version(name) for name in ("gguf", "numpy", "safetensors")},
        "seed": SEED,
        "blocks": list(block_cases(rng)),
        "foreign_blocks": list(foreign_cases(rng)),
        "read_only_blocks": list(read_only_cases(np.random.default_rng(SEED + 1))),
        "gguf": gguf_file(rng),
        "safetensors": safetensors_file(rng),
    }
    body = json.dumps(golden, indent=1)
    golden["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    text = json.dumps(golden, indent=1) + "\n"
    path = os.path.join(HERE, "golden.json")
    if "--check" in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            same = file.read() == text
        print("golden.json is what this generator writes" if same else "golden.json differs")
        sys.exit(0 if same else 4)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"{path}: {len(text)} bytes")


if __name__ == "__main__":
    main()
