// The options of tern quantize that choose types for a size, and how the choice is shown.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "ptq/size_target.h"

namespace tern::cli {

// --to-size and --to-bits, into `settings`, which must outlive the command.
void AddSizeOptions(CLI::App* command, recipe::QuantizeSettings* settings);

// The front as a table, and as a picture (SVG).
std::string DescribeFront(const ptq::SizePlan& plan);
std::string PlotFront(const ptq::SizePlan& plan);

// The front as a table, the types and how many matrices have each.
std::string DescribePlan(const ptq::SizePlan& plan);

}  // namespace tern::cli
