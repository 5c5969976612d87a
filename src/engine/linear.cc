// See linear.h.
#include "engine/linear.h"

#include <algorithm>
#include <array>
#include <functional>

#include "base/error.h"
#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

constexpr int64_t kLanes =
    16;  // Partial sums of a dot product: enough for two vectors of AVX2 or one of AVX-512
constexpr int64_t kRowGrain = 64;  // Weight rows a thread takes at least

// Lane l adds elements l, l + 16, ...; lanes are added left to right. The compiler can vectorise
// this without reordering.
float Dot(const float* a, const float* b, int64_t n) {
  std::array<float, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) sums[static_cast<size_t>(l)] += a[i + l] * b[i + l];
  }
  for (int64_t l = 0; i + l < n; ++l) sums[static_cast<size_t>(l)] += a[i + l] * b[i + l];
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

// The input of BitLinear layers, quantized a token.
struct QuantizedInput {
  std::vector<int8_t> q;
  std::vector<float> gamma;
  std::vector<int32_t> sum;
  int64_t ldq;
};

QuantizedInput Quantize(const std::vector<float>& x, int64_t m, int64_t k) {
  const int64_t ldq = kernels::T2PaddedK(k);
  QuantizedInput in{std::vector<int8_t>(static_cast<size_t>(m * ldq)),
                    std::vector<float>(static_cast<size_t>(m)),
                    std::vector<int32_t>(static_cast<size_t>(m)), ldq};
  kernels::AbsmaxQuantize(x.data(), 0, m, k, k, in.q.data(), ldq, in.gamma.data(), in.sum.data());
  return in;
}

std::vector<float> MultiplyInt8(const QuantizedInput& in, int64_t m, const TernaryMatrix& w,
                                const ParallelFor& parallel) {
  std::vector<float> y(static_cast<size_t>(m * w.n)), out_scale(static_cast<size_t>(m));
  for (size_t i = 0; i < out_scale.size(); ++i) out_scale[i] = w.scale * (in.gamma[i] / 127.0f);
  kernels::TernaryGemmArgs args;
  args.w_t2 = w.t2.data();
  args.x = in.q.data();
  args.x_sum = in.sum.data();
  args.out_scale = out_scale.data();
  args.y = y.data();
  args.m = m;
  args.n = w.n;
  args.k = w.k;
  args.ldx = in.ldq;
  args.ldy = w.n;
  kernels::TernaryGemm(args, parallel);
  return y;
}

// Row n of the matrix as floats: `buffer`, which holds k of them, or memory that has them already.
using RowOf = std::function<const float*(int64_t n, float* buffer)>;

std::vector<float> MultiplyRows(const float* x, int64_t m, int64_t n, int64_t k,
                                const RowOf& row_of, const ParallelFor& parallel) {
  std::vector<float> y(static_cast<size_t>(m * n));
  parallel(n, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> buffer(static_cast<size_t>(k));
    for (int64_t row = begin; row < end; ++row) {
      const float* w = row_of(row, buffer.data());
      for (int64_t i = 0; i < m; ++i) y[static_cast<size_t>(i * n + row)] = Dot(x + i * k, w, k);
    }
  });
  return y;
}

std::vector<float> MultiplyFloats(const float* x, int64_t m, const DenseMatrix& w,
                                  const ParallelFor& parallel) {
  const auto row_of = [&](int64_t n, float*) { return w.values.data() + n * w.k; };
  return MultiplyRows(x, m, w.n, w.k, row_of, parallel);
}

std::vector<float> MultiplyFloats(const float* x, int64_t m, const BlockMatrix& w,
                                  const ParallelFor& parallel) {
  const auto row_of = [&](int64_t n, float* buffer) {
    w.Decode(n, buffer);
    return buffer;
  };
  return MultiplyRows(x, m, w.n, w.k, row_of, parallel);
}

// Ternary weights with float activations.
std::vector<float> MultiplyFloats(const float* x, int64_t m, const TernaryMatrix& w,
                                  const ParallelFor& parallel) {
  const int64_t row_bytes = kernels::T2RowBytes(w.k);
  const auto row_of = [&](int64_t n, float* buffer) {
    kernels::DequantizeT2(w.t2.data() + n * row_bytes, 0, 1, w.k, w.scale, buffer, w.k);
    return buffer;
  };
  return MultiplyRows(x, m, w.n, w.k, row_of, parallel);
}

int64_t Inputs(const LinearMatrix& w) {
  return std::visit([](const auto& matrix) { return matrix.k; }, w);
}

}  // namespace

std::vector<float> MultiplyTable(const float* x, int64_t m, const TableMatrix& w,
                                 const ParallelFor& parallel) {
  return std::visit([&](const auto& matrix) { return MultiplyFloats(x, m, matrix, parallel); }, w);
}

void CopyRow(const TableMatrix& w, int64_t row, float* out) {
  if (const auto* blocks = std::get_if<BlockMatrix>(&w)) return blocks->Decode(row, out);
  const auto& dense = std::get<DenseMatrix>(w);
  std::copy_n(dense.values.data() + row * dense.k, dense.k, out);
}

std::vector<std::vector<float>> MultiplyAll(const std::vector<float>& x, int64_t m,
                                            const std::vector<const LinearMatrix*>& matrices,
                                            ActivationRule rule, const ParallelFor& parallel) {
  const int64_t k = Inputs(*matrices.front());
  TERN_CHECK(static_cast<int64_t>(x.size()) == m * k, x.size(), " inputs for ", m, " rows of ", k);
  std::optional<QuantizedInput> quantized;
  std::vector<std::vector<float>> outputs;
  for (const LinearMatrix* matrix : matrices) {
    TERN_CHECK(Inputs(*matrix) == k, "matrices of one group with ", k, " and ", Inputs(*matrix),
               " inputs");
    const auto* ternary = std::get_if<TernaryMatrix>(matrix);
    if (ternary == nullptr || rule == ActivationRule::kNone) {
      outputs.push_back(std::visit(
          [&](const auto& w) { return MultiplyFloats(x.data(), m, w, parallel); }, *matrix));
      continue;
    }
    if (!quantized) quantized = Quantize(x, m, k);
    outputs.push_back(MultiplyInt8(*quantized, m, *ternary, parallel));
  }
  return outputs;
}

}  // namespace tern::engine
