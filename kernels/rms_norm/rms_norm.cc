// Cuts RMSNorm for the threads and picks the instruction set; joins the partial dg of the row
// blocks in order.
#include "kernels/rms_norm/rms_norm.h"

#include <vector>

#include "kernels/common/versions.h"
#include "kernels/rms_norm/rms_norm_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainElements =
    32768;  // Work below which waking a thread costs more than it saves.

void ForwardRows(const float* x, const float* g, int64_t begin, int64_t end, int64_t d, float eps,
                 float* y, float* inv_rms) {
  return TERN_ACTIVE(RmsNormForward)(x, g, begin, end, d, eps, y, inv_rms);
}

void BackwardRows(const float* dy, const float* x, const float* g, const float* inv_rms,
                  int64_t begin, int64_t end, int64_t d, float* dx, float* dg) {
  return TERN_ACTIVE(RmsNormBackward)(dy, x, g, inv_rms, begin, end, d, dx, dg);
}

}  // namespace

void RmsNormForward(const float* x, const float* g, int64_t m, int64_t d, float eps, float* y,
                    float* inv_rms, const ParallelFor& parallel) {
  if (m == 0 || d == 0) return;
  parallel(m, kGrainElements / d + 1,
           [&](int64_t begin, int64_t end) { ForwardRows(x, g, begin, end, d, eps, y, inv_rms); });
}

void RmsNormBackward(const float* dy, const float* x, const float* g, const float* inv_rms,
                     int64_t m, int64_t d, float* dx, float* dg, const ParallelFor& parallel) {
  if (d == 0) return;
  const int64_t blocks = (m + kRmsNormRowBlock - 1) / kRmsNormRowBlock;
  std::vector<float> partial(static_cast<size_t>(blocks * d));
  parallel(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kRmsNormRowBlock;
      const int64_t row_end = row + kRmsNormRowBlock < m ? row + kRmsNormRowBlock : m;
      BackwardRows(dy, x, g, inv_rms, row, row_end, d, dx, partial.data() + block * d);
    }
  });
  for (int64_t i = 0; i < d; ++i) dg[i] = 0.0f;
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t i = 0; i < d; ++i) dg[i] += partial[static_cast<size_t>(block * d + i)];
  }
}

}  // namespace tern::kernels
