// See linear.h.
#include "engine/linear.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/code_gemm/code_gemm.h"
#include "kernels/float_gemm/float_gemm.h"
#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

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

using formats::GgmlType;
using kernels::CodeType;
using kernels::FloatCode;

// Types whose codes are multiplied with 16-bit activations.
std::optional<CodeType> CodeOf(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0:
      return CodeType::kQ4_0;
    case GgmlType::kQ4_1:
      return CodeType::kQ4_1;
    case GgmlType::kQ5_0:
      return CodeType::kQ5_0;
    case GgmlType::kQ5_1:
      return CodeType::kQ5_1;
    case GgmlType::kQ2_K:
      return CodeType::kQ2K;
    case GgmlType::kQ3_K:
      return CodeType::kQ3K;
    case GgmlType::kQ4_K:
      return CodeType::kQ4K;
    case GgmlType::kQ5_K:
      return CodeType::kQ5K;
    case GgmlType::kQ6_K:
      return CodeType::kQ6K;
    default:
      return std::nullopt;
  }
}

FloatCode FloatCodeOf(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return FloatCode::kF32;
    case GgmlType::kF16:
      return FloatCode::kF16;
    case GgmlType::kBf16:
      return FloatCode::kBf16;
    case GgmlType::kQ8_0:
      return FloatCode::kQ8_0;
    default:
      return FloatCode::kRows;
  }
}

std::vector<float> Run(kernels::FloatGemmArgs args, const float* x, int64_t m, int64_t n, int64_t k,
                       const ParallelFor& parallel) {
  std::vector<float> y(static_cast<size_t>(m * n));
  args.x = x;
  args.y = y.data();
  args.m = m;
  args.n = n;
  args.k = args.ldx = k;
  args.ldy = n;
  kernels::FloatGemm(args, parallel);
  return y;
}

std::vector<float> MultiplyFloats(const float* x, int64_t m, const DenseMatrix& w,
                                  const ParallelFor& parallel) {
  kernels::FloatGemmArgs args;
  args.code = FloatCode::kF32;
  args.w = reinterpret_cast<const uint8_t*>(w.values.data());
  args.row_bytes = w.k * static_cast<int64_t>(sizeof(float));
  args.decode_row = [&](int64_t n, float* out) {
    std::copy_n(w.values.data() + n * w.k, w.k, out);
  };
  return Run(std::move(args), x, m, w.n, w.k, parallel);
}

std::vector<float> MultiplyCodes(const float* x, int64_t m, const BlockMatrix& w, CodeType type,
                                 const ParallelFor& parallel) {
  std::vector<kernels::Int16Block> tokens(static_cast<size_t>(m * kernels::Int16Blocks(w.k)));
  kernels::QuantizeInt16(x, m, w.k, w.k, tokens.data());
  std::vector<float> y(static_cast<size_t>(m * w.n));
  kernels::CodeGemmArgs args;
  args.type = type;
  args.w = reinterpret_cast<const uint8_t*>(w.bytes.data());
  args.row_bytes = formats::RowBytes(w.type, w.k);
  args.paired_head_dim = w.paired_head_dim;
  args.x = tokens.data();
  args.y = y.data();
  args.m = m;
  args.n = args.ldy = w.n;
  args.k = w.k;
  kernels::CodeGemm(args, parallel);
  return y;
}

std::vector<float> MultiplyFloats(const float* x, int64_t m, const BlockMatrix& w,
                                  const ParallelFor& parallel) {
  if (const auto type = CodeOf(w.type)) return MultiplyCodes(x, m, w, *type, parallel);
  kernels::FloatGemmArgs args;
  args.code = FloatCodeOf(w.type);
  args.w = reinterpret_cast<const uint8_t*>(w.bytes.data());
  args.row_bytes = formats::RowBytes(w.type, w.k);
  args.paired_head_dim = w.paired_head_dim;
  const uint8_t* bytes = args.w;
  args.decode_row = [&w, bytes, row_bytes = args.row_bytes](int64_t n, float* out) {
    formats::DecodeRow(w.type, bytes + n * row_bytes, w.k, out);
  };
  return Run(std::move(args), x, m, w.n, w.k, parallel);
}

std::vector<float> MultiplyFloats(const float* x, int64_t m, const ScaledMatrix& w,
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
  kernels::FloatGemmArgs args;
  const int64_t row_bytes = kernels::T2RowBytes(w.k);
  args.decode_row = [&w, row_bytes](int64_t n, float* out) {
    kernels::DequantizeT2(w.t2.data() + n * row_bytes, 0, 1, w.k, w.scale, out, w.k);
  };
  return Run(std::move(args), x, m, w.n, w.k, parallel);
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
