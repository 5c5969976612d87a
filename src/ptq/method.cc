// See method.h.
#include "ptq/method.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"

namespace tern::ptq {
namespace {

struct MethodEntry {
  const char* name;
  bool needs_calibration, trains;
  const char* integers_only;  // Null, or why
};
constexpr MethodEntry kMethods[] = {
    {"rtn", false, false, nullptr},
    {"hqq", false, false, "it fits the step between codes, and those of floats are not all alike"},
    {"gptq", true, false, nullptr},
    {"autoround", true, true, "it learns which of two neighbouring codes a weight gets"},
    {"block_ap", true, true, "it learns the step between codes, and those of floats are not alike"},
};

void CheckSteps(const Scheme& scheme, const QuantizeOptions& options) {
  TERN_CHECK_INPUT(options.layer_steps >= 0 && options.scale_steps >= 0, "--steps ",
                   options.layer_steps, " and --scale-steps ", options.scale_steps,
                   "; want 0 or more");
  const std::string method = MethodOf(options);
  if (!MethodTrains(method) && options.layer_steps > 0) {
    throw UsageError(StrCat("--steps are those of --method autoround and block_ap, not of ", method,
                            "; --scale-steps train the scales behind any method"));
  }
  if (method != "block_ap" && options.block_ap != recipe::BlockApSettings{}) {
    throw UsageError(StrCat("--weight-lr and --scale-lr are those of --method block_ap, not of ",
                            method, "; leave them out"));
  }
  if (!MethodTrains(method) && options.scale_steps == 0 && options.batch != 1) {
    throw UsageError(StrCat("--batch is that of --method autoround and block_ap and of ",
                            "--scale-steps; leave it out"));
  }
  if (options.scale_steps == 0) return;
  if (!options.HasCalibration())
    throw UsageError("--scale-steps needs --calibration, a text of the kind the model will read");
  if (scheme.weights.element != quant::Element::kInt) {
    throw UsageError(StrCat("--scale-steps with --to ", scheme.name,
                            ": it trains the scales of integer codes; leave it out"));
  }
}

void CheckCalibration(const Scheme& scheme, const MethodEntry& method,
                      const QuantizeOptions& options) {
  if (options.HasCalibration()) return;
  if (method.needs_calibration) {
    throw UsageError(StrCat("--method ", method.name,
                            " needs --calibration, a text of the kind the model will read"));
  }
  if (options.channel_scales) throw UsageError("--channel-scales needs --calibration");
  if (scheme.static_activations) {
    throw UsageError(
        StrCat("--to ", scheme.name,
               " needs --calibration, for the scales of the inputs; fp8 does without"));
  }
}

}  // namespace

std::string MethodNames() {
  std::string names;
  for (const MethodEntry& entry : kMethods) names += StrCat(names.empty() ? "" : ", ", entry.name);
  return names;
}

bool MethodTrains(const std::string& method) {
  return std::any_of(std::begin(kMethods), std::end(kMethods), [&](const MethodEntry& entry) {
    return method == entry.name && entry.trains;
  });
}

std::string MethodOf(const QuantizeOptions& options) {
  if (!options.method.empty()) return options.method;
  return options.HasCalibration() ? "gptq" : "rtn";
}

void CheckMethod(const Scheme& scheme, const QuantizeOptions& options) {
  const std::string name = MethodOf(options);
  for (const MethodEntry& method : kMethods) {
    if (name != method.name) continue;
    CheckCalibration(scheme, method, options);
    if (method.integers_only != nullptr && scheme.weights.element != quant::Element::kInt) {
      throw UsageError(StrCat("--method ", method.name, " with --to ", scheme.name, ": ",
                              method.integers_only, "; want a format of integers, or --method rtn",
                              options.HasCalibration() ? " or gptq" : ""));
    }
    CheckSteps(scheme, options);
    return;
  }
  throw UsageError(StrCat("--method ", name, "; want one of ", MethodNames()));
}

}  // namespace tern::ptq
