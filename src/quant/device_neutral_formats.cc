// See device_neutral_formats.h.
#include "quant/device_neutral_formats.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"
#include "quant/hadamard.h"

namespace tern::quant::neutral {
namespace {

constexpr int kLeastExponent = -126;  // Of normal fp32

// a / b, rounded once. By a number libtorch multiplies with a rounded reciprocal.
at::Tensor DivideByNumber(const at::Tensor& a, float b) { return a.div(at::full_like(a, b)); }

// PowerBelow of grid.h: the exponent's bits alone.
at::Tensor PowerBelow(const at::Tensor& x, int min_exponent) {
  constexpr int64_t kExponentBits = 0x7F800000;
  return x.contiguous()
      .view(at::kInt)
      .bitwise_and(kExponentBits)
      .clamp_min_(int64_t{min_exponent + 127} << 23)
      .view(at::kFloat);
}

// The distance of the grid's values around x, a power of two; undefined for integers, 1.
at::Tensor Quantum(const Grid& grid, const at::Tensor& x) {
  if (grid.integer) return {};
  return PowerBelow(x, grid.min_exponent).mul_(1.0 / (1 << grid.fraction_bits));
}

// A matrix seen as blocks, [R, rows, C, columns]; zeros fill the last ones of what does not divide.
class Blocks {
 public:
  Blocks(const at::Tensor& w_NK, const WeightFormat& format)
      : n_(w_NK.size(0)),
        k_(w_NK.size(1)),
        rows_(format.block_n == 0 ? n_ : format.block_n),
        columns_(format.block_k == 0 ? k_ : format.block_k) {}

  at::Tensor Of(const at::Tensor& x_NK) const {
    const int64_t r = Count(n_, rows_), c = Count(k_, columns_);
    const int64_t more_rows = r * rows_ - n_, more_columns = c * columns_ - k_;
    const bool divides = more_rows == 0 && more_columns == 0;
    const at::Tensor whole =
        divides ? x_NK : at::constant_pad_nd(x_NK, {0, more_columns, 0, more_rows});
    return whole.view({r, rows_, c, columns_});
  }
  at::Tensor Matrix(const at::Tensor& x_RrCc) const {
    return x_RrCc.reshape({x_RrCc.size(0) * rows_, x_RrCc.size(2) * columns_})
        .narrow(0, 0, n_)
        .narrow(1, 0, k_)
        .contiguous();
  }
  // Beside Of: a number for each block.
  static at::Tensor Spread(const at::Tensor& s_RC) { return s_RC.unsqueeze(1).unsqueeze(3); }

 private:
  static int64_t Count(int64_t size, int64_t block) { return (size + block - 1) / block; }

  int64_t n_, k_, rows_, columns_;
};

float LargestOfRange(const Grid& grid) { return grid.integer ? (grid.hi - grid.lo) / 2 : grid.hi; }

at::Tensor DividedByGlobal(const at::Tensor& scale_RC, float global) {
  return global == 1 ? scale_RC : DivideByNumber(scale_RC, global);
}

}  // namespace

at::Tensor RoundToGrid(const Grid& grid, const at::Tensor& x) {
  const at::Tensor inside = x.clamp(double{grid.lo}, double{grid.hi});
  if (grid.integer) return inside.round();  // Half to even
  const at::Tensor quantum = Quantum(grid, inside);
  return inside.div(quantum).round_().mul_(quantum);
}

at::Tensor RoundStochastic(const Grid& grid, const at::Tensor& x, const at::Tensor& uniform) {
  const at::Tensor inside = x.clamp(double{grid.lo}, double{grid.hi});
  const at::Tensor quantum = Quantum(grid, inside);
  const at::Tensor steps = quantum.defined() ? inside.abs().div_(quantum) : inside.abs();
  const at::Tensor lower = steps.floor();
  at::Tensor rounded = lower + (steps - lower).gt(uniform).to(at::kFloat);
  if (quantum.defined()) rounded.mul_(quantum);
  return rounded.copysign_(inside);
}

// Philox4x32 of base/random.h on numbers of 32 bits held in 64.
at::Tensor Uniforms(const Noise& noise, const at::Tensor& like) {
  constexpr int64_t kLow = 0xFFFFFFFF;
  const auto high = [](const at::Tensor& x) { return x.__rshift__(32).bitwise_and_(kLow); };
  const auto low = [](const at::Tensor& x) { return x.bitwise_and(kLow); };
  const at::Tensor index = at::arange(like.numel(), like.options().dtype(at::kLong))
                               .add_(static_cast<int64_t>(noise.first));
  at::Tensor c0 = low(index), c1 = high(index), c2 = at::zeros_like(index),
             c3 = at::zeros_like(index);
  std::array<uint32_t, 2> key = noise.stream.key();
  for (int round = 0; round < kPhiloxRounds; ++round) {
    // The upper bit of a product may be set: what shifts in from the left is masked away.
    const at::Tensor p0 = c0 * int64_t{kPhiloxMultipliers[0]},
                     p1 = c2 * int64_t{kPhiloxMultipliers[1]};
    c0 = high(p1).bitwise_xor_(c1).bitwise_xor_(int64_t{key[0]});
    c2 = high(p0).bitwise_xor_(c3).bitwise_xor_(int64_t{key[1]});
    c1 = low(p1);
    c3 = low(p0);
    key = {key[0] + kPhiloxWeyl[0], key[1] + kPhiloxWeyl[1]};
  }
  // The upper 24 of the value's 64 bits, of which c1 is the upper half.
  return c1.__rshift__(8).to(at::kFloat).mul_(0x1p-24).view(like.sizes());
}

at::Tensor RoundScales(ScaleDtype dtype, const at::Tensor& scale) {
  at::Tensor rounded;
  switch (dtype) {
    case ScaleDtype::kF32:
      rounded = scale;
      break;
    case ScaleDtype::kBf16:
      rounded = scale.to(at::kBFloat16).to(at::kFloat);
      break;
    case ScaleDtype::kF16:
      rounded = scale.to(at::kHalf).to(at::kFloat);
      break;
    case ScaleDtype::kE4m3:
      rounded = RoundToGrid(kE4m3Grid, scale);
      break;
    case ScaleDtype::kE8m0: {
      const at::Tensor below = PowerBelow(scale, kLeastExponent);
      rounded = at::where(below.lt(scale), below * 2, below);
      break;
    }
  }
  const at::Tensor fits = at::isfinite(rounded);
  if (!fits.all().item<bool>()) {
    // The CPU's message for the first that does not.
    RoundScale(dtype, scale.masked_select(fits.logical_not()).view({-1})[0].item<float>());
  }
  return at::where(rounded.gt(0), rounded, at::full_like(rounded, LeastScale(dtype)));
}

float MaxAbs(const at::Tensor& w_NK) {
  if (w_NK.numel() == 0) return 0;
  const auto amax = w_NK.abs().amax().item<float>();  // NaN stays
  if (!std::isfinite(amax)) throw NumericError("the weights hold NaN or Inf");
  return amax;
}

BlockScales FindScales(const at::Tensor& w_NK, const WeightFormat& format,
                       const RangeSearch& range) {
  TERN_CHECK(range.method == RangeSearch::Method::kMinMax, "a search on ", w_NK.device());
  const Grid grid = format.grid();
  BlockScales out;
  if (format.has_global_scale) out.global = GlobalScaleOf(range.amax ? *range.amax : MaxAbs(w_NK));
  const at::Tensor blocks = Blocks(w_NK, format).Of(w_NK);
  const at::Tensor low_RC = blocks.amin({1, 3}).clamp_max_(0),
                   high_RC = blocks.amax({1, 3}).clamp_min_(0);
  const at::Tensor amax_RC = high_RC.maximum(low_RC.neg());
  if (!at::isfinite(amax_RC).all().item<bool>()) throw NumericError("the weights hold NaN or Inf");
  const auto rounded = [&](const at::Tensor& scale_RC) {
    return neutral::RoundScales(format.scale_dtype, scale_RC.mul(double{out.global}));
  };
  if (format.symmetric) {
    const bool shared = range.amax && !format.has_global_scale;
    out.scale_RC = rounded(DivideByNumber(shared ? at::full_like(amax_RC, *range.amax) : amax_RC,
                                          LargestOfRange(grid)));
    return out;
  }
  out.scale_RC = rounded(DivideByNumber(high_RC - low_RC, grid.hi - grid.lo));
  const at::Tensor steps_RC = low_RC.div(DividedByGlobal(out.scale_RC, out.global));
  out.zero_RC = RoundToGrid(grid, at::full_like(steps_RC, grid.lo) - steps_RC);
  return out;
}

at::Tensor FakeQuantizeWith(const at::Tensor& w_NK, const WeightFormat& format,
                            const BlockScales& scales, const Noise* noise, at::Tensor* inside_NK) {
  const Grid grid = format.grid();
  const Blocks shape(w_NK, format);
  const at::Tensor s = Blocks::Spread(DividedByGlobal(scales.scale_RC, scales.global));
  at::Tensor x = shape.Of(w_NK).div(s), zero;
  if (scales.zero_RC.defined()) {
    zero = Blocks::Spread(scales.zero_RC);
    x.add_(zero);
  }
  if (inside_NK != nullptr) {
    *inside_NK =
        shape.Matrix(x.ge(double{grid.lo - 0.5f}).logical_and_(x.le(double{grid.hi + 0.5f})));
  }
  at::Tensor values = noise == nullptr ? RoundToGrid(grid, x)
                                       : RoundStochastic(grid, x, shape.Of(Uniforms(*noise, w_NK)));
  if (zero.defined()) values.sub_(zero);
  return shape.Matrix(values.mul_(s));
}

at::Tensor FakeTernaryStochastic(const at::Tensor& w_NK, float beta, const Noise& noise) {
  constexpr Grid kLevels = {-1, 1, 0, 0, true};
  return RoundStochastic(kLevels, w_NK.mul(double{1.0f / beta}), Uniforms(noise, w_NK))
      .mul_(double{beta});
}

Int8Rows QuantizeRowsInt4(const at::Tensor& x_MK, Int4Scale scale) {
  const int64_t k = x_MK.size(1);
  const bool absmax = scale == Int4Scale::kAbsmax;
  const at::Tensor size_M =
      absmax
          ? x_MK.abs().amax(1)
          : DivideByNumber(x_MK.abs().sum(1, /*keepdim=*/false, at::kDouble), static_cast<float>(k))
                .to(at::kFloat);
  const at::Tensor s_M =
      DivideByNumber(size_M.clamp_min(double{kInt4ScaleFloor}), absmax ? kInt4Top : kSqrtInt4Top);
  Int8Rows out;
  out.k = k;
  out.top = static_cast<int>(kInt4Top);
  const at::Tensor gamma_M = s_M * 127.0;
  const at::Tensor finite_M = at::isfinite(gamma_M);
  out.gamma_M = at::where(finite_M, gamma_M,
                          at::full_like(gamma_M, std::numeric_limits<double>::quiet_NaN()));
  const at::Tensor codes_MK =
      x_MK.div(s_M.unsqueeze(1)).clamp_(double{kInt4Least}, double{kInt4Top}).round_();
  out.q_MK = at::constant_pad_nd(
      codes_MK.masked_fill(finite_M.logical_not().unsqueeze(1), 0).to(at::kChar),
      {0, kernels::T2PaddedK(k) - k});
  out.sum_M = out.q_MK.sum(1, /*keepdim=*/false, at::kInt);
  return out;
}

at::Tensor Hadamard(const at::Tensor& x_MK) {
  const int64_t m = x_MK.size(0), k = x_MK.size(1), block = HadamardBlock(k);
  at::Tensor x = x_MK;
  for (int64_t half = 1; half < block; half *= 2) {
    const at::Tensor pairs = x.view({m * k / (2 * half), 2, half});
    const at::Tensor a = pairs.select(1, 0), b = pairs.select(1, 1);
    x = at::stack({a + b, a - b}, 1);
  }
  const auto factor = static_cast<float>(1 / std::sqrt(static_cast<double>(block)));
  return x.view({m, k}).mul(double{factor});
}

at::Tensor RoundInputs(const at::Tensor& x_MK, bool fp8) {
  constexpr float kInt8Range = 127.5f;  // Half the steps between its least and largest code
  const Grid grid = fp8 ? kE4m3Grid : IntegerGrid(8);
  const float largest = fp8 ? grid.hi : kInt8Range;
  // NaN is no maximum, and stays where it is.
  const at::Tensor amax_M1 =
      x_MK.abs().nan_to_num(0, std::numeric_limits<double>::infinity()).amax(1, /*keepdim=*/true);
  const at::Tensor scale_M1 = DivideByNumber(amax_M1, largest);
  const at::Tensor values_MK = RoundToGrid(grid, x_MK.div(scale_M1)).mul_(scale_M1);
  return values_MK.masked_fill(scale_M1.gt(0).logical_not(), 0);
}

}  // namespace tern::quant::neutral
