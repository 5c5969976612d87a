"""Reads tern's HDF5 files with plain h5py and prints every dataset: name, shape, dtype, SHA-256.

  check_h5py.py FILE... [--json] [--expect NAMES.txt]

FILE is a checkpoint's state.h5 (virtual datasets over rank files are followed), a *.tokens.h5, or a
checkpoint folder. Shows that the files need nothing of tern, and that reading every byte meets no
filter or checksum error. For token files it also checks that ids lie below the stored vocabulary
size, for a folder that the manifest's sizes and SHA-256 hold. --expect compares with the dataset
names in a file, one a line. Exit 0 good, 4 not.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import h5py
import numpy as np

EXIT_MISMATCH = 4
CHUNK_BYTES = 64 << 20
UNREADABLE = "unreadable"


def parse_args():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--expect", type=pathlib.Path)
    return parser.parse_args()


def hash_dataset(dataset):
    """SHA-256 of the values in row-major order, little-endian; read in pieces of CHUNK_BYTES."""
    digest = hashlib.sha256()
    if dataset.shape == () or dataset.size == 0:
        value = dataset[()]
        digest.update(value if isinstance(value, bytes) else np.asarray(value).tobytes())
        return digest.hexdigest()
    row_bytes = max(1, dataset.nbytes // dataset.shape[0])
    step = max(1, CHUNK_BYTES // row_bytes)
    for begin in range(0, dataset.shape[0], step):
        block = dataset[begin : begin + step]
        if block.dtype == object:
            digest.update(b"\0".join(bytes(x) for x in block.reshape(-1)))
        else:
            digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def hash_or_error(dataset):
    """The hash, or `unreadable: why` when a chunk fails its checksum or a filter."""
    try:
        return hash_dataset(dataset)
    except OSError as error:
        return f"{UNREADABLE}: {error}"


def plain(value):
    """An attribute as a JSON value."""
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def describe(path):
    """{"attributes", "datasets": {name: {shape, dtype, virtual, filters, sha256}}} of one file."""
    out = {"file": str(path), "attributes": {}, "datasets": {}}
    with h5py.File(path, "r") as file:

        def visit(name, item):
            for key, value in item.attrs.items():
                out["attributes"][f"{name}@{key}"] = plain(value)
            if isinstance(item, h5py.Dataset):
                out["datasets"][name] = {
                    "shape": list(item.shape),
                    "dtype": str(item.dtype),
                    "virtual": item.is_virtual,
                    "fletcher32": bool(item.fletcher32),
                    "compression": item.compression,
                    "sha256": hash_or_error(item),
                }

        visit("", file)
        file.visititems(visit)
    return out


def token_problems(path):
    """What is wrong with the ids of a tokens file: [] when nothing is."""
    problems = []
    with h5py.File(path, "r") as file:
        sizes = [file.attrs[k] for k in ("vocab_size", "vocabulary_size") if k in file.attrs]
        for split in (name for name in file if f"{name}/tokens" in file):
            tokens = file[f"{split}/tokens"]
            step = CHUNK_BYTES // tokens.dtype.itemsize
            pieces = (tokens[i : i + step] for i in range(0, len(tokens), step))
            largest = max((int(piece.max()) for piece in pieces), default=-1)
            if sizes and largest >= int(sizes[0]):
                problems.append(f"{split}/tokens: id {largest}, vocabulary of {int(sizes[0])}")
    return problems


def manifest_problems(folder):
    """What of a checkpoint folder disagrees with its manifest.json: files, sizes, SHA-256."""
    manifest = json.loads((folder / "manifest.json").read_text())
    problems = []
    for entry in manifest["files"]:
        path = folder / entry["name"]
        if not path.is_file():
            problems.append(f"{entry['name']} is missing")
            continue
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if (path.stat().st_size, digest) != (entry["size_bytes"], entry["sha256"]):
            problems.append(f"{entry['name']}: size or SHA-256 is not the manifest's")
    return problems


def main():
    args = parse_args()
    problems, described = [], []
    for path in args.files:
        if path.is_dir():
            problems += [f"{path}: {text}" for text in manifest_problems(path)]
            path = path / "state.h5"
        described.append(describe(path))
        bad = {k: d["sha256"] for k, d in described[-1]["datasets"].items()}
        bad = {k: text for k, text in bad.items() if text.startswith(UNREADABLE)}
        problems += [f"{path}: {name} {text}" for name, text in bad.items()]
        if not bad:
            problems += [f"{path}: {text}" for text in token_problems(path)]
    if args.expect:
        wanted = set(args.expect.read_text().split())
        found = {name for item in described for name in item["datasets"]}
        problems += [f"missing dataset {name}" for name in sorted(wanted - found)]
        problems += [f"unexpected dataset {name}" for name in sorted(found - wanted)]
    if args.json:
        print(json.dumps({"files": described, "problems": problems}, indent=2))
    else:
        for item in described:
            print(f"{item['file']}: {len(item['datasets'])} datasets")
            for name, value in item["attributes"].items():
                print(f"  {name} = {str(value)[:100]}")
            for name, d in item["datasets"].items():
                kind = " virtual" if d["virtual"] else ""
                print(f"  {name} {d['dtype']} {d['shape']}{kind} sha256 {d['sha256'][:16]}")
    for text in problems:
        print(f"FAIL  {text}", file=sys.stderr)
    sys.exit(EXIT_MISMATCH if problems else 0)


if __name__ == "__main__":
    main()
