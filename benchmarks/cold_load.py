#!/usr/bin/env python3
"""Seconds from the start of tern-engine to the logits of four tokens: file in the page cache, dropped from it
(posix_fadvise), and a plain read of the dropped file beside it.

    benchmarks/cold_load.py build/cpu/bin/tern-engine model.gguf [--rounds 3]
"""
import argparse
import os
import subprocess
import tempfile
import time


def drop(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def seconds(command):
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("model", help="a file, not a folder")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tokens = os.path.join(folder, "tokens")
        with open(tokens, "w") as file:
            file.write("1 2 3 4\n")
        load = [options.engine, "logits", options.model, "--tokens", tokens, "-o", os.path.join(folder, "logits")]
        seconds(load)
        for _ in range(options.rounds):
            warm = seconds(load)
            drop(options.model)
            cold = seconds(load)
            drop(options.model)
            read = seconds(["dd", f"if={options.model}", "of=/dev/null", "bs=4M", "status=none"])
            print(f"warm {warm:.3f} s, cold {cold:.3f} s, plain cold read {read:.3f} s")


if __name__ == "__main__":
    main()
