// See token_ids.h. Streams would not do: a number beyond int32 at the end of the text sets their
// end-of-file flag too, and would be dropped without a word.
#include "engine_cli/token_ids.h"

#include <charconv>

#include "base/error.h"

namespace tern::engine_cli {

std::vector<int32_t> ParseTokenIds(std::string_view text, const std::string& name) {
  constexpr std::string_view kSpace = " \t\r\n";
  std::vector<int32_t> ids;
  for (size_t begin = text.find_first_not_of(kSpace); begin != std::string_view::npos;
       begin = text.find_first_not_of(kSpace, begin)) {
    const std::string_view word = text.substr(begin, text.find_first_of(kSpace, begin) - begin);
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    TERN_CHECK_INPUT(error == std::errc() && end == word.data() + word.size(), name, ": after ",
                     ids.size(), " token ids comes \"", word.substr(0, 40),
                     "\", which is no number that a token can have");
    ids.push_back(id);
    begin += word.size();
  }
  return ids;
}

}  // namespace tern::engine_cli
