#!/usr/bin/env python3
"""Each rule of check_style.py finds its violation in a small tree made for it, and a clean tree passes.

A checker that cannot fail proves nothing: every rule here is seen red on purpose.
"""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_style  # noqa: E402

CLEAN = {
    "src/base/CMakeLists.txt": "tern_module(base)\n",
    "src/base/a.h": "// A.\n#pragma once\n",
    "src/h5/CMakeLists.txt": "tern_module(h5 DEPS base)\n",
    "src/h5/h5.cc": '// B.\n#include "base/a.h"\n#include <vector>\nint F() {\n  return 1;\n}\n',
    "tests/CMakeLists.txt": "tern_test(base DEPS base)\n",
    "tests/base/a_test.cc": "// C.\nTEST(A, B) { Use({1, 2}); }\n",
}


def findings(extra):
    with tempfile.TemporaryDirectory() as root:
        for path, text in (CLEAN | extra).items():
            whole = os.path.join(root, path)
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            with open(whole, "w", encoding="utf-8") as file:
                file.write(text)
        return check_style.Checker(root).run()


def function(lines):
    return "// D.\nint F(int a,\n      int b) {\n" + "  a += b;\n" * (lines - 3) + "}\n"


class CheckStyleTest(unittest.TestCase):
    def assert_only(self, rule, extra):
        found = findings(extra)
        self.assertEqual([f.rsplit("[", 1)[1] for f in found], [rule + "]"], found)

    def test_a_clean_tree_passes(self):
        self.assertEqual(findings({}), [])

    def test_layers(self):
        self.assert_only("layers", {"src/base/up.cc": '// E.\n#include "h5/h5.h"\n'})
        self.assert_only("layers", {"src/model/CMakeLists.txt": "", "src/model/m.cc": '// E.\n#include "cli/x.h"\n'})
        self.assert_only("layers", {"src/newcomer/CMakeLists.txt": "", "src/newcomer/n.cc": "// E.\n"})
        self.assertEqual(findings({"src/model/CMakeLists.txt": "", "src/model/m.cc": '// E.\n#include "nn/x.h"\n'}), [])

    def test_libtorch_stays_in_the_training_half(self):
        for header in ("torch/torch.h", "ATen/ops/mm.h", "c10/util/Half.h"):
            self.assert_only("libtorch", {"src/base/t.cc": f"// E.\n#include <{header}>\n"})
            self.assert_only("libtorch", {"kernels/op/op_cpu.cc": f"// E.\n#include <{header}>\n"})

    def test_wide_header(self):
        self.assert_only(
            "wide-header",
            {"src/nn/CMakeLists.txt": "", "src/nn/n.h": "// E.\n#pragma once\n#include <torch/torch.h>\n"},
        )

    def test_file_length(self):
        self.assertEqual(findings({"src/base/l.cc": "// E.\n" * 500}), [])
        self.assert_only("file-length", {"src/base/l.cc": "// E.\n" * 501})

    def test_function_length(self):
        self.assertEqual(findings({"src/base/f.cc": function(60)}), [])
        self.assert_only("function-length", {"src/base/f.cc": function(61)})
        self.assertEqual(findings({"kernels/op/f.cc": function(120)}), [])
        self.assert_only("function-length", {"kernels/op/f.cc": function(121)})

    def test_function_length_sees_methods_and_is_not_fooled_by_text(self):
        inner = "namespace a {\nstruct S {\n" + function(61)[len("// D.\n") :] + "};\n}\n"
        self.assert_only("function-length", {"src/base/f.cc": "// E.\n" + inner})
        tricky = "// E.\nint F() {\n  const char* a = \"{\"; char b = '{'; /* { */ int c = 1'000;  // {\n}\n"
        self.assertEqual(findings({"src/base/f.cc": tricky + "int x = 0;\n" * 100}), [])
        raw = '// E.\nconst char* kText = R"(\n' + "{\n" * 70 + ')";\nint F() { return 0; }\n'
        self.assertEqual(findings({"src/base/f.cc": raw}), [])

    def test_opening_comment(self):
        self.assert_only("opening", {"src/base/o.cc": "int x;\n"})
        self.assert_only("opening", {"src/base/o.h": "// E.\nint x;\n"})
        self.assert_only("opening", {"tests/x.py": "import os\n"})
        self.assert_only("opening", {"scripts/run": "#!/bin/bash\necho\n"})

    def test_file_name(self):
        self.assert_only("file-name", {"src/base/CamelCase.cc": "// E.\n"})

    def test_build_lists(self):
        self.assert_only("build-list", {"src/metrics/m.cc": "// E.\n"})
        self.assert_only("build-list", {"tests/metrics/m_test.cc": "// E.\n"})

    def test_words(self):
        self.assert_only("unfinished", {"src/base/w.cc": "// E. TO" + "DO: more\n"})
        self.assert_only("machine-path", {"docs/a.md": "see /ro" + "ot/data\n"})

    def test_links(self):
        self.assertEqual(findings({"docs/a.md": "[x](../src/base/a.h) [y](https://example.org) [z](#here)\n"}), [])
        self.assert_only("link", {"docs/a.md": "[x](gone.md)\n"})

    def test_dead_recipes_and_parts(self):
        self.assert_only("dead-recipe", {"recipes/lost.yaml": "name: lost\n"})
        self.assert_only("dead-config", {"configs/model/lost.yaml": "layers: 1\n"})
        used = {
            "configs/model/small.yaml": "layers: 1\n",
            "recipes/r.yaml": "model: {use: model/small}\n",
            "README.md": "recipes/r.yaml\n",
        }
        self.assertEqual(findings(used), [])

    def test_an_exception_that_is_not_needed_is_a_finding(self):
        check_style.EXCEPTIONS["file-length", "src/base/l.cc"] = "reason"
        try:
            self.assertEqual(findings({"src/base/l.cc": "// E.\n" * 501}), [])
            self.assert_only("exceptions", {})
        finally:
            check_style.EXCEPTIONS.clear()


if __name__ == "__main__":
    unittest.main()
