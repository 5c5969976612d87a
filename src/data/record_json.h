// One JSON record without a document tree: its whole text is checked by an event parser and at most
// one string is kept. Used on every record of a corpus, so it allocates nothing but that string.
#pragma once

#include <string>
#include <string_view>

namespace tern::data {

// Throws FormatError with `where` when `record` is not a JSON object of at most max_depth levels.
// `field` null: only checks. Else returns the string under that key, and throws InputError naming
// the keys that are there when it is absent or no string, FormatError when it is there twice.
std::string ParseRecord(std::string_view record, const std::string* field, int max_depth,
                        const std::string& where);

}  // namespace tern::data
