// See check_options.h.
#include "ptq/check_options.h"

#include "base/error.h"
#include "ptq/folder_budget.h"
#include "ptq/gguf_budget.h"
#include "ptq/gguf_mix.h"
#include "ptq/method.h"
#include "ptq/rotation.h"
#include "ptq/scheme.h"
#include "ptq/size_target.h"
#include "transfer/hf_export.h"

namespace tern::ptq {
namespace {

constexpr const char* kUnties =
    "--rotate unties the head from the embedding (they get other gains): ";

void CheckGgufShape(const ModelConfig& config, bool rotated) {
  const ArchChoice arch = ChooseGgufArch(config);
  if (arch.name != ArchName::kNone) return;
  ModelConfig tied = config;
  tied.tied_head = true;
  const bool by_rotation = rotated && ChooseGgufArch(tied).name != ArchName::kNone;
  throw InputError(StrCat(by_rotation ? kUnties : "", arch.reason));
}

// Of a GGUF file, of one mixture or chosen types: `what`.
void CheckGguf(const QuantizeOptions& options, const std::string& what, const ModelConfig& config) {
  if (!options.container.empty())
    throw UsageError(StrCat("--container ", options.container, " with ", what,
                            ", which is a GGUF file; leave it out"));
  if (options.channel_scales)
    throw UsageError(StrCat("--channel-scales is for compressed-tensors folders, not ", what));
  if (options.layer_steps > 0 || options.scale_steps > 0 || options.batch != 1 ||
      options.block_ap != recipe::BlockApSettings{}) {
    throw UsageError(StrCat(
        "--steps, --scale-steps, --batch, --weight-lr and --scale-lr are for folders, not ", what));
  }
  if (options.rotate && !options.imatrix.empty())
    throw UsageError("--imatrix with --rotate: the columns of a file are not the rotated model's");
  if (!options.method.empty() && options.method != "rtn" && options.method != "imatrix") {
    throw UsageError(StrCat("--method ", options.method, " with ", what,
                            "; GGUF has rtn and imatrix (the default with --calibration)"));
  }
  if (options.method == "imatrix" && !options.HasCalibration() && options.imatrix.empty())
    throw UsageError("--method imatrix wants --calibration, or --imatrix with a finished file");
  if (options.method == "rtn" && !options.imatrix.empty()) {
    throw UsageError(StrCat("--imatrix ", options.imatrix, " with --method rtn, which weighs no ",
                            "columns; leave one of them out"));
  }
  CheckGgufShape(config, options.rotate);
}

void CheckSize(const QuantizeOptions& options, const ModelConfig& config) {
  if (!options.HasCalibration())
    throw UsageError("--to-size and --to-bits need --calibration: it tells which matrices matter");
  if (options.pure) throw UsageError("--pure is one type; --to-size and --to-bits mix types");
  if (MakesGguf(options)) {
    CheckGgufTypes(options.types, config);
    return CheckGguf(options, "--to-size and --to-bits", config);
  }
  if (!options.container.empty() && options.container != "compressed-tensors") {
    throw UsageError(StrCat("--container ", options.container,
                            " holds one type; --to-size and --to-bits want compressed-tensors"));
  }
  const std::vector<Scheme> schemes = FolderCandidates(options.types, options.group, config);
  for (const Scheme& scheme : schemes) CheckMethod(scheme, options);
  transfer::HfConfigJson(config,
                         schemes.front().float_dtype());  // Refuses shapes that no class has.
}

void CheckFolder(const QuantizeOptions& options, const ModelConfig& config) {
  const Scheme scheme = SchemeByName(options.to, options.group, config, options.container);
  CheckMethod(scheme, options);
  transfer::HfConfigJson(config, scheme.float_dtype());  // Refuses shapes that no class has.
}

}  // namespace

void CheckOptions(const QuantizeOptions& options, const ModelConfig& config) {
  if (!options.memory.empty()) ParseSize(options.memory);
  try {
    if (!TargetOf(options) && !options.types.empty())
      throw UsageError("--types is of --to-size and --to-bits; --to names the type");
    const ModelConfig made = options.rotate ? ModelRotation::ConfigOf(config) : config;
    if (TargetOf(options)) {
      CheckSize(options, made);
    } else if (GgufMixByName(options.to)) {
      CheckGguf(options, "--to " + options.to, made);
    } else {
      CheckFolder(options, made);
    }
  } catch (const RecipeError& error) {
    if (!options.rotate || !config.tied_head) throw;
    throw InputError(StrCat(kUnties, error.what()));
  }
}

}  // namespace tern::ptq
