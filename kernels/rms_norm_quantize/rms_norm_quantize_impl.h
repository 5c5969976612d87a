// The oracle behind rms_norm_quantize.h. For the tests only: the dispatcher composes the two
// kernels, which dispatch themselves.
#pragma once

#include "kernels/rms_norm_quantize/rms_norm_quantize.h"

namespace tern::kernels {

void RmsNormQuantizeRef(const RmsNormQuantizeArgs& args);

}  // namespace tern::kernels
