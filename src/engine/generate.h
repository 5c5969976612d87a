// Text from a model: prompt in, streamed whole UTF-8 pieces out.
#pragma once

#include <functional>
#include <string_view>

#include "engine/device_session.h"
#include "engine/engine.h"
#include "engine/generate_options.h"

namespace tern::engine {

// Runs BOS + prompt, then new tokens until one of EndReason. Stop strings are looked for in the new
// text only, and may span tokens. `on_text` gets each whole piece as soon as it cannot be part of a
// stop string. Throws InputError when the model has no tokenizer, the prompt is no UTF-8, has no
// tokens or does not fit into the context, UsageError for sampling options out of range, an empty
// stop string or a negative max_tokens, NumericError (Sampler).
GenerateResult Generate(const Engine& engine, std::string_view prompt,
                        const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text);
// The same on a device; throws UsageError for an fp32 cache, too, and ResourceError.
GenerateResult GenerateOnDevice(const DeviceModel& model, std::string_view prompt,
                                const GenerateOptions& options,
                                const std::function<void(std::string_view)>& on_text);

}  // namespace tern::engine
