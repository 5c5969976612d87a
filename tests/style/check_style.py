#!/usr/bin/env python3
"""Holds the house rules that a machine can hold (CONTRIBUTING.md): check_style.py [ROOT].

Layers between modules, the border to libtorch, sizes of files and functions, opening comments, tests and modules that
the build forgets, words of unfinished work, paths of one machine, dead links and dead recipe parts. Prints
"file:line: what is wrong" for each finding and exits with 1 when there is any. Standard library only; no network.
Functions are found by matching braces, not by parsing C++: good to a line, and enough to hold a limit.
"""

import os
import re
import sys

# Who may include whom: ARCHITECTURE.md, "Module contracts". A module may always include itself.
DEPLOY_LAYERS = {
    "base": [],
    "kernels": ["base"],
    "h5": ["base"],
    "formats": ["base"],
    "arch": ["base"],
    "text": ["base", "formats"],
    "data": ["base", "h5", "formats", "text"],
    "checkpoint": ["base", "h5"],
    "metrics": ["base"],
    "recipe": ["base", "arch"],
    "engine": ["base", "kernels", "h5", "formats", "arch", "text"],
    "tasks": ["base", "kernels", "formats", "arch", "text", "data", "metrics", "engine"],
    "serve": ["base", "kernels", "formats", "arch", "text", "engine"],
    "engine_cli": ["base", "kernels", "h5", "formats", "arch", "text", "data", "checkpoint", "metrics", "engine", "tasks", "serve"],
}
# Each of these may include the deploy half and those before it.
TRAINING_LAYERS = ["quant", "parallel", "nn", "model", "eval", "plan", "qat", "distill", "train", "transfer", "ptq", "job", "cli"]

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_KERNEL_FUNCTION_LINES = 120

# (rule, file): reason. May only shrink: an exception that is not needed any more is itself a finding.
EXCEPTIONS = {}

FOLDERS = ["src", "kernels", "tests", "cmake", "scripts", "docs", "configs", "recipes", "benchmarks", "examples", ".ci"]
SKIPPED = {"build", "__pycache__"}  # And hidden folders, but for .ci itself.
CODE = (".h", ".cc", ".cu", ".cuh")
TEXT = CODE + (".py", ".sh", ".cmake", ".txt", ".md", ".yaml", ".yml", ".json", "")

# Spelled with brackets so that this line is none of its own findings.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X|HAC[K])\b|\b[Nn]ot (yet )?implemented\b|\b[Uu]nimplemented\b")
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.$~}])/(work|root|home/[a-z]\w*|Users/\w+|tmp/bash_jobs)/")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')
LIBTORCH = re.compile(r"^(torch|ATen|c10)/")


def allowed_includes(module):
    """Modules that `module` may include, or None for a folder that is no module."""
    if module in DEPLOY_LAYERS:
        return set(DEPLOY_LAYERS[module]) | {module}
    if module in TRAINING_LAYERS:
        before = TRAINING_LAYERS[: TRAINING_LAYERS.index(module) + 1]
        return set(DEPLOY_LAYERS) | set(before)
    return None


def module_of(path):
    parts = path.split("/")
    if parts[0] == "kernels":
        return "kernels"
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def strip_code(text):
    """The text with comments, strings and characters blanked; lines stay where they are."""
    pattern = re.compile(
        r'R"(?P<d>[^ ()\\]{0,16})\(.*?\)(?P=d)"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'
        r"|(?<![A-Za-z0-9_])'(?:\\.|[^'\\\n])+'",
        re.DOTALL,
    )
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def functions(text):
    """(first line, lines) of each function outside other functions, lines counted from its signature."""
    code = re.sub(r"^[ \t]*#(?:[^\n\\]|\\.)*", lambda m: re.sub(r"[^\n]", " ", m.group()), strip_code(text), flags=re.M | re.S)
    found, stack, begin = [], [], 0
    for match in re.finditer(r"[{};]", code):
        at = match.start()
        if match.group() == "{":
            head = code[begin:at]
            words = re.sub(r"^\s*(template\s*<[^{};]*?>\s*(?=class|struct))?", "", head)
            if re.match(r"(inline\s+)?namespace\b|extern\s*$", words):
                kind = "scope"
            elif re.match(r"(class|struct|union|enum)\b", words) and not re.search(r"\)\s*(const|noexcept)?\s*$", words):
                kind = "scope"
            elif ")" in head and all(kind == "scope" for kind, _ in stack):
                kind = "function"
            else:
                kind = "other"
            stack.append((kind, begin + len(head) - len(head.lstrip())))
        elif match.group() == "}" and stack:
            kind, start = stack.pop()
            if kind == "function":
                first = code.count("\n", 0, start) + 1
                found.append((first, code.count("\n", 0, at) + 2 - first))
            elif kind == "other" and all(k == "scope" for k, _ in stack):
                continue  # An initializer list: what follows may still be the same head.
        elif match.group() == ";" and any(kind != "scope" for kind, _ in stack):
            continue
        begin = match.end()
    return found


class Checker:
    def __init__(self, root):
        self.root = root
        self.findings = []
        self.used_exceptions = set()
        self.files = sorted(self.list_files())
        self.texts = {}
        for path in self.files:
            with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
                self.texts[path] = file.read()

    def list_files(self):
        for name in os.listdir(self.root):
            if os.path.isfile(os.path.join(self.root, name)) and name.endswith((".md", ".txt", ".json")):
                yield name
        for top in FOLDERS:
            for folder, folders, names in os.walk(os.path.join(self.root, top)):
                folders[:] = [f for f in folders if f not in SKIPPED and not f.startswith(".")]
                for name in names:
                    if os.path.splitext(name)[1] in TEXT:
                        yield os.path.relpath(os.path.join(folder, name), self.root).replace(os.sep, "/")

    def report(self, rule, path, line, message):
        if (rule, path) in EXCEPTIONS:
            self.used_exceptions.add((rule, path))
            return
        self.findings.append(f"{path}:{line}: {message} [{rule}]")

    def code_files(self):
        return [(path, text) for path, text in self.texts.items() if path.endswith(CODE)]

    def check_includes(self):
        modules = set(DEPLOY_LAYERS) | set(TRAINING_LAYERS)
        for path, text in self.code_files():
            module = module_of(path)
            allowed = allowed_includes(module) if module else None
            if module and allowed is None:
                self.report("layers", path, 1, f'module "{module}" is not in the tables of tests/style/check_style.py')
                continue
            for number, line in enumerate(text.split("\n"), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                bracket, target = match.groups()
                used = target.split("/")[0]
                if allowed and bracket == '"' and used in modules and used not in allowed:
                    self.report("layers", path, number, f"{module} may not include {target}")
                if module in DEPLOY_LAYERS and LIBTORCH.match(target):
                    self.report("libtorch", path, number, f"{module} is of the deploy half: no {target}")
                if path.endswith((".h", ".cuh")) and target in ("torch/torch.h", "torch/extension.h"):
                    if path != "cmake/torch_pch.h":
                        self.report("wide-header", path, number, f"{target} in a header: take the narrow one")

    def check_sizes(self):
        for path, text in self.texts.items():
            lines = text.count("\n")
            if path.endswith(CODE + (".py", ".sh", ".cmake")) and lines > MAX_FILE_LINES:
                self.report("file-length", path, 1, f"{lines} lines, at most {MAX_FILE_LINES}: split it by concept")
        for path, text in self.code_files():
            limit = MAX_KERNEL_FUNCTION_LINES if path.startswith("kernels/") else MAX_FUNCTION_LINES
            for first, lines in functions(text):
                if lines > limit:
                    self.report("function-length", path, first, f"function of {lines} lines, at most {limit}")

    def check_openings(self):
        for path, text in self.texts.items():
            name = path.rsplit("/", 1)[-1]
            opening = text.lstrip()[:3]
            if path.endswith(CODE) and not opening.startswith(("//", "/*")):
                self.report("opening", path, 1, "does not open with a comment that says what it holds")
            if path.endswith(CODE) and not re.fullmatch(r"[a-z0-9_]+\.\w+", name):
                self.report("file-name", path, 1, "file names are snake_case")
            if path.endswith((".h", ".cuh")) and "#pragma once" not in text:
                self.report("opening", path, 1, "no #pragma once")
            if path.endswith(".py") and not re.match(r'(#![^\n]*\n)?\s*("""|#)', text):
                self.report("opening", path, 1, "does not open with a docstring")
            if path.startswith(("scripts/", ".ci/")) and not path.endswith((".py", ".md")):
                if not re.match(r"(#![^\n]*\n)?# ?\w", text) and text:
                    self.report("opening", path, 1, "does not open with a comment")

    def check_build_lists(self):
        """Every module and every test is built: a file that no CMakeLists.txt knows would rot."""
        for folder in sorted({p.rsplit("/", 1)[0] for p, _ in self.code_files() if p.startswith("src/") and p.count("/") > 1}):
            module = "/".join(folder.split("/")[:2])
            if f"{module}/CMakeLists.txt" not in self.texts:
                self.report("build-list", module, 1, "has sources but no CMakeLists.txt")
        tests = self.texts.get("tests/CMakeLists.txt", "")
        for folder in sorted({p.split("/")[1] for p, _ in self.code_files() if p.startswith("tests/") and p.endswith("_test.cc")}):
            if not re.search(rf"^\s*tern_test\({folder}\b", tests, re.M):
                self.report("build-list", "tests/CMakeLists.txt", 1, f"no tern_test({folder} ...): its tests never run")

    def check_words(self):
        for path, text in self.texts.items():
            if path.startswith("tests/style/"):
                continue  # This file and its test name what they look for.
            for number, line in enumerate(text.split("\n"), 1):
                if UNFINISHED.search(line):
                    self.report("unfinished", path, number, "a word of unfinished work: finish it, or throw a typed error")
                if MACHINE_PATH.search(line):
                    self.report("machine-path", path, number, "a path of one machine")

    def check_links(self):
        for path, text in self.texts.items():
            if not path.endswith(".md"):
                continue
            plain = re.sub(r"```.*?```", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)
            for match in re.finditer(r"\]\(([^)#\s]+)(#[^)]*)?\)", plain):
                target = match.group(1)
                if re.match(r"[a-z]+:", target):
                    continue
                whole = os.path.normpath(os.path.join(self.root, os.path.dirname(path), target))
                if not os.path.exists(whole):
                    self.report("link", path, plain.count("\n", 0, match.start()) + 1, f"{target} does not exist")

    def check_recipes(self):
        """A part that nothing uses and a recipe that no page names are dead."""
        prose = "\n".join(text for path, text in self.texts.items() if path.endswith(".md"))
        uses = "\n".join(text for path, text in self.texts.items() if path.endswith((".yaml", ".cc", ".md")))
        for path in self.texts:
            if path.startswith("recipes/") and path.endswith(".yaml") and path not in prose:
                self.report("dead-recipe", path, 1, "no page (README.md, docs) names it")
            if path.startswith("configs/") and path.endswith(".yaml"):
                name = path[len("configs/") : -len(".yaml")]
                if not re.search(rf"\b{re.escape(name)}\b", uses):
                    self.report("dead-config", path, 1, f'nothing says "use: {name}"')

    def run(self):
        for check in (self.check_includes, self.check_sizes, self.check_openings, self.check_build_lists,
                      self.check_words, self.check_links, self.check_recipes):  # fmt: skip
            check()
        for rule, path in sorted(set(EXCEPTIONS) - self.used_exceptions):
            self.findings.append(f"{path}:1: the exception for {rule} is not needed any more: remove it [exceptions]")
        return sorted(self.findings)


def main():
    default_root = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    root = sys.argv[1] if len(sys.argv) > 1 else default_root
    checker = Checker(root)
    findings = checker.run()
    for finding in findings:
        print(finding)
    print(f"{len(checker.files)} files, {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
