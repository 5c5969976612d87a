#!/usr/bin/env python3
"""Compares tern's files with the reference programs, both ways: check_formats.py FORMATS_TEST [--keep FOLDER].

FORMATS_TEST is the binary of tests/formats (build/.../bin/formats_test). This script writes peer.gguf and
peer.safetensors with gguf-py and the safetensors package; the binary reads them, compares every byte with its own
encoding and writes tern.gguf, tern.safetensors and shards/; then those are read here. Values follow a formula that both
sides know. Needs numpy, gguf, safetensors, torch (requirements.txt); transformers, when there, unpacks the bitnet
weights with its own code. Exit codes: 0 all equal, 4 something differs, 1 or 2 could not compare."""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors import safe_open
from safetensors.torch import save_file

ROWS, COLUMNS, SCALE = 12, 512, np.float32(0.0421)
INDEX = np.arange(ROWS * COLUMNS, dtype=np.int64)
VALUES = (((INDEX * 37 + 11) % 101 - 50) / 8).astype(np.float32).reshape(ROWS, COLUMNS)
CODES = ((INDEX * INDEX + INDEX // 3) % 3 - 1).astype(np.int8).reshape(ROWS, COLUMNS)
TYPES = (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.TQ1_0, Type.TQ2_0)
TOKENS = ["<unk>", "\u2581the", ""]


class Report:
    def __init__(self):
        self.failed = 0

    def check(self, what, holds):
        print(f"{'ok  ' if holds else 'FAIL'} {what}")
        self.failed += not holds


def is_ternary(kind):
    return kind in (Type.TQ1_0, Type.TQ2_0)


def source(kind):
    return CODES.astype(np.float32) if is_ternary(kind) else VALUES


def pack_bitnet(codes):
    """Row r, r+R, r+2R, r+3R of codes + 1 at bits 0, 2, 4, 6 (R = rows / 4)."""
    parts = (codes + 1).astype(np.uint8).reshape(4, codes.shape[0] // 4, codes.shape[1])
    return parts[0] | parts[1] << 2 | parts[2] << 4 | parts[3] << 6


def unpack_i2s(data):
    """Blocks of 128: byte p holds p, p+32, p+64, p+96 from the highest bits down; then the scale."""
    blocks = data[: ROWS * COLUMNS // 4].reshape(-1, 1, 32)
    fields = blocks >> np.array([6, 4, 2, 0], dtype=np.uint8).reshape(1, 4, 1) & 3
    return fields.reshape(ROWS, COLUMNS).astype(np.int8) - 1, data[ROWS * COLUMNS // 4 :].view(np.float32)[0]


def write_peers(folder):
    writer = gguf.GGUFWriter(os.path.join(folder, "peer.gguf"), "llama")
    writer.add_array("tokenizer.ggml.tokens", TOKENS)
    writer.add_array("tokenizer.ggml.scores", [0.0, -1.5, 0.25])
    writer.add_array("tokenizer.ggml.token_type", [2, 1, -6])
    writer.add_uint32("llama.block_count", 3)
    for kind in TYPES:
        writer.add_tensor(kind.name, gguf.quants.quantize(source(kind), kind), raw_dtype=kind)
    writer.add_tensor("scale", np.array([SCALE], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = {
        "values": torch.from_numpy(VALUES.copy()),
        "halves": torch.from_numpy(VALUES.copy()).bfloat16(),
        "packed": torch.from_numpy(pack_bitnet(CODES)),
    }
    save_file(tensors, os.path.join(folder, "peer.safetensors"), metadata={"format": "pt"})


def check_gguf(report, folder):
    reader = gguf.GGUFReader(os.path.join(folder, "tern.gguf"))
    tokens = [bytes(reader.fields["tokenizer.ggml.tokens"].parts[i]).decode() for i in
              reader.fields["tokenizer.ggml.tokens"].data]
    report.check("gguf-py reads our metadata", tokens == TOKENS and
                 reader.fields["llama.block_count"].contents() == 3 and reader.fields["flag"].contents() is True and
                 reader.fields["tokenizer.ggml.token_type"].contents() == [2, 1, -6])
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for kind in TYPES:
        tensor = tensors[kind.name]
        want = gguf.quants.quantize(source(kind), kind)
        same = np.array_equal(np.ascontiguousarray(tensor.data).view(np.uint8).ravel(), want.view(np.uint8).ravel())
        report.check(f"{kind.name}: our bytes are gguf-py's", same and list(tensor.shape) == [COLUMNS, ROWS])
        decoded = gguf.quants.dequantize(tensor.data, kind)
        if is_ternary(kind):
            report.check(f"{kind.name}: gguf-py decodes our codes", np.array_equal(decoded, source(kind)))
    report.check("scale", tensors["scale"].data[0] == SCALE)


def check_tensors(report, what, get):
    report.check(f"{what}: F32", np.array_equal(get("values").numpy(), VALUES))
    report.check(f"{what}: BF16 equals torch's rounding",
                 torch.equal(get("halves"), torch.from_numpy(VALUES.copy()).bfloat16()))
    packed = get("packed")
    report.check(f"{what}: bitnet packing", np.array_equal(packed.numpy(), pack_bitnet(CODES)))
    try:
        from transformers.integrations.bitnet import unpack_weights
    except ImportError:
        print(f"skip {what}: transformers is not there to unpack the bitnet weights")
    else:
        codes = unpack_weights(packed, dtype=torch.float32).numpy()
        report.check(f"{what}: transformers unpacks our codes", np.array_equal(codes, CODES.astype(np.float32)))
    codes, scale = unpack_i2s(get("i2_s").numpy())
    report.check(f"{what}: I2_S by its layout", np.array_equal(codes, CODES) and scale == SCALE)


def check_safetensors(report, folder):
    with safe_open(os.path.join(folder, "tern.safetensors"), "pt") as file:
        report.check("safetensors reads our metadata", file.metadata() == {"format": "pt"})
        check_tensors(report, "one file", file.get_tensor)
    with open(os.path.join(folder, "shards", "model.safetensors.index.json"), encoding="utf-8") as file:
        weight_map = json.load(file)["weight_map"]

    def from_shard(name):
        with safe_open(os.path.join(folder, "shards", weight_map[name]), "pt") as shard:
            return shard.get_tensor(name)

    check_tensors(report, f"{len(set(weight_map.values()))} shards", from_shard)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats_test", help="the binary of tests/formats")
    parser.add_argument("--keep", metavar="FOLDER", help="write the files here instead of a temporary folder")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.abspath(args.keep or temporary)
        os.makedirs(folder, exist_ok=True)
        write_peers(folder)
        result = subprocess.run([args.formats_test, "--gtest_brief=1", "--gtest_filter=PeerSamples*"],
                                env={**os.environ, "TERN_FORMAT_SAMPLES": folder}, check=False)
        report.check("tern reads the peers' files and finds its own bytes", result.returncode == 0)
        check_gguf(report, folder)
        check_safetensors(report, folder)
    print("all equal" if report.failed == 0 else f"{report.failed} differ")
    sys.exit(0 if report.failed == 0 else 4)


if __name__ == "__main__":
    main()
