// The short report at the end of a run.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "job/context.h"

namespace tern::job {

// Markdown from the results of the finished stages.
std::string MakeReport(const Context& context);
// The same for machines (docs/formats/run_folder.md).
nlohmann::json ReportOf(const Context& context);

// Whether recipe.expect holds, in words; empty when nothing is expected. Throws NumericError when
// it is missed.
std::string CheckExpectations(const Context& context);

}  // namespace tern::job
