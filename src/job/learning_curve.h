// How many tokens a training would need to come near the model that it is to be like: its
// validation losses, less that model's on the same tokens, as a power law (metrics/power_law.h).
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "job/context.h"
#include "model/decoder.h"

namespace tern::job {

// Of the last training before the eval stage `eval_id`, over the tokens trained so far in the run,
// without steps that ramp up the quantization or the rate: "reference_loss", "points",
// "coefficient", "exponent", "r_squared", and "to" with tokens for perplexities of 1.5 and 1.1
// times the reference's. Null when the curve has too few points for a law, or does not fall.
// Throws StoppedError on a stop signal.
nlohmann::json LearningCurve(Context& context, const std::string& eval_id,
                             const model::Decoder& reference);

// Lines of a report: "" for null.
std::string LearningCurveLines(const nlohmann::json& curve);

}  // namespace tern::job
