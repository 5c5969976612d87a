// See device_linear.h.
#include "engine/device_linear.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {

using kernels::TableType;

void DeviceInput::Place(const Limits& limits, DeviceArena* arena) {
  const int64_t padded = std::max(kernels::T2PaddedK(limits.widest),
                                  kernels::W4Groups(limits.widest) * kernels::kW4Group);
  floats_ = arena->Take<float>(limits.rows * limits.widest);
  gamma_ = arena->Take<float>(limits.rows);
  inv_rms_ = arena->Take<float>(limits.rows);
  out_scale_ = arena->Take<float>(limits.rows);
  codes_ = arena->Take<int8_t>(limits.rows * padded);
  sum_ = arena->Take<int32_t>(limits.rows);
  halves_ = arena->Take<uint16_t>(limits.rows * padded);
  expanded_ = arena->Take<uint16_t>(limits.expanded);
}

void DeviceInput::Set(const float* x, int64_t m, int64_t k, const float* gain, float eps) {
  x_ = x;
  m_ = m;
  k_ = k;
  gain_ = gain;
  eps_ = eps;
  has_floats_ = has_int8_ = false;
  halves_ld_ = 0;
}

const float* DeviceInput::Floats() {
  if (gain_ == nullptr) return x_;
  if (!has_floats_) {
    device_.Check("norm",
                  device_.kernels().rms_norm(x_, gain_, m_, k_, eps_, floats_, device_.stream()));
    has_floats_ = true;
  }
  return floats_;
}

void DeviceInput::MakeInt8() {
  if (has_int8_) return;
  const kernels::DeviceKernels& run = device_.kernels();
  const int64_t padded = kernels::T2PaddedK(k_);
  if (gain_ != nullptr && !has_floats_) {
    device_.Check("norm", run.rms_norm_quantize(
                              {x_, gain_, m_, k_, eps_, codes_, padded, gamma_, sum_, inv_rms_},
                              device_.stream()));
  } else {
    const kernels::AbsmaxQuantizeArgs args{Floats(),
                                           codes_,
                                           gamma_,
                                           sum_,
                                           static_cast<int>(m_),
                                           static_cast<int>(k_),
                                           static_cast<int>(padded),
                                           k_,
                                           padded};
    device_.Check("quantize", run.absmax_quantize(args, device_.stream()));
  }
  has_int8_ = true;
}

const uint16_t* DeviceInput::Halves(bool bf16, int64_t ld) {
  if (halves_ld_ != ld || halves_bf16_ != bf16) {
    const kernels::RoundRowsArgs args{
        Floats(), halves_, static_cast<int>(m_), static_cast<int>(k_), static_cast<int>(ld), bf16};
    device_.Check("rounding", device_.kernels().round_rows(args, device_.stream()));
    halves_ld_ = ld;
    halves_bf16_ = bf16;
  }
  return halves_;
}

void DeviceInput::Multiply(const DeviceMatrix& matrix, float* y) {
  std::visit(
      [&](const auto& w) {
        TERN_CHECK(w.k == k_, "an input of ", k_, " for a matrix of ", w.k);
        Product(w, y);
      },
      matrix);
}

void DeviceInput::MultiplyTable(const kernels::TableView& table, float* y) {
  device_.Check("table product",
                device_.kernels().table_product(table, Floats(), m_, y, device_.stream()));
}

void DeviceInput::Product(const DeviceTernary& matrix, float* y) {
  const kernels::DeviceKernels& run = device_.kernels();
  MakeInt8();
  device_.Check("scale", run.out_scale(gamma_, matrix.scale, m_, out_scale_, device_.stream()));
  const auto padded = static_cast<int>(kernels::T2PaddedK(k_));
  const kernels::TernaryLinearArgs args{
      matrix.t2, codes_, sum_,   out_scale_, y, static_cast<int>(m_),
      matrix.n,  padded, padded, matrix.n};
  device_.Check("ternary product", run.ternary_linear(args, device_.stream()));
}

void DeviceInput::Product(const DeviceInt4& matrix, float* y) {
  kernels::W4A16CudaArgs args;
  args.w = matrix.codes;
  args.scales_GN = matrix.scales_GN;
  args.zeros_GN = matrix.zeros_GN;
  args.type = matrix.scale_type;
  args.ldx = kernels::W4Groups(k_) * kernels::kW4Group;
  args.x = Halves(matrix.scale_type == kernels::Float16Type::kBf16, args.ldx);
  args.y = y;
  args.m = m_;
  args.n = args.ldy = matrix.n;
  args.k = k_;
  device_.Check("4-bit product", device_.kernels().w4a16(args, device_.stream()));
}

void DeviceInput::Product(const kernels::TableView& table, float* y) {
  if (m_ <= kTableProductRows) return MultiplyTable(table, y);
  const kernels::DeviceKernels& run = device_.kernels();
  kernels::GemmArgs args;
  args.w = table.values;
  args.y = y;
  args.m = m_;
  args.n = table.n;
  args.k = k_;
  if (table.type == TableType::kF32) {
    args.type = kernels::GemmType::kF32;
    args.x = Floats();
  } else if (table.type == TableType::kBf16) {
    args.type = kernels::GemmType::kBf16;
    args.x = Halves(/*bf16=*/true, k_);
  } else {
    args.x = Halves(/*bf16=*/false, k_);
    if (table.type != TableType::kF16) {
      device_.Check("expansion", run.expand_table(table, expanded_, device_.stream()));
      args.w = expanded_;
    }
  }
  device_.Check("dense product", run.gemm(args, device_.stream()));
}

}  // namespace tern::engine
