// Messages for people, on stderr; stdout is for results only. The library behind it (spdlog) stays
// in log.cc, because libtorch carries another fmt. Levels: TERN_LOG=debug|info|warn|error|off
// (default info).
#pragma once

#include <string>

#include "base/error.h"

namespace tern {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

void LogMessage(LogLevel level, const std::string& message);

template <class... Args>
void LogDebug(const Args&... args) {
  LogMessage(LogLevel::kDebug, StrCat(args...));
}
template <class... Args>
void LogInfo(const Args&... args) {
  LogMessage(LogLevel::kInfo, StrCat(args...));
}
template <class... Args>
void LogWarn(const Args&... args) {
  LogMessage(LogLevel::kWarn, StrCat(args...));
}
template <class... Args>
void LogError(const Args&... args) {
  LogMessage(LogLevel::kError, StrCat(args...));
}

}  // namespace tern
