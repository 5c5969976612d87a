// See stop_filter.h.
#include "engine/stop_filter.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace tern::engine {

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw UsageError("a stop string is empty; want some text");
    if (FirstInvalidUtf8(stop)) throw UsageError("a stop string is no UTF-8");
  }
}

std::string StopFilter::Push(std::string_view text) {
  if (stopped_) return "";
  held_ += text;
  size_t end = std::string::npos, begin = 0;  // Of the match that ends first
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const size_t behind = at + stop.size();
    if (behind < end || (behind == end && at < begin)) {
      end = behind;
      begin = at;
    }
  }
  if (end != std::string::npos) {
    stopped_ = true;
    std::string out = held_.substr(0, begin);
    held_.clear();
    return out;
  }
  size_t keep = 0;  // The longest end of the text that begins a stop string
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, held_.size()); size > keep; --size) {
      if (held_.ends_with(std::string_view(stop).substr(0, size))) keep = size;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopFilter::Finish() { return std::exchange(held_, ""); }

}  // namespace tern::engine
