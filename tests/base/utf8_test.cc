// Control characters as text; the rest of utf8.h is tested where it is used (tests/text).
#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace tern {
namespace {

TEST(Utf8Test, ControlCharactersBecomeText) {
  EXPECT_EQ(EscapeControls(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(EscapeControls("\x1B[2J\n\x7F\t~ "), "\\x1B[2J\\x0A\\x7F\\x09~ ");
  EXPECT_EQ(EscapeControls("\u0080\u009F\u00A0\u00E9"), "\\x80\\x9F\u00A0\u00E9");
  EXPECT_EQ(EscapeControls("\xC2"), "\xC2");
  EXPECT_EQ(EscapeControls(""), "");
}

}  // namespace
}  // namespace tern
