// See log.h.
#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>

namespace tern {
namespace {

std::shared_ptr<spdlog::logger> MakeLogger() {
  auto logger = spdlog::stderr_color_mt("tern");
  logger->set_pattern("%^%l%$ %v");
  const char* level = std::getenv("TERN_LOG");
  logger->set_level(level == nullptr ? spdlog::level::info : spdlog::level::from_str(level));
  return logger;
}

}  // namespace

void LogMessage(LogLevel level, const std::string& message) {
  static const std::shared_ptr<spdlog::logger> logger = MakeLogger();
  switch (level) {
    case LogLevel::kDebug:
      logger->debug("{}", message);
      return;
    case LogLevel::kInfo:
      logger->info("{}", message);
      return;
    case LogLevel::kWarn:
      logger->warn("{}", message);
      return;
    case LogLevel::kError:
      logger->error("{}", message);
      return;
  }
}

}  // namespace tern
