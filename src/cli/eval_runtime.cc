// See eval_runtime.h.
#include "cli/eval_runtime.h"

#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "engine/model_source.h"
#include "transfer/import.h"

namespace tern::cli {
namespace {

// Of the memory of a machine: a model, its reference, and a third for what they compute.
constexpr int64_t kMemoryParts = 3;

int64_t MachineMemoryBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

}  // namespace

bool FitsInFp32(int64_t parameters, int64_t memory_bytes) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(float));
  return parameters <= memory_bytes / kMemoryParts / kBytes;
}

bool RunsInLibtorch(const std::string& runtime, const std::string& path,
                    const engine_cli::EvalModelOptions& options, engine_cli::EvalWork work) {
  const bool checkpoint = transfer::IsCheckpoint(path);
  if (checkpoint && runtime == "engine")
    throw UsageError(StrCat(path,
                            " is a checkpoint, which the engine does not run; export it "
                            "first, or leave out --runtime engine"));
  if (checkpoint || runtime != "auto") return checkpoint || runtime == "libtorch";
  if (work != engine_cli::EvalWork::kWindows || options.engine_only) return false;
  const auto source = engine::OpenModel(path);
  if (!source->config().attention_windows.empty())
    return false;  // Only the engine's context is whole
  const bool integers = source->config().linear == LinearKind::kBitLinear &&
                        source->activation() == engine::ActivationRule::kInt8Token;
  if (integers) return false;
  const bool fits = FitsInFp32(CountParameters(source->config()), MachineMemoryBytes());
  if (!fits)
    LogInfo(path,
            ": too large in fp32 for this machine, so the engine runs it; --runtime libtorch "
            "tries all the same");
  return fits;
}

}  // namespace tern::cli
