// See metrics.h.
#include "serve/metrics.h"

#include <cstdio>

#include "base/error.h"

namespace tern::serve {
namespace {

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

void Head(const char* name, const char* type, const char* help, std::string* out) {
  *out += StrCat("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
}

void Value(const char* name, const char* type, const char* help, int64_t value, std::string* out) {
  Head(name, type, help, out);
  *out += StrCat(name, " ", value, "\n");
}

}  // namespace

void Histogram::Add(double value) {
  size_t bucket = 0;
  while (bucket < bounds_.size() && value > bounds_[bucket]) ++bucket;
  ++counts_[bucket];
  sum_ += value;
}

void Histogram::Render(const std::string& name, const std::string& help, std::string* out) const {
  Head(name.c_str(), "histogram", help.c_str(), out);
  int64_t below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    *out += StrCat(name, "_bucket{le=\"", i < bounds_.size() ? Number(bounds_[i]) : "+Inf", "\"} ",
                   below, "\n");
  }
  *out += StrCat(name, "_sum ", Number(sum_), "\n", name, "_count ", below, "\n");
}

Metrics::Metrics()
    : request_seconds_({0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300}),
      first_token_seconds_({0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100}),
      token_seconds_({0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 3}) {}

void Metrics::CountRequest(const std::string& route, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++requests_[{route, status}];
  request_seconds_.Add(seconds);
}

void Metrics::CountPromptTokens(int64_t count) {
  const std::lock_guard lock(mutex_);
  prompt_tokens_ += count;
}

void Metrics::CountReusedTokens(int64_t count) {
  const std::lock_guard lock(mutex_);
  reused_tokens_ += count;
}

void Metrics::CountNewToken(bool first, double seconds) {
  const std::lock_guard lock(mutex_);
  ++new_tokens_;
  (first ? first_token_seconds_ : token_seconds_).Add(seconds);
}

void Metrics::CountStep(int64_t rows) {
  const std::lock_guard lock(mutex_);
  ++steps_;
  rows_ += rows;
}

void Metrics::CountCancelled() {
  const std::lock_guard lock(mutex_);
  ++cancelled_;
}

void Metrics::CountPreempted() {
  const std::lock_guard lock(mutex_);
  ++preempted_;
}

std::string Metrics::Render(const Gauges& gauges) const {
  const std::lock_guard lock(mutex_);
  std::string out;
  Head("tern_http_requests_total", "counter", "HTTP requests by route and status", &out);
  for (const auto& [key, count] : requests_) {
    out += StrCat("tern_http_requests_total{route=\"", key.first, "\",code=\"", key.second, "\"} ",
                  count, "\n");
  }
  const auto counter = [&](const char* name, const char* help, int64_t value) {
    Value(name, "counter", help, value, &out);
  };
  const auto gauge = [&](const char* name, const char* help, int64_t value) {
    Value(name, "gauge", help, value, &out);
  };
  counter("tern_prompt_tokens_total", "Prompt tokens of finished prefills", prompt_tokens_);
  counter("tern_reused_tokens_total", "Tokens that began a sequence and were in the cache already",
          reused_tokens_);
  counter("tern_generated_tokens_total", "New tokens", new_tokens_);
  counter("tern_steps_total", "Passes through the model", steps_);
  counter("tern_step_rows_total", "Tokens run in all passes", rows_);
  counter("tern_cancelled_total", "Requests that ended before they were done", cancelled_);
  counter("tern_preempted_total", "Sequences that gave their pages to an older one", preempted_);
  gauge("tern_sequences_waiting", "Sequences in the queue", gauges.waiting);
  gauge("tern_sequences_running", "Sequences in the batch", gauges.running);
  gauge("tern_connections", "Open connections", gauges.connections);
  gauge("tern_kv_pages", "Pages of the key-value cache", gauges.kv_pages);
  gauge("tern_kv_pages_used", "Pages of running sequences", gauges.kv_pages_used);
  gauge("tern_kv_pages_kept", "Pages of ended sequences, free for whatever needs them",
        gauges.kv_pages_kept);
  request_seconds_.Render("tern_request_seconds", "From the request's head to the answer's end",
                          &out);
  first_token_seconds_.Render("tern_first_token_seconds", "From the request to its first token",
                              &out);
  token_seconds_.Render("tern_token_seconds", "Between tokens of a sequence", &out);
  return out;
}

}  // namespace tern::serve
