// Code points that Unicode 15, 15.1 and 16 have added to the general categories. PCRE2 of Debian
// 12 knows Unicode 14 and HF tokenizers Unicode 16: without these, text in new scripts would be cut
// elsewhere. And the code points that the older tables of its normalizers do not know.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tern::text {

// Ranges in PCRE2's notation for the inside of a class; `category` "L" or "Lu". Empty: none.
std::string AddedCodepoints(std::string_view category);

// Whether HF tokenizers' normalizers take it for a character without decomposition and class.
bool IsLeftAlone(uint32_t codepoint);

}  // namespace tern::text
