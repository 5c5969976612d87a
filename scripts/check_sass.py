#!/usr/bin/env python3
"""Gate on what nvcc makes of the CUDA kernels: no spills, registers and shared memory within budget, no fused rounding.

Compiles each kernel source for each architecture with ptxas' report, and reads the PTX: in kernels whose numbers are
defined without them, an fma, an approximate division or root, or flushed subnormals would break the equality with the
CPU oracle, which the emulator cannot see. With a disassembler (scripts/sass_tools.py fetches one) it reads the machine
code too: the instructions that a kernel is planned with are there, no local memory, and the inner loop takes no more
instructions a weight than budgeted. What it finds goes into docs/kernel_bounds.md, with the lower bounds on time that
follow. Says which checks ran. Exit code 0: all held; 1: a gate failed or the page is not current; 2: no nvcc.

Usage: check_sass.py [--arch 80 90 | --all-archs] [--verbose] [--write | --check-page]
"""
import argparse
import collections
import os
import re
import sys
import tempfile

import kernel_bounds
import sass_tools

# instances: of the template. registers, shared: a number or {first template argument: number}; `shared` is the dynamic
# shared memory of the launch. ops: machine instructions that must be there. loop: see Loop. fma: whether the numbers
# allow fused rounding (float sums in any order).
Kernel = collections.namedtuple("Kernel", "instances registers ops threads shared loop fma", defaults=(256, 0, None, False))
# The inner loop is the one with most `marker` instructions; each stands for `weights` weights of a lane (or of a warp for
# matrix instructions, then divided by 32), times {argument: batch}. budget: instructions of a lane a weight.
Loop = collections.namedtuple("Loop", "marker weights budget shared_by", defaults=(lambda argument: 1,))

# Registers: at 256 threads a block, 40 still allow 1,536 threads on a multiprocessor of 65,536 registers.
# The budget of the ternary product goes by the vectors in its batch: at 128 threads a block, 64 registers allow 1,024
# threads (half of the most), and a GEMV needs only enough loads in flight.
GEMV_REGISTERS = {1: 48, 2: 56, 3: 64}
# By tiles of 8 tokens. 64 (128) sums a lane and both operands stay in registers; two blocks of 128 threads fit.
GEMM_REGISTERS = {4: 136, 8: 192}
WIDE_LOAD = r"LDG\.E\.128"
# One dp4a takes 4 codes for one vector. A matrix step of 16 rows x 32 k is 16 weights of a lane for one tile of 8 tokens.
TERNARY_GEMV_LOOP = Loop(r"IDP\.4A", 4, {1: 1.0, 2: 1.45, 3: 1.8}, lambda batch: batch)
TERNARY_GEMM_LOOP = Loop(r"IMMA\.16832\.S8", 16, {4: 1.4, 8: 1.9}, lambda tiles: tiles)
# A matrix step of 16 x 8 results and 16 terms is 4 codes of a lane (T2 weights, int8 activations), which the 8 tiles of 16 rows of
# a block share. sm_120 takes most.
GRADIENT_OPS = [r"HMMA\.16816\.F32\.BF16", r"LDGSTS\.E\.BYPASS\.128", r"STG\.E\.128"]
INPUT_GRADIENT_LOOP, WEIGHT_GRADIENT_LOOP = (Loop(r"HMMA\.16816", 4, budget, lambda _: 8) for budget in (9.7, 13.2))
SOURCES = {
    "kernels/ternary_gemm/ternary_gemv.cu": {
        # Batches of 1 to 3, two ways; larger ones on tensor cores.
        "TernaryGemvMmaKernel": Kernel(1, 64, [r"IMMA\.16832\.S8\.S8", WIDE_LOAD], 256, 0, Loop(r"IMMA\.16832\.S8", 16, 0.9)),
        "TernaryGemvKernel": Kernel(6, GEMV_REGISTERS, [r"IDP\.4A\.S8\.S8", WIDE_LOAD], 128, 0, TERNARY_GEMV_LOOP),
    },
    "kernels/ternary_gemm/ternary_gemm.cu": {
        "TernaryGemmKernel": Kernel(2, GEMM_REGISTERS, [r"IMMA\.16832\.S8\.S8", r"LDGSTS\.E\.BYPASS\.128", r"LDS\.128"], 128,
                                    {4: 3 * 16384, 8: 3 * 24576}, TERNARY_GEMM_LOOP),
    },
    # Argument 0: fp16, 1: bf16. Sums in the tensor core's order: fused rounding is meant.
    "kernels/w4a16/w4a16.cu": {
        "W4A16GemvKernel": Kernel(2, 72, [r"HMMA\.16816\.F32", WIDE_LOAD], 256, 0, Loop(r"HMMA\.16816", 8, 2.8), True),
        "W4A16GemmKernel": Kernel(2, 192, [r"HMMA\.16816\.F32", r"LDGSTS\.E\.BYPASS\.128", r"LDS\.128"], 256, 3 * 24576,
                                  Loop(r"HMMA\.16816", 8, 7.8, lambda _: 8), True),
    },
    # The conversion of int8 codes is a fused operation, exact.
    "kernels/ternary_backward/ternary_backward.cu": {
        "TernaryInputGradientKernel": Kernel(1, 216, [*GRADIENT_OPS, r"LDSM\.16\.M88\.4"], 128, 4 * 9216, INPUT_GRADIENT_LOOP, True),
        "TernaryWeightGradientKernel": Kernel(1, 208, [*GRADIENT_OPS, r"LDSM\.16\.MT88\.4"], 128, 4 * 12288, WEIGHT_GRADIENT_LOOP, True),
    },
    "kernels/ternary_backward/round_gradient.cu": {"RoundGradientKernel": Kernel(1, 32, [WIDE_LOAD, r"STG\.E\.64", r"F2FP"])},
    # Sums of attention in any order: fused rounding is meant. A row type each (fp16, int8).
    "kernels/attention/attention.cu": {
        "AttendSegmentsKernel": Kernel(2, 96, [], 128, 0, None, True),
        "JoinSegmentsKernel": Kernel(1, 40, [], 128, 0, None, True),
    },
    "kernels/elementwise/elementwise.cu": {
        "AddKernel": Kernel(1, 32, []),
        "AddBiasKernel": Kernel(1, 32, []),
        "RoundRowsKernel": Kernel(2, 40, []),  # fp16, bf16
        "OutScaleKernel": Kernel(1, 32, []),
        "ScaleRowsKernel": Kernel(1, 32, []),
    },
    # Argument 0: int8, 1: FP8.
    "kernels/round_inputs/round_inputs.cu": {"RoundInputsKernel": Kernel(2, 48, [])},
    "kernels/rms_norm/rms_norm.cu": {"RmsNormKernel": Kernel(1, 40, [])},
    # The head's sums are those of the engine's float_gemm, which fuses.
    "kernels/table/table.cu": {
        # Argument: the type of the table (table.h).
        "GatherRowsKernel": Kernel(5, 40, [], 256, 0, None, True),
        "ExpandTableKernel": Kernel(5, 40, [], 256, 0, None, True),
        "TableProductKernel": Kernel(5, 56, [], 256, 0, None, True),
    },
    "kernels/top_k/top_k.cu": {"TopKKernel": Kernel(1, 48, [r"ATOMS"], 1024), "ArgmaxKernel": Kernel(1, 32, [])},
    "kernels/absmax_quantize/absmax_quantize.cu": {"AbsmaxQuantizeKernel": Kernel(1, 40, [WIDE_LOAD])},
    "kernels/ternary_quantize/ternary_quantize.cu": {
        "TernaryQuantizeKernel": Kernel(1, 40, [WIDE_LOAD, r"ATOM|RED"]),
        "AbsBlockSumsKernel": Kernel(1, 56, []),
        "JoinBlockSumsKernel": Kernel(1, 40, []),
    },
    # 2 activations. RopeKvKernel reads and writes single elements: neighbours in a warp make whole lines. A row type each.
    "kernels/gated_ffn/gated_ffn.cu": {"GatedFfnKernel": Kernel(2, 40, [WIDE_LOAD])},
    "kernels/rope_kv/rope_kv.cu": {"RopeKvKernel": Kernel(2, 64, [], 32)},
    "kernels/rms_norm_quantize/rms_norm_quantize.cu": {"RmsNormQuantizeKernel": Kernel(1, 40, [WIDE_LOAD])},
}  # fmt: skip
INEXACT = re.compile(r"\b(fma\.\S+|\w+\.approx\S*|\w+\S*\.ftz\S*)")


def of(value, argument):
    return value[argument] if isinstance(value, dict) else value


def title(arch, usage):
    return f"sm_{arch} {usage.kernel}" + ("" if usage.argument is None else f"<{usage.argument}>")


def check_usages(arch, wanted, usages):
    faults = []
    for name, kernel in wanted.items():
        found = sum(1 for usage in usages if usage.kernel == name)
        if found != kernel.instances:
            faults.append(f"sm_{arch}: ptxas reports {found} instances of {name}, want {kernel.instances}")
    for usage in usages:
        if usage.stack or usage.stores or usage.loads:
            faults.append(f"{title(arch, usage)}: {usage.stack} B stack, {usage.stores} B spilled, {usage.loads} B reloaded; want 0")
        if usage.kernel not in wanted:
            faults.append(f"{title(arch, usage)}: no budget in scripts/check_sass.py")
            continue
        kernel = wanted[usage.kernel]
        budget = of(kernel.registers, usage.argument)
        if usage.registers > budget:
            faults.append(f"{title(arch, usage)}: {usage.registers} registers, budget {budget}")
        shared = usage.shared + of(kernel.shared, usage.argument)
        if sass_tools.occupancy(arch, kernel.threads, usage.registers, shared)[0] < 1:
            faults.append(f"{title(arch, usage)}: {shared} B of shared memory do not fit a multiprocessor")
    return faults


def check_ptx(source, arch, wanted, ptx):
    if all(kernel.fma for kernel in wanted.values()):
        return []
    found = sorted(set(INEXACT.findall(ptx)))
    return [f"sm_{arch} {source}: {', '.join(found)}: rounds otherwise than the oracle"] if found else []


def instructions_a_weight(kernel, argument, code):
    """Of a lane, in the inner loop; None when the loop is not found."""
    loop = sass_tools.main_loop(code, kernel.loop.marker)
    if loop is None:
        return None
    weights = sass_tools.count(loop, kernel.loop.marker) * kernel.loop.weights / kernel.loop.shared_by(argument)
    return len(loop) / weights


def check_code(arch, wanted, machine_code):
    """(faults, {(kernel, argument): instructions a weight})."""
    faults, measured = [], {}
    for (name, argument), instances in machine_code.items():
        kernel = wanted.get(name)
        where = f"sm_{arch} {name}" + ("" if argument is None else f"<{argument}>")
        for code in instances:
            if sass_tools.count(code, r"LDL|STL"):
                faults.append(f"{where}: touches local memory")
            if kernel is None:
                continue
            faults += [f"{where}: lacks {op}" for op in kernel.ops if not sass_tools.count(code, op)]
            if kernel.loop is None:
                continue
            ratio = instructions_a_weight(kernel, argument, code)
            if ratio is None:
                faults.append(f"{where}: no loop with {kernel.loop.marker}")
                continue
            measured[name, argument] = max(ratio, measured.get((name, argument), 0.0))
            budget = of(kernel.loop.budget, argument)
            if ratio > budget:
                faults.append(f"{where}: {ratio:.2f} instructions a weight in the inner loop, budget {budget}")
    return faults, measured


def check_arch(nvcc, cuobjdump, arch, verbose, sources):
    """(faults, rows for the page)."""
    faults, rows = [], []
    for source, wanted in sources.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                usages, ptx, cubin = sass_tools.compile_source(nvcc, arch, source, folder)
            except RuntimeError as error:
                faults.append(str(error))
                continue
            code = sass_tools.disassemble(cuobjdump, cubin) if cuobjdump else {}
        faults += check_usages(arch, wanted, usages) + check_ptx(source, arch, wanted, ptx)
        more, measured = check_code(arch, wanted, code)
        faults += more
        for usage in sorted(usages, key=str):
            kernel = wanted.get(usage.kernel)
            if kernel is None:
                continue
            shared = usage.shared + of(kernel.shared, usage.argument)
            row = kernel_bounds.Row(usage, kernel.threads, shared, sass_tools.occupancy(arch, kernel.threads, usage.registers, shared),
                                    measured.get((usage.kernel, usage.argument)))  # fmt: skip
            rows.append(row)
            if verbose:
                print(f"{title(arch, usage)}: {usage.registers} registers, {shared} B shared, {usage.barriers} barriers, "
                      f"{row.occupancy[1]} warps a multiprocessor"
                      + ("" if row.per_weight is None else f", {row.per_weight:.3f} instructions a weight"))  # fmt: skip
    return faults, rows


def made_with(page):
    """The version of nvcc that a page names."""
    match = re.search(r"nvcc (\d+(?:\.\d+)*)", page)
    return match.group(1) if match else None


def handle_page(args, nvcc, rows):
    """Writes or compares docs/kernel_bounds.md: a list of faults."""
    path = os.path.join(sass_tools.ROOT, "docs", "kernel_bounds.md")
    text = kernel_bounds.page(sass_tools.nvcc_version(nvcc), rows)
    if args.write:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return []
    with open(path, encoding="utf-8") as file:
        current = file.read()
    if made_with(current) not in (None, sass_tools.nvcc_version(nvcc)):
        print(f"page not compared: made with nvcc {made_with(current)}, this is {sass_tools.nvcc_version(nvcc)}")
        return []
    return [] if current == text else ["docs/kernel_bounds.md is not current: run scripts/check_sass.py --write and commit it"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--arch", nargs="+", default=["80", "90"], choices=sorted(sass_tools.LIMITS, key=int))
    parser.add_argument("--all-archs", action="store_true", help="80, 86, 89, 90, 100 and 120")
    parser.add_argument("--only", default="", help="part of a source's path")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--write", action="store_true", help="write docs/kernel_bounds.md")
    parser.add_argument("--check-page", action="store_true", help="fail when docs/kernel_bounds.md is not current")
    args = parser.parse_args()
    nvcc = sass_tools.find_nvcc()
    if nvcc is None:
        print("no nvcc: install the CUDA Toolkit to run this check")
        return 2
    archs = sorted(sass_tools.LIMITS, key=int) if args.all_archs else args.arch
    if args.write or args.check_page:
        archs = sorted({*archs, *kernel_bounds.ARCHS}, key=int)
        if args.only:
            parser.error("the page needs all sources: leave out --only")
    cuobjdump, why_not = sass_tools.fetch_disassembler()
    faults, rows = [], {}
    for arch in archs:
        more, rows[arch] = check_arch(nvcc, cuobjdump, arch, args.verbose, {s: k for s, k in SOURCES.items() if args.only in s})
        faults += more
    if args.write and cuobjdump is None:
        print(f"the page needs machine code: {why_not}")
        return 2
    if args.write or (args.check_page and cuobjdump):
        faults += handle_page(args, nvcc, rows)
    print(f"ptxas and PTX: sm_{', sm_'.join(archs)} checked; machine code: " + ("checked" if cuobjdump else f"not checked, {why_not}"))
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
