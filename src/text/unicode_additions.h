// Code points that Unicode 15, 15.1 and 16 have added to the general categories. PCRE2 of Debian
// 12 knows Unicode 14 and HF tokenizers Unicode 16: without these, text in new scripts would be cut
// elsewhere.
#pragma once

#include <string>
#include <string_view>

namespace tern::text {

// Ranges in PCRE2's notation for the inside of a class; `category` "L" or "Lu". Empty: none.
std::string AddedCodepoints(std::string_view category);

}  // namespace tern::text
