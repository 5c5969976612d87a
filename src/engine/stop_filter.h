// Ends a streamed text before the first of some stop strings, wherever token borders fall: text
// that may be the beginning of one is held back until more of it is there. The result is the same
// however the text is cut into pieces: as if it came byte by byte, and ended with the first byte
// that completes a stop string (of several, the longest).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tern::engine {

class StopFilter {
 public:
  // Throws UsageError for a stop string that is empty or no UTF-8.
  explicit StopFilter(std::vector<std::string> stops);

  // Text that is certainly before any stop string, maybe none. REQUIRES: UTF-8, whole characters;
  // then the results are so, too. Nothing comes any more once stopped().
  std::string Push(std::string_view text);
  // What is held back, when the text ends without a stop string.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tern::engine
