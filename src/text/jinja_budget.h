// What one render of a template may use, so that a template that loops or grows ends with an error
// within about a second. Whatever takes time that depends on a template's values charges it here:
// steps for what is done once an item, bytes for what is done once a byte. The charges are upper
// bounds by measurement on one core of 2.5 GHz, not exact.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/jinja_value.h"

namespace tern::text::jinja {

struct Limits {
  int64_t steps = 5'000'000;         // Of some 100 ns and at most some 100 bytes of memory each
  int64_t bytes = int64_t{1} << 27;  // Of all texts that are made; some 4 ns each
};

class Budget {
 public:
  explicit Budget(Limits limits = {}) : limits_(limits) {}

  // Throw TemplateError (a limit) when there is no more. Negative counts are 0.
  void Step(int64_t count = 1);
  void Bytes(size_t count);
  // MakeString with its bytes counted.
  Value Text(std::string text);
  // MakeList with an item counted as a step.
  Value NewList(std::vector<Value> items, bool tuple = false);

  // Filters that call filters: each nests one deeper. Throws TemplateError beyond 50.
  class Nested {
   public:
    explicit Nested(Budget* budget);
    ~Nested() { --budget_->nested_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Budget* budget_;
  };

 private:
  Limits limits_;
  int64_t steps_ = 0, bytes_ = 0;
  int nested_ = 0;
};

}  // namespace tern::text::jinja
