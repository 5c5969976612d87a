// See linear.h.
#include "engine/linear.h"

#include <array>

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

DenseMatrix Expand(const TernaryMatrix& w) {
  DenseMatrix dense{std::vector<float>(static_cast<size_t>(w.n * w.k)), w.n, w.k};
  kernels::DequantizeT2(w.t2.data(), 0, w.n, w.k, w.scale, dense.values.data(), w.k);
  return dense;
}

int64_t Inputs(const LinearMatrix& w) {
  return std::visit([](const auto& matrix) { return matrix.k; }, w);
}

}  // namespace

std::vector<float> MultiplyDense(const float* x, int64_t m, const DenseMatrix& w,
                                 const ParallelFor& parallel) {
  std::vector<float> y(static_cast<size_t>(m * w.n));
  parallel(w.n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t i = 0; i < m; ++i) {
        y[static_cast<size_t>(i * w.n + n)] = Dot(x + i * w.k, w.values.data() + n * w.k, w.k);
      }
    }
  });
  return y;
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
    if (const auto* dense = std::get_if<DenseMatrix>(matrix)) {
      outputs.push_back(MultiplyDense(x.data(), m, *dense, parallel));
      continue;
    }
    const auto& ternary = std::get<TernaryMatrix>(*matrix);
    if (rule == ActivationRule::kNone) {
      outputs.push_back(MultiplyDense(x.data(), m, Expand(ternary), parallel));
      continue;
    }
    if (!quantized) quantized = Quantize(x, m, k);
    outputs.push_back(MultiplyInt8(*quantized, m, ternary, parallel));
  }
  return outputs;
}

}  // namespace tern::engine
