// What an evaluation says: a table for people and a JSON document with every number
// (docs/tasks.md).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tasks/compare.h"
#include "tasks/evaluate.h"

namespace tern::tasks {

struct Report {
  std::string model, model_sha256;
  std::string reference, reference_sha256;  // Empty: there is none
  // Of what ran on the engine: --activations and --cache; empty when nothing did.
  std::string activations, cache;
  uint64_t seed = 0;
  std::vector<TaskResult> results, reference_results;
  std::optional<Divergence> divergence;
  std::optional<Comparison> comparison;
};

std::string TableOf(const Report& report);
// One document, indented, with a line end. Numbers come back as they are; a number that is not
// finite is null.
std::string JsonOf(const Report& report);

}  // namespace tern::tasks
