#!/usr/bin/env python3
"""Writes ggml_blocks.json beside this file: block types as ggml's own quantizers (ggml_quantize_chunk) write
them, without and with an importance of the columns. Usage: generate_ggml.py LIBGGML_BASE.so [--check]. The library of the file that is there is the one of
the PyPI package llama-cpp-py-sync 0.11739 (llama.cpp b11739, x86-64 without FMA); on a C library older than 2.38 it needs
its version check lifted. Needs numpy; the tests need only the JSON."""

import ctypes
import json
import os
import sys

import numpy as np

SEED = 20261126
TYPES = {"Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q2_K": (10, 256, 84),
         "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210)}


def inputs():
    """Rows of 512: usual weights; heavy tails; blocks of zeros, of one value, of tiny numbers; one sign only."""
    rng = np.random.default_rng(SEED)
    normal = rng.standard_normal(512) * 0.02
    odd = rng.standard_normal(512)
    odd[::7] = 0
    odd[:32], odd[32:64], odd[64:96] = 0, -2.5, odd[64:96] * 1e-4
    odd[96:128] *= 1e-20
    odd[256:288] *= 1e-3  # Its scale is rounded to 0 beside the others'.
    return [normal, rng.laplace(size=512) * 0.05, odd, np.abs(rng.standard_normal(512)) + 0.1]


def main():
    library = ctypes.CDLL(sys.argv[1])
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [
        ctypes.c_void_p]
    rows = [np.ascontiguousarray(row, dtype=np.float32) for row in inputs()]
    importance = np.exp(np.random.default_rng(SEED + 1).standard_normal(512) * 1.5).astype(np.float32)
    blocks = []
    for name, (number, weights, size) in TYPES.items():
        for index, row in enumerate(rows):
            for weighted in (False, True):
                out = np.zeros(row.size // weights * size, np.uint8)
                library.ggml_quantize_chunk(number, row.ctypes.data, out.ctypes.data, 0, 1, row.size,
                                            importance.ctypes.data if weighted else None)
                blocks.append({"type": name, "input": index, "weighted": weighted, "bytes": out.tobytes().hex()})
    made = {"generator": "tests/formats/golden/generate_ggml.py", "library": "llama-cpp-py-sync 0.11739", "seed": SEED,
            "importance_f32": importance.tobytes().hex(), "inputs_f32": [row.tobytes().hex() for row in rows], "blocks": blocks}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ggml_blocks.json")
    if "--check" in sys.argv:
        with open(path, encoding="utf-8") as file:
            same = json.load(file) == made
        print("equal" if same else "differs")
        sys.exit(0 if same else 4)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(made, file, indent=1)
        file.write("\n")


main()
