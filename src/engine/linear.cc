// See linear.h.
#include "engine/linear.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "engine/scratch.h"
#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/code8_gemm/code8_gemm.h"
#include "kernels/code_gemm/code_gemm.h"
#include "kernels/float_gemm/float_gemm.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rms_norm_quantize/rms_norm_quantize.h"
#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/w4a16/w4a16.h"

namespace tern::engine {
namespace {

using formats::GgmlType;
using kernels::CodeType;
using kernels::FloatCode;

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

FloatCode FloatCodeOf(ScaledCode code) {
  switch (code) {
    case ScaledCode::kInt4:
      return FloatCode::kInt4;
    case ScaledCode::kInt8:
      return FloatCode::kInt8;
    case ScaledCode::kFp8E4m3:
      return FloatCode::kE4m3;
  }
  return FloatCode::kRows;
}

void MultiplyInt8(LinearInput& input, const TernaryMatrix& w, float* y,
                  const ParallelFor& parallel) {
  const LinearInput::Int8Tokens in = input.Int8();
  std::vector<float> out_scale(static_cast<size_t>(input.m()));
  for (size_t i = 0; i < out_scale.size(); ++i) out_scale[i] = w.scale * (in.gamma[i] / 127.0f);
  kernels::TernaryGemmArgs args;
  args.w_t2 = w.t2.data();
  args.x = in.q;
  args.x_sum = in.sum;
  args.out_scale = out_scale.data();
  args.y = y;
  args.m = input.m();
  args.n = w.n;
  args.k = w.k;
  args.ldx = in.ldq;
  args.ldy = w.n;
  kernels::TernaryGemm(args, parallel);
}

// Args: CodeGemmArgs or Code8GemmArgs, without the activations.
template <class Args>
Args CodeArgs(const LinearInput& input, const BlockMatrix& w, CodeType type, float* y) {
  Args args;
  args.type = type;
  args.w = reinterpret_cast<const uint8_t*>(w.bytes.data());
  args.row_bytes = formats::RowBytes(w.type, w.k);
  args.paired_head_dim = w.paired_head_dim;
  args.y = y;
  args.m = input.m();
  args.n = args.ldy = w.n;
  args.k = w.k;
  return args;
}

// False: not with this type and the input's activations.
bool MultiplyCodes(LinearInput& input, const BlockMatrix& w, float* y,
                   const ParallelFor& parallel) {
  const std::optional<CodeType> type = CodeOf(w.type);
  if (!type || input.activations() == CodeActivations::kFloat) return false;
  if (input.activations() == CodeActivations::kInt8) {
    auto args = CodeArgs<kernels::Code8GemmArgs>(input, w, *type, y);
    args.x = input.Int8Blocks();
    kernels::Code8Gemm(args, parallel);
    return true;
  }
  if (*type == CodeType::kQ8_0) return false;
  auto args = CodeArgs<kernels::CodeGemmArgs>(input, w, *type, y);
  args.x = input.Int16();
  kernels::CodeGemm(args, parallel);
  return true;
}

void RunFloats(kernels::FloatGemmArgs args, LinearInput& input, int64_t n, float* y,
               const ParallelFor& parallel) {
  if (args.x == nullptr) args.x = input.Floats();
  args.y = y;
  args.m = input.m();
  args.n = args.ldy = n;
  args.k = args.ldx = input.k();
  kernels::FloatGemm(args, parallel);
}

void MultiplyFloats(LinearInput& input, const DenseMatrix& w, float* y,
                    const ParallelFor& parallel) {
  kernels::FloatGemmArgs args;
  args.code = FloatCode::kF32;
  args.w = reinterpret_cast<const uint8_t*>(w.values.data());
  args.row_bytes = w.k * static_cast<int64_t>(sizeof(float));
  args.decode_row = [&](int64_t n, float* out) {
    std::copy_n(w.values.data() + n * w.k, w.k, out);
  };
  RunFloats(std::move(args), input, w.n, y, parallel);
}

void MultiplyFloats(LinearInput& input, const BlockMatrix& w, float* y,
                    const ParallelFor& parallel) {
  if (MultiplyCodes(input, w, y, parallel)) return;
  kernels::FloatGemmArgs args;
  args.code = FloatCodeOf(w.type);
  args.w = reinterpret_cast<const uint8_t*>(w.bytes.data());
  args.row_bytes = formats::RowBytes(w.type, w.k);
  args.paired_head_dim = w.paired_head_dim;
  const uint8_t* bytes = args.w;
  args.decode_row = [&w, bytes, row_bytes = args.row_bytes](int64_t n, float* out) {
    formats::DecodeRow(w.type, bytes + n * row_bytes, w.k, out);
  };
  RunFloats(std::move(args), input, w.n, y, parallel);
}

void MultiplyFloats(LinearInput& input, const ScaledMatrix& w, float* y,
                    const ParallelFor& parallel) {
  kernels::FloatGemmArgs args;
  if (w.block_k % 32 == 0 || w.block_k >= w.k) args.code = FloatCodeOf(w.code);
  args.w = reinterpret_cast<const uint8_t*>(w.codes.data());
  args.row_bytes = w.CodeRowBytes();
  args.block_scales = [&w](int64_t n, float* scales, float* zeros) {
    w.BlockScales(n, scales, zeros);
  };
  args.block_k = w.block_k;
  args.decode_row = [&w](int64_t n, float* out) { w.Decode(n, out); };
  if (input.activations() == CodeActivations::kFolder && w.input.code != InputRounding::Code::kNone)
    args.x = input.Rounded(w.input);
  RunFloats(std::move(args), input, w.n, y, parallel);
}

void MultiplyFloats(LinearInput& input, const Int4Matrix& w, float* y,
                    const ParallelFor& parallel) {
  kernels::W4A16Args args;
  args.w = w.codes.data();
  args.scales_GN = w.scales_GN.data();
  args.zeros_GN = w.zeros_GN.empty() ? nullptr : w.zeros_GN.data();
  args.scale_type = w.scale_type;
  args.x = input.Floats();
  args.y = y;
  args.m = input.m();
  args.n = args.ldy = w.n;
  args.k = args.ldx = w.k;
  kernels::W4A16Gemv(args, parallel);
}

// Ternary weights with float activations.
void MultiplyFloats(LinearInput& input, const TernaryMatrix& w, float* y,
                    const ParallelFor& parallel) {
  kernels::FloatGemmArgs args;
  const int64_t row_bytes = kernels::T2RowBytes(w.k);
  args.decode_row = [&w, row_bytes](int64_t n, float* out) {
    kernels::DequantizeT2(w.t2.data() + n * row_bytes, 0, 1, w.k, w.scale, out, w.k);
  };
  RunFloats(std::move(args), input, w.n, y, parallel);
}

template <class Matrix>
void CheckInputs(const LinearInput& input, const Matrix& w) {
  const int64_t k = std::visit([](const auto& matrix) { return matrix.k; }, w);
  TERN_CHECK(input.k() == k, "an input of ", input.k(), " for a matrix of ", k);
}

}  // namespace

void LinearInput::Set(const float* x, int64_t m, int64_t k, const std::vector<float>& gain,
                      float eps) {
  TERN_CHECK(gain.empty() || static_cast<int64_t>(gain.size()) == k, "a gain of ", gain.size(),
             " for rows of ", k);
  x_ = x;
  m_ = m;
  k_ = k;
  gain_ = gain.empty() ? nullptr : gain.data();
  eps_ = eps;
  has_floats_ = has_int8_ = has_int16_ = has_int8_blocks_ = false;
  rounding_ = {};
}

const float* LinearInput::Floats() {
  if (gain_ == nullptr) return x_;
  if (!has_floats_) {
    kernels::RmsNormForward(x_, gain_, m_, k_, eps_, Room(&floats_, m_ * k_),
                            Room(&inverse_rms_, m_), parallel_);
    has_floats_ = true;
  }
  return floats_.data();
}

LinearInput::Int8Tokens LinearInput::Int8() {
  const int64_t ldq = kernels::T2PaddedK(k_);
  if (!has_int8_) {
    int8_t* q = Room(&int8_, m_ * ldq);
    float* gamma = Room(&gamma_, m_);
    int32_t* sum = Room(&sum_, m_);
    if (gain_ != nullptr && !has_floats_) {
      kernels::RmsNormQuantize(
          {x_, gain_, m_, k_, eps_, q, ldq, gamma, sum, Room(&inverse_rms_, m_)}, parallel_);
    } else {
      const float* x = Floats();
      parallel_(m_, /*grain=*/8, [&](int64_t begin, int64_t end) {
        kernels::AbsmaxQuantize(x, begin, end, k_, k_, q, ldq, gamma, sum);
      });
    }
    has_int8_ = true;
  }
  return {int8_.data(), gamma_.data(), sum_.data(), ldq};
}

const float* LinearInput::Rounded(const InputRounding& rounding) {
  if (rounding_ != rounding)
    RoundInputs(rounding, Floats(), m_, k_, Room(&rounded_, m_ * k_), parallel_);
  rounding_ = rounding;
  return rounded_.data();
}

const kernels::Int16Block* LinearInput::Int16() {
  if (!has_int16_) QuantizeBlocks(kernels::QuantizeInt16, &int16_);
  has_int16_ = true;
  return int16_.data();
}

const kernels::Int8Block* LinearInput::Int8Blocks() {
  if (!has_int8_blocks_) QuantizeBlocks(kernels::QuantizeInt8, &int8_blocks_);
  has_int8_blocks_ = true;
  return int8_blocks_.data();
}

template <class Quantize, class Block>
void LinearInput::QuantizeBlocks(Quantize* quantize, std::vector<Block>* buffer) {
  const float* x = Floats();
  const int64_t blocks = kernels::Int16Blocks(k_);  // Int8Blocks(k_) too
  Block* out = Room(buffer, m_ * blocks);
  parallel_(m_, /*grain=*/8, [&](int64_t begin, int64_t end) {
    quantize(x + begin * k_, end - begin, k_, k_, out + begin * blocks);
  });
}

void Multiply(LinearInput& input, const LinearMatrix& w, ActivationRule rule, float* y,
              const ParallelFor& parallel) {
  CheckInputs(input, w);
  const auto* ternary = std::get_if<TernaryMatrix>(&w);
  if (ternary != nullptr && rule == ActivationRule::kInt8Token)
    return MultiplyInt8(input, *ternary, y, parallel);
  std::visit([&](const auto& matrix) { MultiplyFloats(input, matrix, y, parallel); }, w);
}

void Multiply(LinearInput& input, const TableMatrix& w, float* y, const ParallelFor& parallel) {
  CheckInputs(input, w);
  std::visit([&](const auto& matrix) { MultiplyFloats(input, matrix, y, parallel); }, w);
}

void CopyRow(const TableMatrix& w, int64_t row, float* out) {
  if (const auto* blocks = std::get_if<BlockMatrix>(&w)) return blocks->Decode(row, out);
  const auto& dense = std::get<DenseMatrix>(w);
  std::copy_n(dense.values.data() + row * dense.k, dense.k, out);
}

}  // namespace tern::engine
