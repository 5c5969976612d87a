// Picks the version of FloatGemm and cuts the rows for the threads.
#include "kernels/float_gemm/float_gemm.h"

#include <algorithm>

#include "kernels/common/isa.h"
#include "kernels/common/thread_buffer.h"
#include "kernels/float_gemm/float_gemm_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainMacs = 40'000;  // About 2 us on one thread; less does not pay for a wake-up

}  // namespace

void FloatGemm(const FloatGemmArgs& args, const ParallelFor& parallel) {
  if (args.m <= 0 || args.n <= 0) return;
  const Isa isa = ActiveIsa();
  const int64_t unit_macs = std::max<int64_t>(kPanelRows * args.k * args.m, 1);
  parallel((args.n + kPanelRows - 1) / kPanelRows, kGrainMacs / unit_macs + 1,
           [&](int64_t begin, int64_t end) {
             const int64_t n_begin = begin * kPanelRows, n_end = std::min(end * kPanelRows, args.n);
             if (isa == Isa::kScalar) return FloatGemmRef(args, n_begin, n_end);
             const int64_t floats = kPanelRows * PanelStride(args.k);
             auto* buffer =
                 reinterpret_cast<float*>(ThreadBuffer(std::max<int64_t>(floats, 1) * 4));
             if (isa == Isa::kAvx512) return FloatGemmAvx512(args, n_begin, n_end, buffer);
             return FloatGemmAvx2(args, n_begin, n_end, buffer);
           });
}

}  // namespace tern::kernels
