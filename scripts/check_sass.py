#!/usr/bin/env python3
"""Gate on what ptxas makes of the CUDA kernels: no register spills, no stack, registers within budget.

Compiles each kernel source once per architecture with -Xptxas -v and parses the report. Where cuobjdump is installed it also
counts machine instructions: every ternary kernel must hold IDP.4A (dp4a) and 128-bit global loads, and no local-memory
access. Says which of the two checks ran. Exit code 0: all held; 1: a gate failed; 2: no nvcc.

Usage: check_sass.py [--arch 80 90] [--verbose]
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = "kernels/ternary_gemm/ternary_gemv.cu"
# Registers a thread by vectors in the batch. At 128 threads a block, 64 registers still allow 1,024 threads (half of the
# most) on a multiprocessor of 65,536 registers, 96 allow 680, and a GEMV needs only enough loads in flight.
REGISTER_BUDGET = {1: 48, 2: 56, 3: 64, 4: 80, 5: 88, 6: 96, 7: 104, 8: 120}


def find_nvcc():
    return shutil.which("nvcc") or next(
        (p for p in ["/usr/local/cuda/bin/nvcc"] if os.path.exists(p)), None)


def ptxas_report(text):
    """Yields (batch, warps a row, registers, stack, spill stores, spill loads)."""
    entry = re.compile(r"Compiling entry function '\S*TernaryGemvKernelILi(\d+)ELi(\d+)E\S*'.*?"
                       r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
                       r"Used (\d+) registers", re.S)
    for batch, warps, stack, stores, loads, registers in entry.findall(text):
        yield int(batch), int(warps), int(registers), int(stack), int(stores), int(loads)


def check_ptxas(arch, report):
    faults = []
    kernels = list(ptxas_report(report))
    if len(kernels) != 16:
        faults.append(f"sm_{arch}: ptxas reports {len(kernels)} kernels, want 16 (8 batches x 2 ways)")
    for batch, warps, registers, stack, stores, loads in kernels:
        name = f"sm_{arch} batch {batch}, {warps} warps a row"
        if stack or stores or loads:
            faults.append(f"{name}: {stack} B stack, {stores} B spilled, {loads} B reloaded; want 0")
        if registers > REGISTER_BUDGET[batch]:
            faults.append(f"{name}: {registers} registers, budget {REGISTER_BUDGET[batch]}")
    return kernels, faults


def check_sass(arch, cubin, cuobjdump):
    text = subprocess.run([cuobjdump, "-sass", cubin], check=True, capture_output=True, text=True).stdout
    faults = []
    functions = re.split(r"Function : ", text)[1:]
    for function in functions:
        name = function.split("\n", 1)[0]
        counts = {op: len(re.findall(op, function)) for op in
                  [r"IDP\.4A\.S8\.S8", r"LDG\.E\.128", r"\bLDL", r"\bSTL"]}
        if not counts[r"IDP\.4A\.S8\.S8"] or not counts[r"LDG\.E\.128"]:
            faults.append(f"sm_{arch} {name}: lacks dp4a or 128-bit loads: {counts}")
        if counts[r"\bLDL"] or counts[r"\bSTL"]:
            faults.append(f"sm_{arch} {name}: touches local memory: {counts}")
    if len(functions) != 16:
        faults.append(f"sm_{arch}: cuobjdump shows {len(functions)} functions, want 16")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--arch", nargs="+", default=["80", "90"])
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("no nvcc: install the CUDA Toolkit to run this check")
        return 2
    cuobjdump = shutil.which("cuobjdump")
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in args.arch:
            cubin = os.path.join(folder, f"sm_{arch}.cubin")
            run = subprocess.run([nvcc, "-std=c++20", "-O3", f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin",
                                  f"-I{ROOT}", f"-I{ROOT}/src", "-o", cubin, os.path.join(ROOT, SOURCE)],
                                 capture_output=True, text=True)
            if run.returncode != 0:
                print(run.stderr)
                return 1
            kernels, found = check_ptxas(arch, run.stderr)
            faults += found
            if args.verbose:
                for kernel in sorted(kernels):
                    print(f"sm_{arch} batch %d, %d warps a row: %d registers, %d B stack" % kernel[:4])
            if cuobjdump:
                faults += check_sass(arch, cubin, cuobjdump)
    print(f"ptxas: sm_{', sm_'.join(args.arch)} checked; machine code: "
          + ("checked" if cuobjdump else "not checked, no cuobjdump"))
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
