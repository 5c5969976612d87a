// Counts and times of a running server, written in Prometheus' text format (version 0.0.4). Any
// thread may call anything at any time.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace tern::serve {

// Values of now, from whoever has them.
struct Gauges {
  int64_t waiting = 0, running = 0, connections = 0;
  int64_t kv_pages = 0, kv_pages_used = 0;
  int64_t kv_pages_kept = 0;  // Of texts that ended, for others that begin alike
};

class Histogram {
 public:
  // Upper bounds of the buckets, ascending; one without a bound comes after them.
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void Add(double value);
  // Appends the lines of one histogram.
  void Render(const std::string& name, const std::string& help, std::string* out) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;
  double sum_ = 0;
};

class Metrics {
 public:
  Metrics();
  // `route` must be one of few: every value is a line for ever.
  void CountRequest(const std::string& route, int status, double seconds);
  void CountPromptTokens(int64_t count);
  void CountReusedTokens(int64_t count);           // That were in the cache and were not run again
  void CountNewToken(bool first, double seconds);  // Since the request came, or the last token
  void CountStep(int64_t rows);
  void CountCancelled();
  void CountPreempted();

  std::string Render(const Gauges& gauges) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;
  int64_t prompt_tokens_ = 0, reused_tokens_ = 0, new_tokens_ = 0, steps_ = 0, rows_ = 0,
          cancelled_ = 0, preempted_ = 0;
  Histogram request_seconds_, first_token_seconds_, token_seconds_;
};

}  // namespace tern::serve
