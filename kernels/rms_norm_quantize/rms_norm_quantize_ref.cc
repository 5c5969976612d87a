// Scalar oracle: the oracle of RMSNorm, then the oracle of the quantizer, row by row.
#include <vector>

#include "kernels/absmax_quantize/absmax_quantize_impl.h"
#include "kernels/rms_norm/rms_norm_impl.h"
#include "kernels/rms_norm_quantize/rms_norm_quantize_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

void RmsNormQuantizeRef(const RmsNormQuantizeArgs& args) {
  std::vector<float> y(static_cast<size_t>(args.d));
  for (int64_t row = 0; row < args.m; ++row) {
    RmsNormForwardRef(args.x + row * args.d, args.g, 0, 1, args.d, args.eps, y.data(),
                      args.inv_rms + row);
    AbsmaxQuantizeRowRef(y.data(), args.d, T2PaddedK(args.d), args.q + row * args.ldq,
                         args.gamma + row, args.sum + row);
  }
}

}  // namespace tern::kernels
