#!/usr/bin/env python3
"""Writes src/text/unicode_additions.cc: code points that HF tokenizers' regular expressions (Oniguruma, Unicode 16) put
into a general category and Unicode 14 (PCRE2 10.40 to 10.42, the Python 3.11 that runs this) does not.

And the code points that its normalizers, whose tables are older, leave as they are.

Run by hand with the peers' python (and unicodedata2 from PyPI, 18.0.0) after an update of tokenizers: tests/peers/make_unicode_additions.py > src/text/...
"""
import unicodedata

import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cf".split()


def members(category):
    """Code points that the peer's \\p{category} matches."""
    splitter = pre_tokenizers.Split(Regex("\\p{%s}+" % category), "removed", invert=True)
    found = []
    for begin in range(0, 0x110000, 4096):
        text = "".join(chr(c) for c in range(begin, begin + 4096) if not 0xD800 <= c <= 0xDFFF)
        if text:
            for piece, _ in splitter.pre_tokenize_str(text):
                found.extend(ord(c) for c in piece)
    return found


def ranges(codepoints):
    out = []
    for c in sorted(codepoints):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def left_alone():
    """Marks and characters with a decomposition that the peer's NFD, NFKD and StripAccents do not know."""
    nfd, nfkd, strip = normalizers.NFD(), normalizers.NFKD(), normalizers.StripAccents()
    found = []
    for c in range(0x80, 0x110000):
        if 0xD800 <= c <= 0xDFFF or 0xAC00 <= c <= 0xD7A3:
            continue
        text, order = chr(c), unicodedata2.combining(chr(c))
        unknown = unicodedata2.category(text)[0] == "M" and strip.normalize_str(text) == text
        if order:
            other = chr(0x334 if order > 1 else 0x345)  # Class 1 goes before, 240 behind
            unknown |= nfd.normalize_str("a" + text + other if order > 1 else "a" + other + text)[1] != (other if order > 1 else text)
        elif unicodedata2.decomposition(text):
            unknown |= nfkd.normalize_str(text) == text
        if unknown:
            found.append(c)
    return ranges(found)


def main():
    assert unicodedata.unidata_version == "14.0.0", "wants Python 3.11, whose unicodedata is PCRE2 10.42's"
    rows = []
    for category in CATEGORIES:
        new = [c for c in members(category) if unicodedata.category(chr(c)) != category]
        text = "".join("\\\\x{%x}" % a + ("-\\\\x{%x}" % b if b > a else "") for a, b in ranges(new))
        if not text:
            continue
        lines, rest = [], text
        while rest:  # Cut before a range, so that no escape is torn
            cut = len(rest) if len(rest) <= 84 else rest.rfind("\\\\x", 0, 84)
            if cut < len(rest) and rest[cut - 1] == "-":
                cut = rest.rfind("\\\\x", 0, cut - 1)
            lines.append(rest[:cut])
            rest = rest[cut:]
        rows.append((category, lines))
    print("// See unicode_additions.h. Written by tests/peers/make_unicode_additions.py with tokenizers %s." % tokenizers.__version__)
    print('#include "text/unicode_additions.h"\n\n#include <algorithm>\n#include <iterator>\n#include <utility>\n')
    print("namespace tern::text {\nnamespace {\n")
    print("struct Addition {\n  std::string_view category, ranges;\n};\n")
    print("constexpr Addition kAdditions[] = {")
    for category, lines in rows:
        print('    {"%s",' % category)
        print("\n".join('     "%s"' % line for line in lines) + "},")
    print("};\n\nconstexpr std::pair<uint32_t, uint32_t> kLeftAlone[] = {")
    for a, b in left_alone():
        print("    {0x%X, 0x%X}," % (a, b))
    print("};\n\n}  // namespace\n")
    print("std::string AddedCodepoints(std::string_view category) {")
    print("  std::string out;\n  if (category.empty()) return out;")
    print("  for (const Addition& addition : kAdditions)")
    print("    if (addition.category.starts_with(category)) out += addition.ranges;")
    print("  return out;\n}\n")
    print("bool IsLeftAlone(uint32_t codepoint) {")
    print("  const auto* next = std::upper_bound(std::begin(kLeftAlone), std::end(kLeftAlone), codepoint,")
    print("                                      [](uint32_t c, auto range) { return c < range.first; });")
    print("  return next != std::begin(kLeftAlone) && codepoint <= next[-1].second;")
    print("}\n\n}  // namespace tern::text")


if __name__ == "__main__":
    main()
