// Picks the version of Code8Gemm and cuts the rows for the threads.
#include "kernels/code8_gemm/code8_gemm.h"

#include <algorithm>

#include "kernels/code8_gemm/code8_gemm_impl.h"
#include "kernels/common/versions.h"

namespace tern::kernels {
namespace {

constexpr int64_t kUnitRows = 4;
constexpr int64_t kGrainMacs = 60'000;  // As CodeGemm's

}  // namespace

void QuantizeInt8(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out) {
  return TERN_ACTIVE(QuantizeInt8)(x, m, k, ldx, out);
}

void Code8Gemm(const Code8GemmArgs& args, const ParallelFor& parallel) {
  if (args.m <= 0 || args.n <= 0) return;
  const auto rows = TERN_ACTIVE_VNNI(Code8Gemm);
  const int64_t unit_macs = std::max<int64_t>(kUnitRows * args.k * args.m, 1);
  parallel((args.n + kUnitRows - 1) / kUnitRows, kGrainMacs / unit_macs + 1,
           [&](int64_t begin, int64_t end) {
             rows(args, begin * kUnitRows, std::min(end * kUnitRows, args.n));
           });
}

}  // namespace tern::kernels
