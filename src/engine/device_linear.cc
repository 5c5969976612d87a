// See device_linear.h.
#include "engine/device_linear.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {

using kernels::TableType;

namespace {

template <class Matrix>
int64_t Columns(const Matrix& matrix) {
  return matrix.k;
}
int64_t Columns(const DeviceTable& table) { return table.view.k; }

}  // namespace

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
  const int64_t rounded = limits.rounded ? limits.rows * limits.widest : 0;
  rounded_ = arena->Take<float>(rounded);
  fp8_codes_ = arena->Take<uint8_t>(rounded);
  fp8_scale_ = arena->Take<float>(limits.rows);
  halves_scale_ = arena->Take<float>(limits.rows);
}

void DeviceInput::Set(const float* x, int64_t m, int64_t k, const float* gain, float eps) {
  x_ = x;
  m_ = m;
  k_ = k;
  gain_ = gain;
  eps_ = eps;
  has_floats_ = has_int8_ = false;
  halves_ld_ = 0;
  rounding_ = fp8_rounding_ = {};
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

const float* DeviceInput::Rounded(const InputRounding& rounding) {
  if (rounding_ == rounding) return rounded_;
  const auto args = RoundInputsArgsOf(rounding, Floats(), m_, k_, rounded_);
  device_.Check("rounding", device_.kernels().round_inputs(args, device_.stream()));
  rounding_ = rounding;
  if (halves_from_ == rounded_) halves_ld_ = 0;
  return rounded_;
}

const uint16_t* DeviceInput::Halves(const float* from, bool bf16, int64_t ld) {
  if (halves_ld_ != ld || halves_bf16_ != bf16 || halves_from_ != from) {
    const kernels::RoundRowsArgs args{from,
                                      halves_,
                                      halves_scale_,
                                      static_cast<int>(m_),
                                      static_cast<int>(k_),
                                      static_cast<int>(ld),
                                      bf16};
    device_.Check("rounding", device_.kernels().round_rows(args, device_.stream()));
    halves_ld_ = ld;
    halves_bf16_ = bf16;
    halves_from_ = from;
  }
  return halves_;
}

void DeviceInput::Multiply(const DeviceMatrix& matrix, float* y) {
  std::visit(
      [&](const auto& w) {
        TERN_CHECK(Columns(w) == k_, "an input of ", k_, " for a matrix of ", Columns(w));
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
  const bool bf16 = matrix.scale_type == kernels::Float16Type::kBf16;
  args.x = Halves(Floats(), bf16, args.ldx);
  args.x_scale = bf16 ? nullptr : halves_scale_;
  args.y = y;
  args.m = m_;
  args.n = args.ldy = matrix.n;
  args.k = k_;
  device_.Check("4-bit product", device_.kernels().w4a16(args, device_.stream()));
}

void DeviceInput::Product(const DeviceTable& table, float* y) {
  const bool few = m_ <= kTableProductRows;
  if (table.fp8_product && !few) return Fp8Product(table, y);
  const bool rounds = table.input.code != InputRounding::Code::kNone;
  const float* x = rounds ? Rounded(table.input) : Floats();
  if (!few) return DenseProduct(table.view, x, y);
  device_.Check("table product",
                device_.kernels().table_product(table.view, x, m_, y, device_.stream()));
}

void DeviceInput::DenseProduct(const kernels::TableView& table, const float* x, float* y) {
  const kernels::DeviceKernels& run = device_.kernels();
  kernels::GemmArgs args;
  args.w = table.values;
  args.y = y;
  args.m = m_;
  args.n = table.n;
  args.k = k_;
  if (table.type == TableType::kF32) {
    args.type = kernels::GemmType::kF32;
    args.x = x;
  } else if (table.type == TableType::kBf16) {
    args.type = kernels::GemmType::kBf16;
    args.x = Halves(x, /*bf16=*/true, k_);
  } else {
    args.x = Halves(x, /*bf16=*/false, k_);
    if (table.type != TableType::kF16) {
      device_.Check("expansion", run.expand_table(table, expanded_, device_.stream()));
      args.w = expanded_;
    }
  }
  device_.Check("dense product", run.gemm(args, device_.stream()));
  if (args.type != kernels::GemmType::kF16) return;
  const kernels::ScaleRowsArgs scales{y, halves_scale_, nullptr, static_cast<int>(m_), table.n, 0};
  device_.Check("scales", run.scale_rows(scales, device_.stream()));
}

void DeviceInput::Fp8Product(const DeviceTable& table, float* y) {
  const kernels::DeviceKernels& run = device_.kernels();
  if (fp8_rounding_ != table.input) {
    kernels::RoundInputsArgs rounding;
    rounding.x = Floats();
    rounding.codes = fp8_codes_;
    rounding.row_scale = fp8_scale_;
    rounding.m = m_;
    rounding.k = k_;
    rounding.scale = table.input.scale;
    device_.Check("rounding to FP8", run.round_inputs(rounding, device_.stream()));
    fp8_rounding_ = table.input;
  }
  const kernels::TableView& w = table.view;
  const kernels::GemmArgs args{
      kernels::GemmType::kE4m3, fp8_codes_, w.values, y, m_, w.n, int64_t{w.k}};
  device_.Check("FP8 product", run.gemm(args, device_.stream()));
  const kernels::ScaleRowsArgs scales{y,   fp8_scale_, w.scales, static_cast<int>(m_),
                                      w.n, w.block_n};
  device_.Check("scales", run.scale_rows(scales, device_.stream()));
}

}  // namespace tern::engine
