// The short report at the end of a run.
#pragma once

#include <string>

#include "job/context.h"

namespace tern::job {

// Markdown from the results of the finished stages.
std::string MakeReport(const Context& context);

// Whether recipe.expect holds, in words; empty when nothing is expected. Throws NumericError when
// it is missed.
std::string CheckExpectations(const Context& context);

}  // namespace tern::job
