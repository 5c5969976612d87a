// See progress.h.
#include "base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace tern {
namespace {

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class... Args>
std::string Printf(const char* format, Args... args) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, args...);
  return text.data();
}

// Three significant digits of a value in [0, 1000).
std::string ThreeDigits(double value) {
  if (value < 9.995) return Printf("%.2f", value);
  return value < 99.95 ? Printf("%.1f", value) : Printf("%.0f", value);
}

// Scales by `base` until the value shows as less than `base`; units[0] is the unit without a
// prefix.
template <size_t N>
std::string Scaled(double value, double base, const std::array<const char*, N>& units) {
  size_t i = 0;
  while (i + 1 < N && value >= base - 0.5) {
    value /= base;
    ++i;
  }
  const std::string digits =
      i == 0 && value == std::floor(value) ? Printf("%.0f", value) : ThreeDigits(value);
  return *units[i] == '\0' ? digits : StrCat(digits, " ", units[i]);
}

}  // namespace

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.95) return Printf("%.1f s", seconds);
  if (seconds >= 1e12) return "?";
  const auto s = static_cast<long long>(std::llround(seconds));
  if (s < 60) return Printf("%lld s", s);
  if (s < 3600) return Printf("%lld min %02lld s", s / 60, s % 60);
  const long long minutes = (s + 30) / 60;
  if (minutes < 24 * 60) return Printf("%lld h %02lld min", minutes / 60, minutes % 60);
  const long long hours = (minutes + 30) / 60;
  return Printf("%lld d %02lld h", hours / 24, hours % 24);
}

std::string FormatSi(double value) {
  if (!std::isfinite(value)) return "?";
  if (value < 0) return StrCat("-", FormatSi(-value));
  if (value > 0 && value < 1) return Printf("%.3g", value);
  return Scaled(value, 1000.0, std::array<const char*, 7>{"", "k", "M", "G", "T", "P", "E"});
}

std::string FormatFixed(double value, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << value;
  return out.str();
}

std::string FormatBytes(double size_bytes) {
  if (!std::isfinite(size_bytes) || size_bytes < 0) return "?";
  return Scaled(size_bytes, 1024.0,
                std::array<const char*, 6>{"B", "KiB", "MiB", "GiB", "TiB", "PiB"});
}

ProgressLine::ProgressLine(std::string label, std::string unit, Options options)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      options_(std::move(options)),
      done_(options_.start) {
  if (options_.out == nullptr) options_.out = stderr;
  if (!options_.terminal) options_.terminal = ::isatty(::fileno(options_.out)) == 1;
  if (!options_.now_s) options_.now_s = SteadySeconds;
  begin_s_ = options_.now_s();
  next_s_ =
      begin_s_ + (*options_.terminal ? options_.first_after_s
                                     : std::max(options_.first_after_s, options_.plain_every_s));
}

ProgressLine::~ProgressLine() {
  if (shown_ && !finished_ && *options_.terminal) std::fputc('\n', options_.out);
}

std::string ProgressLine::Line(double now_s, std::string_view note) const {
  const double elapsed_s = now_s - begin_s_;
  const double rate = elapsed_s > 0 ? static_cast<double>(done_ - options_.start) / elapsed_s : 0.0;
  std::string line = StrCat(label_, ": ");
  if (options_.total > 0) {
    const auto total = static_cast<double>(options_.total), done = static_cast<double>(done_);
    // Rounded down: 100 % is shown when all is done, not before.
    line += StrCat(FormatSi(done), " of ", FormatSi(total), " ", unit_, " (",
                   static_cast<int>(std::min(100.0, std::floor(100.0 * done / total))), " %)");
  } else {
    line += StrCat(FormatSi(static_cast<double>(done_)), " ", unit_);
  }
  line += StrCat(", ", FormatSi(rate), " ", unit_, "/s");
  if (options_.total > done_ && rate > 0) {
    line +=
        StrCat(", ", FormatDuration(static_cast<double>(options_.total - done_) / rate), " left");
  }
  if (options_.total > 0 && done_ >= options_.total)
    line += StrCat(", took ", FormatDuration(elapsed_s));
  if (!note.empty()) line += StrCat(", ", note);
  return line;
}

void ProgressLine::Show(double now_s, std::string_view note) {
  const std::string line = Line(now_s, note);
  // "\r" and "erase to the end of the line" (ECMA-48 EL) redraw in place.
  std::fprintf(options_.out, *options_.terminal ? "\r%s\033[K" : "%s\n", line.c_str());
  std::fflush(options_.out);
  shown_ = true;
}

void ProgressLine::Update(int64_t done, std::string_view note) {
  done_ = done;
  if (finished_) return;
  const double now_s = options_.now_s();
  if (now_s < next_s_) return;
  Show(now_s, note);
  next_s_ = now_s + (*options_.terminal ? options_.live_every_s : options_.plain_every_s);
}

void ProgressLine::Finish(std::string_view note) {
  if (finished_) return;
  finished_ = true;
  if (!shown_) return;
  Show(options_.now_s(), note);
  if (*options_.terminal) std::fputc('\n', options_.out);
}

}  // namespace tern
