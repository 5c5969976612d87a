// The exit code of each error type is part of the command line's contract, and messages join all
// their parts.
#include "base/error.h"

#include <gtest/gtest.h>

#include <string>

namespace tern {
namespace {

template <class E>
int CodeOf() {
  return static_cast<int>(E("message").code());
}

TEST(ErrorTest, TypesDecideTheExitCode) {
  EXPECT_EQ(CodeOf<BugError>(), 1);
  EXPECT_EQ(CodeOf<UsageError>(), 2);
  EXPECT_EQ(CodeOf<RecipeError>(), 2);
  EXPECT_EQ(CodeOf<InputError>(), 3);
  EXPECT_EQ(CodeOf<FormatError>(), 3);
  EXPECT_EQ(CodeOf<NumericError>(), 4);
  EXPECT_EQ(CodeOf<ResourceError>(), 5);
  EXPECT_EQ(CodeOf<StoppedError>(), 75);
  EXPECT_EQ(static_cast<int>(ExitCode::kOk), 0);
}

TEST(ErrorTest, StrCatJoinsValues) {
  EXPECT_EQ(StrCat("row ", 3, " of ", int64_t{9'000'000'000}, ", ", 0.5),
            "row 3 of 9000000000, 0.5");
}

TEST(ErrorTest, CheckNamesItsPlaceAndConditionAndValues) {
  const int found = 3;
  try {
    TERN_CHECK(found == 4, "found ", found);
    FAIL() << "no throw";
  } catch (const BugError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("error_test.cc"), std::string::npos) << message;
    EXPECT_NE(message.find("found == 4"), std::string::npos) << message;
    EXPECT_NE(message.find("found 3"), std::string::npos) << message;
  }
}

TEST(ErrorTest, ChecksOfInputThrowTheirTypesAndEvaluateOnce) {
  EXPECT_THROW(TERN_CHECK_INPUT(false, "x"), InputError);
  EXPECT_THROW(TERN_CHECK_FORMAT(false, "x"), FormatError);
  int evaluations = 0;
  TERN_CHECK(++evaluations > 0, "side effect");
  EXPECT_EQ(evaluations, 1);
}

}  // namespace
}  // namespace tern
