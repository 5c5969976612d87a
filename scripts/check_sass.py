#!/usr/bin/env python3
"""Gate on what nvcc makes of the CUDA kernels: no register spills, no stack, registers within budget, no fused rounding.

Compiles each kernel source once per architecture with -Xptxas -v and parses the report, and reads the PTX: an fma, an
approximate division or root, or flushed subnormals would break the equality with the CPU oracle, which the emulator
cannot see. Where cuobjdump is installed it also counts machine instructions: the loads that a kernel is planned with are
there, and no local-memory access. Says which checks ran. Exit code 0: all held; 1: a gate failed; 2: no nvcc.

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
# As kernels/CMakeLists.txt compiles them.
FLAGS = ["-std=c++20", "-O3", "-fmad=false"]
# Kernels of a source: name -> (instances, registers, machine instructions that must be there).
# Registers: at 256 threads a block, 40 still allow 1,536 threads on a multiprocessor of 65,536 registers.
# The budget of the ternary product goes by the vectors in its batch: at 128 threads a block, 64 registers allow 1,024
# threads (half of the most), 96 allow 680, and a GEMV needs only enough loads in flight.
GEMV_REGISTERS = {1: 48, 2: 56, 3: 64, 4: 80, 5: 88, 6: 96, 7: 104, 8: 120}
WIDE_LOAD = r"LDG\.E\.128"
SOURCES = {
    "kernels/ternary_gemm/ternary_gemv.cu": {
        "TernaryGemvKernel": (16, GEMV_REGISTERS, [r"IDP\.4A\.S8\.S8", WIDE_LOAD]),  # 8 batches x 2 ways.
    },
    "kernels/absmax_quantize/absmax_quantize.cu": {"AbsmaxQuantizeKernel": (1, 40, [WIDE_LOAD])},
    "kernels/ternary_quantize/ternary_quantize.cu": {
        "TernaryQuantizeKernel": (1, 40, [WIDE_LOAD, r"ATOM|RED"]),
        "AbsBlockSumsKernel": (1, 56, []),
        "JoinBlockSumsKernel": (1, 40, []),
    },
    # 2 activations. RopeKernel reads and writes single elements: neighbours in a warp make whole lines.
    "kernels/gated_ffn/gated_ffn.cu": {"GatedFfnKernel": (2, 40, [WIDE_LOAD])},
    "kernels/rope/rope.cu": {"RopeKernel": (1, 56, [])},
    "kernels/rms_norm_quantize/rms_norm_quantize.cu": {"RmsNormQuantizeKernel": (1, 40, [WIDE_LOAD])},
}
INEXACT = re.compile(r"\b(fma\.\S+|\w+\.approx\S*|\w+\S*\.ftz\S*)")


def find_nvcc():
    return shutil.which("nvcc") or next(
        (p for p in ["/usr/local/cuda/bin/nvcc"] if os.path.exists(p)), None)


def kernel_name(mangled):
    """("TernaryGemvKernel", first integer template argument or None) of an entry function."""
    match = re.match(r"_ZN4tern7kernels(\d+)(\w+)", mangled)
    if not match:
        return mangled, None
    length = int(match.group(1))
    argument = re.match(r"ILi(\d+)E", match.group(2)[length:])
    return match.group(2)[:length], int(argument.group(1)) if argument else None


def ptxas_report(text):
    """Yields (kernel, template argument, registers, stack, spill stores, spill loads)."""
    entry = re.compile(r"Compiling entry function '(\S+)'.*?"
                       r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
                       r"Used (\d+) registers", re.S)
    for mangled, stack, stores, loads, registers in entry.findall(text):
        yield *kernel_name(mangled), int(registers), int(stack), int(stores), int(loads)


def check_ptxas(arch, wanted, kernels):
    faults = []
    for name, (instances, _, _) in wanted.items():
        found = sum(1 for kernel in kernels if kernel[0] == name)
        if found != instances:
            faults.append(f"sm_{arch}: ptxas reports {found} instances of {name}, want {instances}")
    for name, argument, registers, stack, stores, loads in kernels:
        title = f"sm_{arch} {name}" + ("" if argument is None else f"<{argument}>")
        if stack or stores or loads:
            faults.append(f"{title}: {stack} B stack, {stores} B spilled, {loads} B reloaded; want 0")
        if name not in wanted:
            faults.append(f"{title}: no budget in scripts/check_sass.py")
            continue
        budget = wanted[name][1]
        budget = budget[argument] if isinstance(budget, dict) else budget
        if registers > budget:
            faults.append(f"{title}: {registers} registers, budget {budget}")
    return faults


def check_ptx(source, arch, ptx):
    found = sorted(set(INEXACT.findall(ptx)))
    return [f"sm_{arch} {source}: {', '.join(found)}: rounds otherwise than the oracle"] if found else []


def check_sass(arch, wanted, cubin, cuobjdump):
    text = subprocess.run([cuobjdump, "-sass", cubin], check=True, capture_output=True, text=True).stdout
    faults = []
    for function in re.split(r"Function : ", text)[1:]:
        name, _ = kernel_name(function.split("\n", 1)[0].strip())
        for op in wanted.get(name, (0, 0, []))[2]:
            if not re.search(op, function):
                faults.append(f"sm_{arch} {name}: lacks {op}")
        if re.search(r"\b(LDL|STL)", function):
            faults.append(f"sm_{arch} {name}: touches local memory")
    return faults


def compile_source(nvcc, arch, source, kind, output):
    return subprocess.run([nvcc, *FLAGS, f"-arch=sm_{arch}", "-Xptxas", "-v", f"-{kind}", f"-I{ROOT}",
                           f"-I{ROOT}/src", "-o", output, os.path.join(ROOT, source)], capture_output=True, text=True)


def check_source(nvcc, cuobjdump, arch, source, folder, verbose):
    wanted = SOURCES[source]
    cubin, ptx = (os.path.join(folder, f"out.{kind}") for kind in ("cubin", "ptx"))
    for kind, output in (("ptx", ptx), ("cubin", cubin)):
        run = compile_source(nvcc, arch, source, kind, output)
        if run.returncode != 0:
            return [f"sm_{arch} {source} does not compile:\n{run.stderr}"]
    kernels = list(ptxas_report(run.stderr))
    if verbose:
        for name, argument, registers, stack, _, _ in sorted(kernels, key=str):
            shown = "" if argument is None else f"<{argument}>"
            print(f"sm_{arch} {name}{shown}: {registers} registers, {stack} B stack")
    faults = check_ptxas(arch, wanted, kernels)
    with open(ptx, encoding="utf-8") as file:
        faults += check_ptx(source, arch, file.read())
    if cuobjdump:
        faults += check_sass(arch, wanted, cubin, cuobjdump)
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
            for source in SOURCES:
                faults += check_source(nvcc, cuobjdump, arch, source, folder, args.verbose)
    print(f"ptxas and PTX: sm_{', sm_'.join(args.arch)} checked; machine code: "
          + ("checked" if cuobjdump else "not checked, no cuobjdump"))
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
