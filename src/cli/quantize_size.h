// The options of tern quantize that choose types for a size, and how the choice is shown.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "ptq/gguf_budget.h"

namespace tern::cli {

// --to-size and --to-bits, into `target`.
void AddSizeOptions(CLI::App* command, const std::shared_ptr<ptq::SizeTarget>& target);

// "3.2GiB", "90 MiB", "500MB", "1000000": bytes. Throws UsageError.
int64_t ParseSize(const std::string& text);

// The front as a table, the types and how many matrices have each.
std::string DescribePlan(const ptq::GgufPlan& plan);
nlohmann::json PlanJson(const ptq::GgufPlan& plan);

}  // namespace tern::cli
