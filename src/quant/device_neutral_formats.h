// What fake quantizers and rounded inputs compute (weight_quantizer.h, ternary.h, int4_rows.h,
// hadamard.h, kernels/round_inputs) in libtorch's own operations, for tensors on any device: what
// those call where the memory is not the CPU's. Every fp32 operation of the definitions is one
// libtorch operation that rounds once, in the definition's order, so the values are the CPU's bit
// for bit; the one exception is QuantizeRowsInt4. Shapes as in the headers named.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/grid.h"
#include "quant/int4_rows.h"
#include "quant/noise.h"
#include "quant/weight_quantizer.h"

namespace tern::quant::neutral {

// Of each element, as their namesakes in grid.h (zeros may have the other sign); fp32. `uniform`:
// x's shape.
at::Tensor RoundToGrid(const Grid& grid, const at::Tensor& x);
at::Tensor RoundStochastic(const Grid& grid, const at::Tensor& x, const at::Tensor& uniform);

// noise.At(i) for the elements of `like` in row-major order, of its shape and on its device.
at::Tensor Uniforms(const Noise& noise, const at::Tensor& like);

// As RoundScale of each element.
at::Tensor RoundScales(ScaleDtype dtype, const at::Tensor& scale);

// As their namesakes in weight_quantizer.h. REQUIRES: range.method is kMinMax.
float MaxAbs(const at::Tensor& w_NK);
BlockScales FindScales(const at::Tensor& w_NK, const WeightFormat& format,
                       const RangeSearch& range);
// noise: null rounds to the nearest.
at::Tensor FakeQuantizeWith(const at::Tensor& w_NK, const WeightFormat& format,
                            const BlockScales& scales, const Noise* noise, at::Tensor* inside_NK);

// beta: that of w_NK.
at::Tensor FakeTernaryStochastic(const at::Tensor& w_NK, float beta, const Noise& noise);

// The fp64 sums behind absmean scales add in another order, so a scale may differ by one unit of
// fp32's rounding where its sum lies within fp64's rounding of a border.
Int8Rows QuantizeRowsInt4(const at::Tensor& x_MK, Int4Scale scale);

at::Tensor Hadamard(const at::Tensor& x_MK);

// kernels::RoundInputs with a scale for each row: int8, or FP8 E4M3.
at::Tensor RoundInputs(const at::Tensor& x_MK, bool fp8);

}  // namespace tern::quant::neutral
