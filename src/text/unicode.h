// Code points: UTF-8 to numbers and back, Python's idea of white space, simple case mapping,
// normalization forms (through utf8proc). Everything here wants valid UTF-8 (base/utf8.h checks).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tern::text {

// The code point at `at`, which moves behind it. REQUIRES: valid UTF-8, at < size.
uint32_t NextCodepoint(std::string_view text, size_t* at);
void AppendCodepoint(uint32_t codepoint, std::string* text);
// Offset of each code point, and the size at the end.
std::vector<size_t> CodepointOffsets(std::string_view text);
int64_t CountCodepoints(std::string_view text);

// str.isspace() of Python for one code point: White_Space and U+001C to U+001F.
bool IsPythonSpace(uint32_t codepoint);
// Property White_Space.
bool IsWhiteSpace(uint32_t codepoint);
bool IsLetter(uint32_t codepoint);  // Category L
bool IsCased(uint32_t codepoint);   // Lu, Ll, Lt
bool IsMark(uint32_t codepoint);    // Category M

std::string ToLower(std::string_view text);
std::string ToUpper(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string Normalize(std::string_view text, NormalForm form);

// Bytes that are no UTF-8 become U+FFFD, one for each maximal part of a sequence (the Unicode
// Standard, section 3.9), as Python and Rust do.
std::string ReplaceInvalidUtf8(std::string_view bytes);

}  // namespace tern::text
