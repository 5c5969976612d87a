// Stop strings in a stream: every cut of the text gives the result of the whole text, byte by byte.
#include "engine/stop_filter.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/utf8.h"

namespace tern::testing {
namespace {

using engine::StopFilter;

// The result by definition: the text up to each byte, until a stop string ends there.
std::string Want(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

// In pieces of whole characters, cut where the bits of `cuts` say.
std::string Found(const std::string& text, const std::vector<std::string>& stops, uint64_t cuts) {
  StopFilter filter(stops);
  std::string out, piece;
  const auto push = [&] {
    const std::string part = filter.Push(piece);
    EXPECT_EQ(FirstInvalidUtf8(part), std::nullopt);
    out += part;
    piece.clear();
  };
  for (size_t at = 0; at < text.size(); ++at) {
    if (CharacterBorder(text, at) == at && (cuts >> (at % 64) & 1)) push();
    piece += text[at];
  }
  push();
  return out + filter.Finish();
}

TEST(StopFilterTest, EveryCutGivesTheSame) {
  const std::vector<std::vector<std::string>> lists = {{},
                                                       {"a"},
                                                       {"abc"},
                                                       {"aab"},
                                                       {"abab", "b"},
                                                       {"b", "ab"},
                                                       {"bab", "abaa"},
                                                       {"\u00e9a", "\u00e9\u00e9"},
                                                       {"zzz"},
                                                       {"aaaa", "aa"},
                                                       {"abc", "bc"}};
  for (const std::string text : {"", "a", "ababab", "aaab", "xaabaabaaz",
                                 "\u00e8\u00e9\u00e9a\u00e9", "zz", "ab\u00e9aabc"}) {
    for (const auto& stops : lists) {
      for (uint64_t cuts = 0; cuts < 4096; cuts += 5)
        ASSERT_EQ(Found(text, stops, cuts), Want(text, stops)) << text << " " << cuts;
    }
  }
}

TEST(StopFilterTest, TextComesAsSoonAsItCan) {
  StopFilter filter({"abc"});
  EXPECT_EQ(filter.Push("xa"), "x");
  EXPECT_EQ(filter.Push("b"), "");
  EXPECT_EQ(filter.Push("x"), "abx");
  EXPECT_FALSE(filter.stopped());
  EXPECT_EQ(filter.Push("yabcz"), "y");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.Push("more"), "");
  EXPECT_EQ(filter.Finish(), "");
}

TEST(StopFilterTest, StopStringsThatAreNoneAreRefused) {
  EXPECT_THROW(StopFilter({"a", ""}), UsageError);
  EXPECT_THROW(StopFilter({"\xC3"}), UsageError);
}

}  // namespace
}  // namespace tern::testing
