// The methods of `tern quantize --method` that make folders: what each needs, and which
// combinations with other options make sense. (GGUF files have rtn and imatrix: quantize_gguf.h.)
#pragma once

#include <string>

#include "ptq/quantize_model.h"
#include "ptq/scheme.h"

namespace tern::ptq {

std::string MethodNames();  // "rtn, hqq, ..."

// True of one that trains a layer for options.layer_steps.
bool MethodTrains(const std::string& method);

// What options.method is; empty: gptq with a calibration, else rtn.
std::string MethodOf(const QuantizeOptions& options);

// Throws UsageError for a name that is none, a method without the calibration it needs or with a
// format it cannot make, and for options of another method.
void CheckMethod(const Scheme& scheme, const QuantizeOptions& options);

}  // namespace tern::ptq
