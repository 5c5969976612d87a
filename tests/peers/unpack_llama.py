"""Unpacks the llama.cpp libraries of a wheel for systems with an older C library.

  unpack_llama.py llama_cpp_py_sync-0.11739-1cpu-py3-none-manylinux2014_x86_64.whl -o DIR

The wheel (pip download --no-deps llama-cpp-py-sync==0.11739) was linked against glibc 2.38, of which
it uses four functions: strtol and its kin as C23 has them, which differ from the old ones in binary
numbers alone. On an older glibc the need of that version is marked weak (as the linker would mark a
version of weak symbols only) and a small library, libc23.so, gives the four. check_llama_quantize.py
loads it first. Needs cc. Nothing of the wheel belongs into the repository.
"""

import argparse
import pathlib
import struct
import subprocess
import zipfile

NEWER = b"GLIBC_2.38"
WEAK = 2  # VER_FLG_WEAK
SHT_GNU_VERNEED = 0x6FFFFFFE
SOURCE = """
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
long __isoc23_strtol(const char* s, char** end, int base) { return strtol(s, end, base); }
unsigned long __isoc23_strtoul(const char* s, char** end, int base) { return strtoul(s, end, base); }
unsigned long long __isoc23_strtoull(const char* s, char** end, int base) { return strtoull(s, end, base); }
int __isoc23_sscanf(const char* s, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int found = vsscanf(s, format, arguments);
  va_end(arguments);
  return found;
}
"""


def weaken(elf):
    """The 64-bit little-endian ELF with every need of NEWER marked weak; how many there were."""
    data, count = bytearray(elf), 0
    table, entry, sections = *struct.unpack_from("<Q", data, 0x28), *struct.unpack_from("<HH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * entry) for i in range(sections)]
    for header in headers:
        if header[1] != SHT_GNU_VERNEED:
            continue
        names, need = headers[header[6]][4], header[4]
        for _ in range(header[7]):
            _, versions, _, first, following = struct.unpack_from("<HHIII", data, need)
            at = need + first
            for _ in range(versions):
                _, flags, _, name, step = struct.unpack_from("<IHHII", data, at)
                if data[names + name :].startswith(NEWER + b"\0"):
                    struct.pack_into("<H", data, at + 4, flags | WEAK)
                    count += 1
                at += step
            need += following
    return bytes(data), count


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("wheel")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.wheel) as wheel:
        for name in wheel.namelist():
            if ".so" not in name:
                continue
            elf, count = weaken(wheel.read(name))
            (args.output / pathlib.Path(name).name).write_bytes(elf)
            print(f"{pathlib.Path(name).name}: {count} need(s) of {NEWER.decode()} weakened")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", args.output / "libc23.so"],
        input=SOURCE.encode(), check=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
