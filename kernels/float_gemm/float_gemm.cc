// Picks the version of FloatGemm and cuts the rows for the threads.
#include "kernels/float_gemm/float_gemm.h"

#include <algorithm>

#include "kernels/common/thread_buffer.h"
#include "kernels/common/versions.h"
#include "kernels/float_gemm/float_gemm_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainMacs = 40'000;  // About 2 us on one thread; less does not pay for a wake-up

}  // namespace

void FloatGemm(const FloatGemmArgs& args, const ParallelFor& parallel) {
  if (args.m <= 0 || args.n <= 0) return;
  const auto rows = TERN_ACTIVE(FloatGemm);
  const int64_t unit_macs = std::max<int64_t>(kPanelRows * args.k * args.m, 1);
  // A panel of rows, and the scales of one
  const int64_t buffer_bytes = std::max<int64_t>((kPanelRows + 1) * PanelStride(args.k), 1) * 4;
  parallel((args.n + kPanelRows - 1) / kPanelRows, kGrainMacs / unit_macs + 1,
           [&](int64_t begin, int64_t end) {
             rows(args, begin * kPanelRows, std::min(end * kPanelRows, args.n),
                  reinterpret_cast<float*>(ThreadBuffer(buffer_bytes)));
           });
}

}  // namespace tern::kernels
