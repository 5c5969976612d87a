// The scalar oracle of Code8Gemm: blocks taken apart by TakeApart (kernels/code_gemm).
#include <cmath>

#include "kernels/code8_gemm/code8_gemm_impl.h"
#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/code_gemm/split_codes.h"
#include "kernels/common/columns.h"

namespace tern::kernels {
namespace {

float Dot(const uint8_t* row, const Code8GemmArgs& args, int64_t m) {
  const int64_t blocks = Int8Blocks(args.k), size = SplitRun(args.type);
  const int32_t zero = ZeroOf(args.type);
  float lanes[16] = {};
  for (int64_t b = 0; b < blocks; ++b, row += BytesOf256(args.type)) {
    const Int8Block& x = args.x[m * blocks + b];
    const int64_t left = (args.k - b * kTokenBlock) / 32;
    const CodeParts parts = TakeApart(args.type, row, left < 8 ? left : 8, 1.0f);
    for (int64_t g = 0; g < kTokenBlock / size; ++g) {
      float* lane = lanes + (size == 16 ? LaneOf16(g) : g);
      const float s = parts.s[g * size / 16], t = parts.t[g * size / 16];
      const float scaled_sum = size == 16 ? x.scaled_sum16[LaneOf16(g)] : x.scaled_sum[g];
      int32_t sum = 0;
      for (int64_t i = g * size; i < (g + 1) * size; ++i)
        sum += (parts.code[i] - zero) * x.natural[i];
      if (zero == 0) *lane = std::fma(t, scaled_sum, *lane);
      *lane = std::fma(s * x.scale[g * size / 32], static_cast<float>(sum), *lane);
    }
  }
  for (int64_t half = 128 / size; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0];
}

void QuantizeBlock(const float* p, int64_t count, Int8Block* out) {
  *out = {};
  for (int64_t j = 0; 32 * j < count; ++j) {
    const int64_t end = count < 32 * j + 32 ? count : 32 * j + 32;
    float amax = 0;
    for (int64_t i = 32 * j; i < end; ++i) amax = std::fmax(amax, std::fabs(p[i]));
    if (amax < kSmallestAmax) continue;
    const float factor = kInt8Limit / amax;
    out->scale[j] = amax / kInt8Limit;
    for (int64_t i = 32 * j; i < end; ++i) {
      const auto q = static_cast<int8_t>(std::nearbyint(p[i] * factor));
      out->natural[i] = out->paired[PairedPlace(j, i % 32 / 16, i % 16)] = q;
      out->sum[j] += static_cast<float>(q);
      out->sum16[LaneOf16(i / 16)] += static_cast<float>(q);
    }
    out->scaled_sum[j] = out->scale[j] * out->sum[j];
    for (int64_t g = 2 * j; g < 2 * j + 2; ++g) {
      out->scale16[LaneOf16(g)] = out->scale[j];
      out->scaled_sum16[LaneOf16(g)] = out->scale[j] * out->sum16[LaneOf16(g)];
    }
  }
}

}  // namespace

void Code8GemmRef(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end) {
  for (int64_t n = n_begin; n < n_end; ++n) {
    for (int64_t m = 0; m < args.m; ++m) {
      args.y[m * args.ldy + ColumnOf(n, args.paired_head_dim)] =
          Dot(args.w + n * args.row_bytes, args, m);
    }
  }
}

void QuantizeInt8Ref(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out) {
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t begin = 0; begin < k; begin += kTokenBlock, ++out)
      QuantizeBlock(x + row * ldx + begin, k - begin < kTokenBlock ? k - begin : kTokenBlock, out);
  }
}

}  // namespace tern::kernels
