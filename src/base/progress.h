// Progress of long work, for people, on stderr. On a terminal: one live line, redrawn at most 10
// times a second, with rate and time left. Elsewhere (a log file, CI): a plain line now and then,
// so that logs stay short. Work that ends within two seconds shows nothing. It knows nothing of the
// work: the caller says how far it is.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tern {

// "0.4 s", "42 s", "3 min 05 s", "2 h 07 min", "4 d 03 h". Negative or not finite: "?".
std::string FormatDuration(double seconds);
// Three digits and an SI prefix: "0", "7", "999", "1.86 k", "12.3 M", "4.00 G"; below 1: "0.125".
std::string FormatSi(double value);
// With so many digits behind the point.
std::string FormatFixed(double value, int digits);
// Bytes in binary units: "512 B", "1.50 KiB", "3.20 GiB".
std::string FormatBytes(double size_bytes);

class ProgressLine {
 public:
  struct Options {
    int64_t total = 0;  // Units of the whole work; 0: not known, no time left is shown.
    int64_t start =
        0;  // Units done before this process (a resumed run): they do not count for the rate.
    double first_after_s = 2.0;   // Nothing is shown before.
    double live_every_s = 0.1;    // On a terminal.
    double plain_every_s = 30.0;  // Elsewhere.
    // For tests; the defaults are stderr, whether it is a terminal, and the steady clock.
    std::FILE* out = nullptr;
    std::optional<bool> terminal;
    std::function<double()> now_s;
  };

  // `label` opens each line ("tokenize"); `unit` is counted ("tokens": shown as "1.86 k tokens/s").
  ProgressLine(std::string label, std::string unit, Options options);
  // Ends the live line, so that what follows starts on a line of its own.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // `done` units are done, those before `start` included; `note` is added to the line
  // ("loss 3.214"). Cheap when nothing is due. Not thread-safe.
  void Update(int64_t done, std::string_view note = {});
  // Shows the final state, if anything was ever shown. Later calls do nothing.
  void Finish(std::string_view note = {});

 private:
  std::string Line(double now_s, std::string_view note) const;
  void Show(double now_s, std::string_view note);

  std::string label_, unit_;
  Options options_;
  double begin_s_, next_s_;
  int64_t done_;
  bool shown_ = false, finished_ = false;
};

}  // namespace tern
