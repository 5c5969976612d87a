// Numbers out of worked answers, as lm-evaluation-harness takes them for GSM8K (the rules of its
// filters strict-match and flexible-extract and of its comparison; facts, no code of theirs).
#pragma once

#include <string>
#include <string_view>

namespace tern::tasks {

// What stands for "no answer found"; never equal to an answer.
inline constexpr std::string_view kNoAnswer = "[invalid]";

// The number after the first "#### ".
std::string StrictAnswer(std::string_view text);
// The last number of the text, however it is put.
std::string FlexibleAnswer(std::string_view text);
// What is compared: what comes before "#### ", thousands separators, dollar signs, a full stop at
// the end and case do not count.
std::string NormalizedAnswer(std::string_view text);
// Without white space at both ends.
std::string_view Trimmed(std::string_view text);

}  // namespace tern::tasks
