// Typed errors and checks. The type of an error decides the exit code of the command
// (docs/errors.md); the message says what was found, what was wanted, and what to do. TERN_CHECK
// guards our own invariants and is always on.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace tern {

enum class ExitCode : int {
  kOk = 0,
  kBug = 1,
  kUsage = 2,     // Wrong call or recipe.
  kInput = 3,     // Bad input file.
  kNumeric = 4,   // Diverged, parity failed, expectation missed.
  kResource = 5,  // Out of memory, disk full, device or rank lost.
  kStopped = 75,  // Stopped by a signal with everything saved: run again to go on.
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// One class an exit code (two for 2 and 3, where the way out differs).
struct UsageError : Error {
  explicit UsageError(const std::string& m) : Error(ExitCode::kUsage, m) {}
};
struct RecipeError : Error {
  explicit RecipeError(const std::string& m) : Error(ExitCode::kUsage, m) {}
};
struct InputError : Error {
  explicit InputError(const std::string& m) : Error(ExitCode::kInput, m) {}
};
struct FormatError : Error {
  explicit FormatError(const std::string& m) : Error(ExitCode::kInput, m) {}
};
struct NumericError : Error {
  explicit NumericError(const std::string& m) : Error(ExitCode::kNumeric, m) {}
};
struct ResourceError : Error {
  explicit ResourceError(const std::string& m) : Error(ExitCode::kResource, m) {}
};
struct StoppedError : Error {
  explicit StoppedError(const std::string& m) : Error(ExitCode::kStopped, m) {}
};
struct BugError : Error {
  explicit BugError(const std::string& m) : Error(ExitCode::kBug, m) {}
};

// Joins its arguments with operator<<: StrCat("row ", 3, " of ", n).
template <class... Args>
std::string StrCat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace tern

#define TERN_THROW_UNLESS_(type, prefix, condition, ...) \
  do {                                                   \
    if (!(condition)) [[unlikely]]                       \
      throw type(::tern::StrCat(prefix, __VA_ARGS__));   \
  } while (false)

// TERN_CHECK(condition, "what ", values...): a broken invariant of ours. Throws BugError with file
// and line.
#define TERN_CHECK(condition, ...)                                                                \
  TERN_THROW_UNLESS_(::tern::BugError,                                                            \
                     ::tern::StrCat(__FILE__, ":", __LINE__, ": check failed: " #condition ": "), \
                     condition, __VA_ARGS__)
// The user's input is wrong in content (InputError) or in its bytes (FormatError).
#define TERN_CHECK_INPUT(condition, ...) \
  TERN_THROW_UNLESS_(::tern::InputError, "", condition, __VA_ARGS__)
#define TERN_CHECK_FORMAT(condition, ...) \
  TERN_THROW_UNLESS_(::tern::FormatError, "", condition, __VA_ARGS__)
