#!/usr/bin/env python3
"""That the gates of scripts/check_sass.py can fail: on reports and machine code written here. Needs neither nvcc nor a GPU."""

import os
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

import check_sass  # noqa: E402
import kernel_bounds  # noqa: E402
import sass_tools  # noqa: E402

REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN4tern7kernels10SomeKernelILi8EEEvNS0_4ArgsE' for 'sm_80'
ptxas info    : Function properties for _ZN4tern7kernels10SomeKernelILi8EEEvNS0_4ArgsE
    {stack} bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, 4096 bytes smem, 424 bytes cmem[0]
"""

# A loop of five instructions with two markers, inside a longer one with one marker more outside of it.
CODE = [(0x00, "MOV R1, c[0x0][0x28]"), (0x10, "IMMA.16832.S8.S8 R0, R4.ROW, R8.COL, R0"), (0x20, "LDS.128 R4, [R2]"),
        (0x30, "@P1 IMMA.16832.S8.S8 R0, R4.ROW, R8.COL, R0"), (0x40, "IMMA.16832.S8.S8 R0, R4.ROW, R8.COL, R0"),
        (0x50, "IADD3 R2, R2, 0x10, RZ"), (0x60, "@!P0 BRA 0x20"), (0x70, "@P2 BRA 0x90"), (0x80, "NOP"), (0x90, "EXIT")]  # fmt: skip


def kernel(**changes):
    values = dict(instances=1, registers={8: 64}, ops=[r"LDS\.128"], threads=128, shared=0,
                  loop=check_sass.Loop(r"IMMA", 16, 1.0, lambda tiles: tiles))  # fmt: skip
    values.update(changes)
    return {"SomeKernel": check_sass.Kernel(**values)}


class Tools(unittest.TestCase):
    def test_names(self):
        self.assertEqual(sass_tools.kernel_name("_ZN4tern7kernels10SomeKernelILi8EEEvNS0_4ArgsE"), ("SomeKernel", 8))
        self.assertEqual(sass_tools.kernel_name("_ZN4tern7kernels10SomeKernelILb1EEEvNS0_4ArgsE"), ("SomeKernel", 1))
        self.assertEqual(sass_tools.kernel_name("_ZN4tern7kernels10SomeKernelENS0_4ArgsE"), ("SomeKernel", None))

    def test_report(self):
        (usage,) = sass_tools.ptxas_report(REPORT.format(stack=16, registers=70))
        self.assertEqual(usage, sass_tools.Usage("SomeKernel", 8, 70, 16, 4, 8, 4096, 1))

    def test_loop_is_the_one_with_most_markers(self):
        loop = sass_tools.main_loop(CODE, r"IMMA")
        self.assertEqual([at for at, _ in loop], [0x20, 0x30, 0x40, 0x50, 0x60])
        self.assertIsNone(sass_tools.main_loop(CODE, r"IDP"))
        self.assertIsNone(sass_tools.main_loop(CODE[:6], r"IMMA"))

    def test_occupancy(self):  # By hand, from the limits of the programming guide.
        self.assertEqual(sass_tools.occupancy("80", 128, 181, 73728), (2, 8))  # 184 * 128 registers: 2; 72 + 1 KiB: 2.
        self.assertEqual(sass_tools.occupancy("80", 256, 40, 0), (6, 48))
        self.assertEqual(sass_tools.occupancy("90", 256, 32, 64), (8, 64))
        self.assertEqual(sass_tools.occupancy("89", 256, 32, 0), (6, 48))
        self.assertEqual(sass_tools.occupancy("86", 128, 40, 49152), (2, 8))
        self.assertEqual(sass_tools.occupancy("89", 128, 40, 100 * 1024), (0, 0))


class Gates(unittest.TestCase):
    def usages(self, stack=0, registers=64, spills=0):
        return [sass_tools.Usage("SomeKernel", 8, registers, stack, spills, spills, 0, 1)]

    def test_a_good_kernel_passes(self):
        self.assertEqual(check_sass.check_usages("80", kernel(), self.usages()), [])
        faults, measured = check_sass.check_code("80", kernel(), {("SomeKernel", 8): [CODE]})
        self.assertEqual(faults, ["sm_80 SomeKernel<8>: 1.25 instructions a weight in the inner loop, budget 1.0"])
        self.assertEqual(measured, {("SomeKernel", 8): 5 / (2 * 16 / 8)})

    def test_each_fault_is_reported(self):
        for wanted, usages, text in [
            (kernel(), self.usages(registers=65), "65 registers, budget 64"),
            (kernel(), self.usages(stack=8), "8 B stack"),
            (kernel(), self.usages(spills=4), "4 B spilled"),
            (kernel(instances=2), self.usages(), "1 instances of SomeKernel, want 2"),
            (kernel(shared={8: 200 * 1024}), self.usages(), "do not fit"),
            ({}, self.usages(), "no budget"),
        ]:
            self.assertIn(text, " ".join(check_sass.check_usages("80", wanted, usages)))

    def test_each_fault_of_machine_code_is_reported(self):
        local = CODE + [(0xA0, "LDL.64 R2, [R1]")]
        narrow = [(at, words.replace("LDS.128", "LDS.64")) for at, words in CODE]
        for code, text in [(local, "touches local memory"), (narrow, "lacks LDS"), (CODE[:6], "no loop with IMMA")]:
            faults, _ = check_sass.check_code("80", kernel(), {("SomeKernel", 8): [code]})
            self.assertIn(text, " ".join(faults))

    def test_fused_rounding_is_reported_where_it_is_not_meant(self):
        ptx = "fma.rn.f32 %f1, %f2, %f3, %f4;"
        self.assertTrue(check_sass.check_ptx("a.cu", "80", kernel(), ptx))
        self.assertFalse(check_sass.check_ptx("a.cu", "80", kernel(fma=True), ptx))
        self.assertTrue(check_sass.check_ptx("a.cu", "80", {**kernel(), "Other": kernel(fma=True)["SomeKernel"]}, ptx))


class Bounds(unittest.TestCase):
    def test_the_page_is_compared_where_its_version_is_ours(self):
        page = kernel_bounds.INTRODUCTION.format(nvcc="13.0.88", most="", heads="", rules="")
        self.assertEqual(check_sass.made_with(page), "13.0.88")

    def test_the_largest_bound_counts(self):  # 1,000 GB/s, 100 multiprocessors at 1 GHz, 1e12 multiply-adds a second.
        device = kernel_bounds.Device("D", "80", 1000, 100, 1.0, 1.0, 1.0)
        product = kernel_bounds.Product("SomeKernel", 8, "p", 2.0, 0, 0, 64, 64, "int8")
        time, what = kernel_bounds.bound(product, device, 1.0, 1000, 1000)
        self.assertEqual(what, "tensor")
        self.assertAlmostEqual(time, 64.0)
        time, what = kernel_bounds.bound(product._replace(tensor=None), device, 1.0, 1000, 1000)
        self.assertEqual(what, "memory")
        self.assertAlmostEqual(time, 0.25)
        time, what = kernel_bounds.bound(product._replace(tensor=None), device, 32.0, 1000, 1000)
        self.assertEqual(what, "issue")
        self.assertAlmostEqual(time, 2.5)

    def test_measurements_stand_beside_the_bounds_of_the_page(self):
        with open(kernel_bounds.PAGE, encoding="utf-8") as page:
            text = page.read()
        bounds = kernel_bounds.bounds_of(text)
        self.assertEqual(len(bounds), len(kernel_bounds.PRODUCTS) * len(kernel_bounds.SHAPES))
        least = bounds["ternary", 1, "4096x4096"]["A100 SXM 40 GB"]
        rows = [{"product": "ternary", "tokens": 1, "shape": "4096x4096", "microseconds": 2 * least},
                {"product": "4-bit symmetric", "tokens": 3, "shape": "4096x4096", "microseconds": 5.0}]  # fmt: skip
        table = kernel_bounds.beside({"device": "NVIDIA A100-SXM4-40GB", "rows": rows}, text).splitlines()
        self.assertRegex(table[2], rf"{2 * least:.2f} +{least:.2f} +50%$")
        self.assertRegex(table[3], r"5\.00 +- +-$")  # The page has no such row
        self.assertIn("none published", kernel_bounds.beside({"device": "NVIDIA T4", "rows": rows}, text))

    def test_every_product_has_a_loop(self):
        kernels = {name: k for source in check_sass.SOURCES.values() for name, k in source.items()}
        for product in kernel_bounds.PRODUCTS:
            self.assertIsNotNone(kernels[product.kernel].loop)


if __name__ == "__main__":
    unittest.main()
