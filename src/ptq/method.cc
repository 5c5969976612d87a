// See method.h.
#include "ptq/method.h"

#include "base/error.h"

namespace tern::ptq {
namespace {

struct MethodEntry {
  const char* name;
  bool needs_calibration;
  const char* integers_only;  // Null, or why
};
constexpr MethodEntry kMethods[] = {
    {"rtn", false, nullptr},
    {"hqq", false, "it fits the step between codes, and those of floats are not all alike"},
    {"gptq", true, nullptr},
};

void CheckCalibration(const Scheme& scheme, const MethodEntry& method,
                      const QuantizeOptions& options) {
  if (!options.calibration.empty()) return;
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

void CheckMethod(const Scheme& scheme, const QuantizeOptions& options) {
  for (const MethodEntry& method : kMethods) {
    if (options.method != method.name) continue;
    CheckCalibration(scheme, method, options);
    if (method.integers_only != nullptr && scheme.weights.element != quant::Element::kInt) {
      throw UsageError(StrCat("--method ", method.name, " with --to ", scheme.name, ": ",
                              method.integers_only, "; want a format of integers, or --method rtn",
                              options.calibration.empty() ? "" : " or gptq"));
    }
    return;
  }
  throw UsageError(StrCat("--method ", options.method, "; want one of ", MethodNames()));
}

}  // namespace tern::ptq
