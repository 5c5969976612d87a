// Picks the version of CodeGemm and cuts the rows for the threads.
#include "kernels/code_gemm/code_gemm.h"

#include <algorithm>

#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/common/versions.h"

namespace tern::kernels {
namespace {

constexpr int64_t kUnitRows = 4;
constexpr int64_t kGrainMacs = 60'000;  // About 2 us on one thread; less does not pay for a wake-up

}  // namespace

void QuantizeInt16(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out) {
  return TERN_ACTIVE(QuantizeInt16)(x, m, k, ldx, out);
}

void CodeGemm(const CodeGemmArgs& args, const ParallelFor& parallel) {
  if (args.m <= 0 || args.n <= 0) return;
  const auto rows = TERN_ACTIVE_VNNI(CodeGemm);
  const int64_t unit_macs = std::max<int64_t>(kUnitRows * args.k * args.m, 1);
  parallel((args.n + kUnitRows - 1) / kUnitRows, kGrainMacs / unit_macs + 1,
           [&](int64_t begin, int64_t end) {
             rows(args, begin * kUnitRows, std::min(end * kUnitRows, args.n));
           });
}

}  // namespace tern::kernels
