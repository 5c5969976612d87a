"""Checks tern's data against other people's libraries: check_data.py TERN_ENGINE [--keep FOLDER]

TERN_ENGINE is build/cpu/bin/tern-engine (or tern). Needs pyarrow, zstandard, numpy, sentencepiece.
Written by them and read by tern:
- JSONL (json), JSONL.zst (zstandard; several frames, long window, no size in the header), JSON array,
  Parquet (pyarrow: snappy, gzip, zstd; several row groups; beside other columns): all must give the
  ids that sentencepiece itself gives, between BOS and EOS, in order;
- Megatron .bin/.idx of every integer type, with several sequences a document, and llm.c .bin of both
  versions, by the writers below, from the published layouts.
Written by tern and read by them: its shards, by the reader of the layout below; and killed three
times on the way they must be the same bytes. Exit 0 good, 4 not.
"""

import argparse
import hashlib
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
import zstandard

EXIT_MISMATCH = 4
MEGATRON_CODES = {"uint8": 1, "int16": 3, "int32": 4, "int64": 5, "uint16": 8}
WORDS = "the of and naïve 東京 data 🙂 token\n\n def(x): 1234 'quoted' \t tab e\u0301 سلام".split(" ")


def make_texts(count, seed=1):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(0, 120))) for _ in range(count)]


def write_megatron(prefix, sequences, borders, dtype):
    """The layout of Megatron-LM's indexed datasets, version 1; borders: first sequence of each document, and the end."""
    ids = np.concatenate([np.asarray(s, dtype=dtype) for s in sequences])
    ids.tofile(f"{prefix}.bin")
    lengths = np.array([len(s) for s in sequences], dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64)]) * np.dtype(dtype).itemsize
    with open(f"{prefix}.idx", "wb") as out:
        out.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, MEGATRON_CODES[dtype], len(lengths), len(borders)))
        out.write(lengths.tobytes() + starts.astype(np.int64).tobytes() + np.array(borders, dtype=np.int64).tobytes())
    return ids


def read_megatron(prefix):
    """(ids, first token of each document, and the end) of an indexed dataset."""
    raw = pathlib.Path(f"{prefix}.idx").read_bytes()
    assert raw[:9] == b"MMIDIDX\0\0"
    version, code, sequences, borders = struct.unpack_from("<QBQQ", raw, 9)
    assert version == 1
    lengths = np.frombuffer(raw, np.int32, sequences, 34)
    starts = np.frombuffer(raw, np.int64, sequences, 34 + 4 * sequences)
    documents = np.frombuffer(raw, np.int64, borders, 34 + 12 * sequences)
    assert len(raw) == 34 + 12 * sequences + 8 * borders
    dtype = np.dtype({v: k for k, v in MEGATRON_CODES.items()}[code])
    ids = np.fromfile(f"{prefix}.bin", dtype)
    assert lengths.sum() == len(ids) and documents[-1] == sequences
    ends = np.append(starts // dtype.itemsize, len(ids))
    return ids.astype(np.int32), ends[documents]


def write_llmc(path, ids, magic, version, dtype):
    header = np.zeros(256, dtype=np.int32)
    header[:3] = magic, version, len(ids)
    path.write_bytes(header.tobytes() + np.asarray(ids, dtype=dtype).tobytes())


def write_corpora(folder, texts):
    """{name: path} of the same texts in every format that is read."""
    rows = [{"id": i, "meta": {"k": [i, None]}, "text": t} for i, t in enumerate(texts)]
    lines = "".join(json.dumps(r, ensure_ascii=i % 2 == 0) + "\n" for i, r in enumerate(rows)).encode()
    paths = {name: folder / name for name in ("a.jsonl", "b.jsonl.zst", "c.jsonl.zst", "d.json")}
    paths["a.jsonl"].write_bytes(lines)
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, enable_ldm=True)
    half = len(lines) // 2
    frames = [zstandard.ZstdCompressor(compression_params=parameters).compressobj() for _ in range(2)]
    packed = [f.compress(part) + f.flush() for f, part in zip(frames, (lines[:half], lines[half:]))]
    paths["b.jsonl.zst"].write_bytes(b"".join(packed))
    paths["c.jsonl.zst"].write_bytes(zstandard.ZstdCompressor(level=19).compress(lines))
    paths["d.json"].write_text(json.dumps(rows, indent=1), encoding="utf-8")
    for codec in ("snappy", "gzip", "zstd"):
        paths[codec] = folder / f"e.{codec}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), paths[codec], compression=codec, row_group_size=97)
    return paths


class Checks:
    def __init__(self, program, folder):
        self.program, self.folder, self.failures = program, folder, 0

    def tern(self, *arguments, **keywords):
        return subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, **keywords)

    def expect(self, name, good, detail=""):
        self.failures += not good
        print(f"{'ok  ' if good else 'FAIL'} {name} {'' if good else detail}")

    def shards(self, path, out, *options):
        done = self.tern("tokenizer", "shards", self.folder / "m.model", path, "-o", out, *options)
        return done.returncode == 0, done.stderr

    def all_shards(self, out, split="train"):
        return [read_megatron(str(p)[:-4]) for p in sorted(out.glob(f"*.{split}.idx"))]

    def inspect(self, name, path, ids, documents):
        done = self.tern("inspect", path, "--json")
        if done.returncode != 0:
            return self.expect(name, False, done.stderr)
        found = json.loads(done.stdout)["metadata"]
        want = {
            "tokens": len(ids),
            "documents": documents,
            "largest_id": int(max(ids)),
            "sha256_int32": hashlib.sha256(np.asarray(ids, dtype=np.int32).tobytes()).hexdigest(),
        }
        self.expect(name, found == want, f"found {found}, want {want}")

    def check_text(self, texts):
        (self.folder / "train.txt").write_text("\n".join(texts), encoding="utf-8")
        done = self.tern("tokenizer", "train", self.folder / "train.txt", "--vocab-size", 330, "-o", self.folder / "m.model")
        assert done.returncode == 0, done.stderr
        model = sentencepiece.SentencePieceProcessor(model_file=str(self.folder / "m.model"))
        want = []
        for text in texts:
            if text:
                want.append([model.bos_id(), *model.encode(text), model.eos_id()])
        for name, path in write_corpora(self.folder, texts).items():
            good, error = self.shards(path, self.folder / "out" / name, "--shard-tokens", 20000)
            if not good:
                self.expect(name, False, error)
                continue
            parts = self.all_shards(self.folder / "out" / name)
            documents = [ids[a:b].tolist() for ids, ends in parts for a, b in zip(ends, ends[1:])]
            self.expect(f"{name}: {len(documents)} documents in {len(parts)} shards", documents == want)

    def check_kills(self):
        out, want = self.folder / "killed", self.folder / "want"
        options = ["--shard-tokens", 2000, "--held-out", 0.1]
        assert self.shards(self.folder / "b.jsonl.zst", want, *options)[0]
        for delay in (0.02, 0.05, 0.1):
            command = ["tokenizer", "shards", self.folder / "m.model", self.folder / "b.jsonl.zst", "-o", out, *options]
            child = subprocess.Popen([self.program, *map(str, command)], stdout=subprocess.DEVNULL)
            time.sleep(delay)
            child.kill()
            child.wait()
        assert self.shards(self.folder / "b.jsonl.zst", out, *options, "--threads", 1)[0]
        names = {p.name for p in want.iterdir()} - {".lock"}
        same = names == {p.name for p in out.iterdir()} - {".lock"} and all(
            (want / n).read_bytes() == (out / n).read_bytes() for n in names)
        self.expect(f"killed three times: {len(names)} equal files", same)

    def check_token_files(self):
        rng = np.random.default_rng(1)
        sequences = [rng.integers(0, 100, n).tolist() for n in (3, 0, 1, 500, 7, 64)]
        borders, documents = [0, 2, 3, 3, 6], 3  # One document has no sequence.
        for dtype in MEGATRON_CODES:
            ids = write_megatron(self.folder / dtype, sequences, borders, dtype)
            self.inspect(f"Megatron {dtype}", self.folder / f"{dtype}.idx", ids, documents)
        ids = np.concatenate([[50256], rng.integers(0, 50256, 999), [50256], rng.integers(0, 50256, 10)])
        write_llmc(self.folder / "gpt2.bin", ids, 20240520, 1, np.uint16)
        self.inspect("llm.c GPT-2", self.folder / "gpt2.bin", ids, 2)
        ids = np.concatenate([[128000], rng.integers(0, 128000, 999), [128000, 128000]])
        write_llmc(self.folder / "llama3.bin", ids, 20240801, 7, np.uint32)
        self.inspect("llm.c Llama-3", self.folder / "llama3.bin", ids, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=lambda p: str(pathlib.Path(p).resolve()))
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    folder = arguments.keep or pathlib.Path(tempfile.mkdtemp(prefix="tern-check-data-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        checks = Checks(arguments.program, folder)
        checks.check_text(make_texts(800))
        checks.check_kills()
        checks.check_token_files()
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    return EXIT_MISMATCH if checks.failures else 0


if __name__ == "__main__":
    sys.exit(main())
