// The scalar oracle of FloatGemm.
#include <cmath>
#include <vector>

#include "kernels/common/columns.h"
#include "kernels/common/lanes.h"
#include "kernels/float_gemm/float_gemm_impl.h"

namespace tern::kernels {

void FloatGemmRef(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* /*buffer*/) {
  std::vector<float> row(static_cast<size_t>(args.k));
  for (int64_t n = n_begin; n < n_end; ++n) {
    args.decode_row(n, row.data());
    const int64_t column = ColumnOf(n, args.paired_head_dim);
    for (int64_t m = 0; m < args.m; ++m) {
      float lanes[kLanes] = {};
      for (int64_t i = 0; i < args.k; ++i) {
        lanes[i % kLanes] =
            std::fma(row[static_cast<size_t>(i)], args.x[m * args.ldx + i], lanes[i % kLanes]);
      }
      args.y[m * args.ldy + column] = JoinLanes(lanes);
    }
  }
}

}  // namespace tern::kernels
