"""Writes rows.{snappy,zstd,gzip}.parquet and rows.jsonl, what their rows must come out as.

pyarrow 26.0.1; no randomness. The columns are those of the common evaluation sets (MMLU: a list of
strings; ARC: a struct of lists) and one of every kind that has a case of its own in the plug-in.
"""

import datetime
import decimal
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 25
FOLDER = pathlib.Path(__file__).parent

SCHEMA = pa.schema([
    ("text", pa.string()),
    ("id", pa.int64()),
    ("small", pa.uint8()),
    ("score", pa.float64()),
    ("good", pa.bool_()),
    ("choices", pa.list_(pa.string())),
    ("arc", pa.struct([("label", pa.list_(pa.string())), ("n", pa.int32())])),
    ("steps", pa.list_(pa.struct([("s", pa.large_string()), ("v", pa.list_(pa.int16()))]))),
    ("pairs", pa.map_(pa.string(), pa.int32())),
    ("kind", pa.dictionary(pa.int8(), pa.string())),
    ("when", pa.timestamp("ms")),
    ("day", pa.date32()),
    ("price", pa.decimal128(9, 2)),
])


def row(i):
    """(value for Arrow, value for JSON) of each column."""
    text = None if i == 7 else f'row {i} "quoted" \\ back\n\ttab \x01 é 日本 \U0001f600'
    return {
        "text": (text, text),
        "id": (i * 10**17, i * 10**17),
        "small": (255 - i, 255 - i),
        "score": (float("nan") if i == 3 else i / 8, None if i == 3 else i / 8),
        "good": (None if i % 5 == 0 else i % 2 == 0, None if i % 5 == 0 else i % 2 == 0),
        "choices": ([f"c{k}" for k in range(i % 4)],) * 2,
        "arc": (None if i == 9 else {"label": ["A", None, "B"], "n": -i},) * 2,
        "steps": ([{"s": "x" * k, "v": list(range(k))} for k in range(i % 3)],) * 2,
        "pairs": ([("a", i), ("b", None)], [{"key": "a", "value": i}, {"key": "b", "value": None}]),
        "kind": (["train", "test"][i % 2],) * 2,
        "when": (datetime.datetime(2024, 1, 2, 3, 4, i), f"2024-01-02 03:04:{i:02}.000"),
        "day": (datetime.date(2024, 2, 1 + i), f"2024-02-{1 + i:02}"),
        "price": (decimal.Decimal(i).scaleb(-2), f"{i / 100:.2f}"),
    }


def main():
    rows = [row(i) for i in range(ROWS)]
    table = pa.Table.from_pylist([{k: v[0] for k, v in r.items()} for r in rows], schema=SCHEMA)
    for codec in ("snappy", "zstd", "gzip"):
        pq.write_table(table, FOLDER / f"rows.{codec}.parquet", compression=codec, row_group_size=10)
    with open(FOLDER / "rows.jsonl", "w", encoding="utf-8") as out:
        for r in rows:
            out.write(json.dumps({k: v[1] for k, v in r.items()}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
