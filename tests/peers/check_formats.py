"""Holds tern's file formats against the programs that define them, in both directions, byte by byte.

  check_formats.py [--build BUILD] [--skip-transformers]

BUILD (default: build) is a finished build folder of tern; format_files.cc is compiled against its
libraries. Checked: gguf-py reads tern's GGUF (keys, shapes, types, every decoded value, block bytes
equal to its own quantizers); tern reads gguf-py's; safetensors' reader and writer likewise;
transformers unpacks tern's packed ternary weights. Exit 0 good, 4 a difference, else could not run.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import safetensors.numpy
from gguf import GGMLQuantizationType as Type

EXIT_MISMATCH = 4
SEED = 20261124
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LIBRARIES = ("crypto", "spdlog", "fmt", "pthread")
problems = []


def check(name, good, detail=""):
    print(f"{'ok  ' if good else 'FAIL'} {name} {'' if good else detail}".rstrip())
    if not good:
        problems.append(name)


def same_bits(a, b):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def build_helper(build, folder):
    program = folder / "format_files"
    archives = [build / "src" / name / f"libtern_{name}.a" for name in ("formats", "base")]
    missing = [str(path) for path in archives if not path.exists()]
    if missing:
        sys.exit(f"{', '.join(missing)} not found; build tern first or give --build")
    source = REPOSITORY / "tests/peers/format_files.cc"
    command = ["c++", "-std=c++20", "-O1", f"-I{REPOSITORY / 'src'}", source, *archives,
               *(f"-l{name}" for name in LIBRARIES), "-o", program]
    subprocess.run(command, check=True)
    return program


def check_our_gguf(folder):
    reader = gguf.GGUFReader(folder / "ours.gguf")
    keys = {name: field.contents() for name, field in reader.fields.items()}
    wanted = {
        "general.architecture": "bitnet", "text": "\u2581the \U0001f600", "u32": 4_000_000_000,
        "f32": float(np.float32(1e-5)), "bool": True, "texts": ["<unk>", "", "\u00e9"],
        "f32s": [0.0, -1.5, float(np.float32(1e30))], "i32s": [-2_000_000_000, 0, 6],
    }  # fmt: skip
    for key, value in wanted.items():
        check(f"gguf-py reads our key {key}", keys.get(key) == value, f"{keys.get(key)!r}")
    decoded, source = [], None
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        decoded.append(values.reshape(-1))
        check(f"{tensor.name} begins at a multiple of 32", tensor.data_offset % 32 == 0)
        if tensor.name == "float.F32":
            source = values.reshape(3, 512)
        shape = [512, 3, 2] if tensor.name.startswith("codes.") else [512, 3]
        check(f"axes of {tensor.name}", list(tensor.shape) == ([1] if tensor.name == "one" else shape))
        if tensor.name.startswith("codes."):
            check(f"{tensor.name} holds codes", set(np.unique(values)) == {-1.0, 0.0, 1.0})
        if tensor.name.startswith("float."):
            theirs = gguf.quants.quantize(source, tensor.tensor_type)
            check(f"bytes of {tensor.name} are gguf-py's", tensor.data.tobytes() == theirs.tobytes())
    ours = np.fromfile(folder / "values.bin", dtype=np.float32)
    check("every value of our GGUF decodes alike", same_bits(np.concatenate(decoded), ours))
    check("our GGUF has nine tensors", len(reader.tensors) == 9, str(len(reader.tensors)))


def write_their_gguf(folder, rng):
    """Returns keys, tensors and values as tern should find them."""
    writer = gguf.GGUFWriter(folder / "theirs.gguf", "llama", use_temp_file=False)
    numbers = {"uint8": 200, "int8": -100, "uint16": 65535, "int16": -30000, "uint32": 2**32 - 1,
               "int32": -(2**31), "uint64": 2**62, "int64": -(2**62)}  # fmt: skip
    for name, value in numbers.items():
        getattr(writer, f"add_{name}")(name, value)
    writer.add_float32("float32", 0.1)
    writer.add_float64("float64", 1 / 3)
    writer.add_bool("bool", False)
    writer.add_array("texts", ["", "\u2581the", "\U0001f600"])
    writer.add_array("floats", [0.5, -2.0])
    writer.add_array("integers", [3, -4, 5])
    keys = {"general.architecture": "llama", **numbers, "float32": float(np.float32(0.1)),
            "float64": 1 / 3, "bool": False,
            "texts": {"items": 3, "first": ["", "\u2581the", "\U0001f600"]},
            "floats": {"items": 2, "first": [0.5, -2.0]},
            "integers": {"items": 3, "first": [3, -4, 5]}}  # fmt: skip
    x = rng.standard_normal((5, 768)).astype(np.float32)
    tensors, values = [], []
    for kind in (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.TQ1_0, Type.TQ2_0):
        packed = gguf.quants.quantize(x, kind)
        if kind in (Type.F32, Type.F16):
            writer.add_tensor(f"t.{kind.name}", packed)
        else:
            writer.add_tensor(f"t.{kind.name}", packed, raw_dtype=kind)
        tensors.append([f"t.{kind.name}", kind.name, [5, 768]])
        values.append(gguf.quants.dequantize(packed, kind).astype(np.float32).reshape(-1))
    cube = rng.standard_normal((2, 3, 4)).astype(np.float32)
    writer.add_tensor("cube", cube)
    tensors.append(["cube", "F32", [2, 3, 4]])
    values.append(cube.reshape(-1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return keys, tensors, np.concatenate(values)


def check_their_gguf(folder, expected):
    keys, tensors, values = expected
    found = json.loads((folder / "gguf.json").read_text())
    for key, value in keys.items():
        check(f"we read their key {key}", found["metadata"].get(key) == value,
              repr(found["metadata"].get(key)))  # fmt: skip
    check("we read their tensors' names, types, shapes", found["tensors"] == tensors)
    ours = np.fromfile(folder / "gguf.bin", dtype=np.float32)
    check("every value of their GGUF decodes alike", same_bits(ours, values))


def check_our_safetensors(folder):
    tensors = safetensors.numpy.load_file(folder / "ours.safetensors")
    with safetensors.safe_open(folder / "ours.safetensors", "numpy") as file:
        check("metadata of our safetensors", file.metadata() == {"format": "pt"})
    shapes = {name: (str(array.dtype), array.shape) for name, array in tensors.items()}
    wanted = {"bytes": ("uint8", (5,)), "half": ("float16", (3, 1)), "float": ("float32", (3, 5)),
              "integers": ("int64", (2,)), "number": ("float32", ()), "empty": ("float32", (0, 4))}  # fmt: skip
    check("safetensors reads our names, dtypes, shapes", shapes == wanted, str(shapes))
    check("our halves", tensors["half"].reshape(-1).tolist() == [0.0, 1.5, -65504.0])
    check("our integers", tensors["integers"].tolist() == [-1, 2**40])
    check("our bytes", tensors["bytes"].tobytes() == tensors["float"].tobytes()[:5])
    check("our number", tensors["number"] == tensors["float"][0, 0])


def write_their_safetensors(folder, rng):
    tensors = {"w": rng.standard_normal((3, 7)).astype(np.float32), "b": np.array([True, False]),
               "half": np.array([1.5, -0.0], np.float16), "zero": np.array(2.5),
               "none": np.zeros((4, 0), np.int8), "long": np.array([[-(2**62)]], np.int64),
               "byte": np.arange(3, dtype=np.uint8)}  # fmt: skip
    safetensors.numpy.save_file(tensors, folder / "theirs.safetensors", metadata={"a": "\u00e9", "b": ""})
    return tensors


def check_their_safetensors(folder, tensors):
    found = json.loads((folder / "safetensors.json").read_text())
    words = {"float32": "F32", "bool": "BOOL", "float16": "F16", "float64": "F64", "int8": "I8",
             "int64": "I64", "uint8": "U8"}  # fmt: skip
    wanted = [[name, words[str(a.dtype)], list(a.shape)] for name, a in sorted(tensors.items())]
    check("we read their safetensors' names, dtypes, shapes", found["tensors"] == wanted)
    check("we read their metadata", found["metadata"] == {"a": "\u00e9", "b": ""})
    raw = b"".join(array.tobytes() for _, array in sorted(tensors.items()))
    check("we read their bytes", (folder / "safetensors.bin").read_bytes() == raw)


def check_packing(folder):
    import torch
    from transformers.integrations.bitnet import pack_weights, unpack_weights

    tensors = safetensors.numpy.load_file(folder / "packed.safetensors")
    codes, packed = torch.from_numpy(tensors["codes"]), torch.from_numpy(tensors["packed"])
    found = unpack_weights(packed, dtype=torch.float32)
    check("transformers unpacks our codes", torch.equal(found, codes.float()))
    check("transformers packs the same bytes", torch.equal(pack_weights(codes.float()), packed))


def main():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--build", type=pathlib.Path, default=REPOSITORY / "build")
    parser.add_argument("--skip-transformers", action="store_true")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tern-formats-"))
    try:
        program = build_helper(args.build, folder)
        rng = np.random.default_rng(SEED)
        their_gguf = write_their_gguf(folder, rng)
        their_safetensors = write_their_safetensors(folder, rng)
        for verb in ("write", "read"):
            subprocess.run([program, verb, folder], check=True)
        check_our_gguf(folder)
        check_their_gguf(folder, their_gguf)
        check_our_safetensors(folder)
        check_their_safetensors(folder, their_safetensors)
        if not args.skip_transformers:
            check_packing(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(problems)} differences")
    sys.exit(EXIT_MISMATCH if problems else 0)


if __name__ == "__main__":
    main()
