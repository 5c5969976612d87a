"""Lower bounds on the time of the low-bit products, from published peaks and counted instructions: docs/kernel_bounds.md.

A bound is the largest of: bytes that must move over the memory's peak; instructions of the inner loop over the issue
slots; multiplications over the tensor cores' peak. Nothing is measured here, and no kernel reaches its bound.
"""

import collections
import json
import os
import re
import sys

PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "kernel_bounds.md")
ARCHS = ["80", "89", "90"]
Row = collections.namedtuple("Row", "usage threads shared occupancy per_weight")

# NVIDIA's data sheets and architecture white papers: memory in GB/s; multiprocessors; boost clock in GHz; dense tensor
# peaks in 1e12 multiply-adds a second (half of the published operations): int8, and fp16 with fp32 sums.
Device = collections.namedtuple("Device", "name arch gigabytes multiprocessors gigahertz int8 fp16")
DEVICES = [
    Device("A100 SXM 40 GB", "80", 1555, 108, 1.41, 312, 156),
    Device("H100 SXM", "90", 3350, 132, 1.83, 989.5, 494.7),
    Device("RTX 4090", "89", 1008, 128, 2.52, 330.3, 82.6),
]
SCHEDULERS = 4  # Warp instructions a cycle and multiprocessor.

# out x in; the ternary and 4-bit layers of the usual small models, and a vocabulary.
SHAPES = [(2560, 2560), (6912, 2560), (2560, 6912), (4096, 4096), (128256, 2560)]

# kernel, template argument: what the page says of it. bits: of a weight with its share of scales; activation and
# result bytes an element; tokens of the call; tensor: which peak, or None.
Product = collections.namedtuple("Product", "kernel argument name bits activation_bytes result_bytes tokens tile_tokens tensor")
PRODUCTS = [
    Product("TernaryGemvKernel", 1, "ternary, 1 token", 2.0, 1, 4, 1, 1, None),
    Product("TernaryGemvKernel", 3, "ternary, 3 tokens", 2.0, 1, 4, 3, 3, None),
    Product("TernaryGemvMmaKernel", None, "ternary, 8 tokens", 2.0, 1, 4, 8, 8, "int8"),
    Product("TernaryGemmKernel", 4, "ternary, 32 tokens", 2.0, 1, 4, 32, 32, "int8"),
    Product("TernaryGemmKernel", 8, "ternary, 512 tokens", 2.0, 1, 4, 512, 64, "int8"),
    Product("W4A16GemvKernel", 0, "4-bit symmetric, 1 to 8 tokens", 4.125, 2, 4, 8, 8, None),
    Product("W4A16GemmKernel", 0, "4-bit symmetric, 512 tokens", 4.125, 2, 4, 512, 64, "fp16"),
    # dX has k as its results, dW is as large as the weights: both read bf16 gradients of n, 4096 tokens as in training.
    Product("TernaryInputGradientKernel", None, "gradient of inputs, 4096 tokens", 2.0, 4, 2, 4096, 128, "fp16"),
    Product("TernaryWeightGradientKernel", None, "gradient of weights (fp32), 4096 tokens", 32.0, 1, 2, 4096, 128, "fp16"),
]

INTRODUCTION = """# Lower bounds of the CUDA products
Made by `scripts/check_sass.py --write` with nvcc {nvcc}; `--check-page` fails when this page is not current. **Nothing here
was measured on a GPU.** The tables say what the compiler made of the sources and the least time that the published peaks of
a device allow. A bound is not a speed: latency, launches (some 3 to 5 us each), caches and the work around a kernel come on
top, and memory seldom gives more than 90 % of its peak. The kernels use `mma.sync`, with which an H100 does not reach its tensor
peak (`wgmma` does).

## What the compiler made
Registers of a thread, shared memory of a block, and how many warps of it a multiprocessor holds at once (of {most}).
Instructions: of a lane, a weight, in the inner loop, for all tokens of a tile.

| kernel | threads | shared memory | {heads} |
| --- | --- | --- | {rules} |
"""


def name_of(row):
    return f"`{row.usage.kernel}" + ("" if row.usage.argument is None else f"<{row.usage.argument}>") + "`"


def cell(row):
    text = f"{row.usage.registers} regs, {row.occupancy[1]} warps"
    return text if row.per_weight is None else f"{text}, {row.per_weight:.2f} instr"


def worst_by_name(rows):
    """One row a kernel and argument: of several instances the one with most registers."""
    best = {}
    for row in rows:
        key = name_of(row)
        if key not in best or (row.usage.registers, row.shared) > (best[key].usage.registers, best[key].shared):
            best[key] = row
    return best


def compiler_table(rows):
    tables = {arch: worst_by_name(rows[arch]) for arch in ARCHS}
    lines = []
    for name, row in tables[ARCHS[0]].items():
        cells = " | ".join(cell(tables[arch][name]) for arch in ARCHS)
        lines.append(f"| {name} | {row.threads} | {row.shared} | {cells} |")
    return "\n".join(lines) + "\n"


def bound(product, device, per_weight, n, k):
    """(microseconds, what bounds)."""
    weights = n * k
    tiles = -(-product.tokens // product.tile_tokens)
    moved = weights * product.bits / 8 + product.tokens * (k * product.activation_bytes + n * product.result_bytes)
    times = {"memory": moved / (device.gigabytes * 1e3)}
    warp_instructions = weights * tiles * per_weight / 32
    times["issue"] = warp_instructions / (device.multiprocessors * SCHEDULERS * device.gigahertz * 1e3)
    if product.tensor:
        times["tensor"] = weights * tiles * product.tile_tokens / (getattr(device, product.tensor) * 1e6)
    what = max(times, key=times.get)
    return times[what], what


def bound_table(product, rows):
    argument = "" if product.argument is None else f"<{product.argument}>"
    lines = [f"### {product.name}: `{product.kernel}{argument}`, {product.bits / 8:.4g} bytes a weight",
             "| out x in | " + " | ".join(d.name for d in DEVICES) + " |", "| --- |" + " --- |" * len(DEVICES)]  # fmt: skip
    measured = {}
    for device in DEVICES:
        found = [r.per_weight for r in rows[device.arch] if (r.usage.kernel, r.usage.argument) == (product.kernel, product.argument)]
        measured[device.arch] = max(found)
    for n, k in SHAPES:
        cells = []
        for device in DEVICES:
            time, what = bound(product, device, measured[device.arch], n, k)
            cells.append(f"{time:.2f} us ({what})")
        lines.append(f"| {n} x {k} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page(nvcc, rows):
    heads = " | ".join(f"sm_{arch}" for arch in ARCHS)
    text = INTRODUCTION.format(nvcc=nvcc, heads=heads, rules=" | ".join("---" for _ in ARCHS),
                               most="64; 48 on sm_89")  # fmt: skip
    text += compiler_table(rows)
    text += "\n## Least times\n"
    text += "Peaks: " + "; ".join(f"{d.name} {d.gigabytes} GB/s, {d.multiprocessors} multiprocessors at {d.gigahertz} GHz, int8 "
                                  f"{2 * d.int8:g} and fp16 {2 * d.fp16:g} TOPS dense" for d in DEVICES) + ".\n"  # fmt: skip
    text += ("In brackets what bounds: the memory (weights read or written once, activations and results), the issue slots (inner loop\n"
             "alone, four a cycle and multiprocessor) or the tensor cores.\n\n")  # fmt: skip
    text += "\n".join(bound_table(product, rows) for product in PRODUCTS)
    return text


def bounds_of(page_text):
    """{(product, tokens, shape): {device: microseconds}} of the page's tables."""
    bounds, key, devices = {}, None, []
    for line in page_text.splitlines():
        heading = re.match(r"### (.+), (?:1 to )?(\d+) tokens?:", line)
        if heading:
            key = (heading[1], int(heading[2]))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if key and cells[0] == "out x in":
            devices = cells[1:]
        elif key and re.fullmatch(r"\d+ x \d+", cells[0]):
            bounds[(*key, cells[0].replace(" ", ""))] = {d: float(c.split()[0]) for d, c in zip(devices, cells[1:])}
    return bounds


def beside(measured, page_text):
    """The measurements of tern bench kernels --json as a table, beside the bounds of a device of that name."""
    bounds = bounds_of(page_text)
    names = [d.name for d in DEVICES if re.sub(r" (SXM|PCIe).*", "", d.name).split()[-1] in measured["device"]]
    lines = [f"{measured['device']}: measured, least bound" + ("" if names else " (none published here)"),
             f"{'product':16} {'tokens':>6} {'out x in':>14} {'us':>10} {'bound us':>10} {'share':>6}"]  # fmt: skip
    for row in measured["rows"]:
        bound_us = bounds.get((row["product"], row["tokens"], row["shape"]), {}).get(names[0]) if names else None
        rest = f"{bound_us:10.2f} {bound_us / row['microseconds']:6.0%}" if bound_us else f"{'-':>10} {'-':>6}"
        lines.append(f"{row['product']:16} {row['tokens']:6} {row['shape']:>14} {row['microseconds']:10.2f} {rest}")
    return "\n".join(lines)


if __name__ == "__main__":  # kernel_bounds.py MEASURED.json
    with open(sys.argv[1], encoding="utf-8") as measurements, open(PAGE, encoding="utf-8") as bounds_page:
        print(beside(json.load(measurements), bounds_page.read()))
