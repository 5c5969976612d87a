"""Holds the GGUF files of `tern quantize` against those of llama-quantize, tensor by tensor.

  check_llama_quantize.py SOURCE.gguf --tern build/cpu/bin/tern --llama DIR --mixes q4_k_m,q2_k [--threads 2]

DIR holds libllama.so.0 and the libggml it needs (unpack_llama.py; or tests/peers/build_llama). Both programs quantize SOURCE; every tensor must have the same type and the same
bytes. Prints the ratio of the two times (one run each, in turn). Exit 0 all hold, 4 one does not.
"""

import argparse
import ctypes
import pathlib
import subprocess
import sys
import tempfile
import time

import gguf

FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12,
              "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18}  # fmt: skip


# Kept for as long as the library may call it.
SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


class Parameters(ctypes.Structure):
    """llama_model_quantize_params of llama.h, build 11739."""

    _fields_ = (
        [(name, ctypes.c_int32) for name in ("threads", "file_type", "output", "embedding")]
        + [(name, ctypes.c_bool) for name in
           ("allow_requantize", "quantize_output", "only_copy", "pure", "keep_split", "dry_run")]
        + [(name, ctypes.c_void_p) for name in ("imatrix", "overrides", "types", "prune")]
        + [("max_buffer", ctypes.c_size_t)]
    )  # fmt: skip


def load(folder):
    for name in ("libc23.so", "libggml-base.so.0", "libggml-cpu.so.0", "libggml.so.0"):
        if name == "libc23.so" and not (folder / name).exists():
            continue
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libllama.so.0"))
    library.llama_model_quantize_default_params.restype = Parameters
    library.llama_log_set(SILENT, None)
    return library


def tensors(path):
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def differences(ours, theirs):
    """Names that one of the files lacks, or whose type or bytes differ."""
    names = sorted(set(ours) | set(theirs))
    return [
        f"{n}: {ours.get(n, ('absent',))[0]} against {theirs.get(n, ('absent',))[0]}"
        for n in names
        if ours.get(n) != theirs.get(n)
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("--tern", required=True)
    parser.add_argument("--llama", type=pathlib.Path, required=True)
    parser.add_argument("--mixes", default=",".join(FILE_TYPES))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    library = load(args.llama)
    failed = False
    for mix in args.mixes.split(","):
        with tempfile.TemporaryDirectory() as work:
            ours, theirs = f"{work}/ours.gguf", f"{work}/theirs.gguf"
            start = time.monotonic()
            subprocess.run(
                [args.tern, "quantize", args.source, "-o", ours, "--to", mix, "--allow-requantize",
                 "--threads", str(args.threads)], check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            middle = time.monotonic()
            parameters = library.llama_model_quantize_default_params()
            parameters.threads, parameters.file_type = args.threads, FILE_TYPES[mix]
            parameters.allow_requantize = True
            code = library.llama_model_quantize(
                args.source.encode(), theirs.encode(), ctypes.byref(parameters)
            )
            if code != 0:
                sys.exit(f"llama_model_quantize: {code}")
            end = time.monotonic()
            found, wanted = tensors(ours), tensors(theirs)
            wrong = differences(found, wanted)
            failed = failed or bool(wrong)
            print(
                f"{'FAIL' if wrong else 'pass'}  {mix}: {len(wanted)} tensors, {len(wrong)} differ, "
                f"time {(middle - start) / (end - middle):.2f} of llama-quantize's  {'; '.join(wrong[:3])}"
            )
    sys.exit(4 if failed else 0)


if __name__ == "__main__":
    main()
