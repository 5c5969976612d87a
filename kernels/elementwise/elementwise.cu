// Host launchers of the small steps between operations on a GPU.
#include "kernels/elementwise/elementwise.cuh"
#include "kernels/elementwise/elementwise_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {
namespace {

unsigned Blocks(int64_t count) {
  return static_cast<unsigned>((count + kRowThreads - 1) / kRowThreads);
}

}  // namespace

const char* LaunchAdd(float* x, const float* y, int64_t count, void* stream) {
  if (count == 0) return nullptr;
  return simt::LaunchKernel(AddKernel, {Blocks(count)}, kRowThreads, stream, x, y, count);
}

const char* LaunchOutScale(const float* gamma, float beta, int64_t m, float* out_scale,
                           void* stream) {
  if (m == 0) return nullptr;
  return simt::LaunchKernel(OutScaleKernel, {Blocks(m)}, kRowThreads, stream, gamma, beta, m,
                            out_scale);
}

const char* LaunchAddBias(float* x, const float* bias, int64_t m, int64_t n, void* stream) {
  const int64_t count = m * n;
  return simt::LaunchKernel(AddBiasKernel, {Blocks(count)}, kRowThreads, stream, x, bias, count,
                            static_cast<int>(n));
}

const char* LaunchScaleRows(const ScaleRowsArgs& args, void* stream) {
  const simt::Grid grid{Blocks(args.n), static_cast<unsigned>(args.m)};
  return simt::LaunchKernel(ScaleRowsKernel, grid, kRowThreads, stream, args);
}

const char* LaunchRoundRows(const RoundRowsArgs& args, void* stream) {
  const simt::Grid grid{static_cast<unsigned>(args.m)};
  return simt::LaunchKernel(args.bf16 ? RoundRowsKernel<true> : RoundRowsKernel<false>, grid,
                            kRowThreads, stream, args);
}

}  // namespace tern::kernels
