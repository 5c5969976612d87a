// See packed_tensors.h.
#include "ptq/packed_tensors.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/bit_pack.h"
#include "formats/half.h"
#include "ptq/pack_gptq.h"

namespace tern::ptq {
namespace {

using quant::Element;
using quant::QuantizedWeight;

template <class T>
std::vector<uint8_t> BytesOf(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Rows of unsigned codes as words, in the order of `at(row, column)`.
template <class At>
std::vector<uint8_t> PackRows(int64_t rows, int64_t columns, int bits, const At& at) {
  const int64_t words = formats::PackedWords(columns, bits);
  std::vector<uint32_t> out(static_cast<size_t>(rows * words));
  std::vector<uint8_t> codes(static_cast<size_t>(columns));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i) codes[static_cast<size_t>(i)] = at(row, i);
    formats::PackBits(codes.data(), columns, bits, out.data() + row * words);
  }
  return BytesOf(out);
}

NamedTensor Codes(const std::string& base, const QuantizedWeight& w) {
  const int64_t n = w.codes_NK.size(0), k = w.codes_NK.size(1);
  const auto* bytes = static_cast<const uint8_t*>(w.codes_NK.const_data_ptr());
  return {base + "weight",
          w.format.element == Element::kInt ? "I8" : "F8_E4M3",
          {n, k},
          std::vector<uint8_t>(bytes, bytes + n * k)};
}

void AddWords(const std::string& base, const QuantizedWeight& w, std::vector<NamedTensor>* out) {
  const int64_t n = w.codes_NK.size(0), k = w.codes_NK.size(1);
  const int bits = w.format.bits, half = 1 << (bits - 1);
  const auto* codes = w.codes_NK.const_data_ptr<int8_t>();
  out->push_back({base + "weight_packed",
                  "I32",
                  {n, formats::PackedWords(k, bits)},
                  PackRows(n, k, bits, [&](int64_t row, int64_t i) {
                    return static_cast<uint8_t>(codes[row * k + i] + half);
                  })});
  out->push_back({base + "weight_shape", "I64", {2}, BytesOf(std::vector<int64_t>{n, k})});
  if (!w.scales.zero_RC.defined()) return;
  // Zero points are packed down the rows: the stream of a column runs over the outputs.
  const int64_t columns = w.scales.zero_RC.size(1), words = formats::PackedWords(n, bits);
  const float* zero = w.scales.zero_RC.const_data_ptr<float>();
  const std::vector<uint8_t> by_column =
      PackRows(columns, n, bits, [&](int64_t column, int64_t row) {
        return static_cast<uint8_t>(static_cast<int>(zero[row * columns + column]) + half);
      });
  std::vector<uint8_t> bytes(by_column.size());
  for (int64_t word = 0; word < words; ++word)
    for (int64_t column = 0; column < columns; ++column)
      std::memcpy(bytes.data() + 4 * (word * columns + column),
                  by_column.data() + 4 * (column * words + word), 4);
  out->push_back({base + "weight_zero_point", "I32", {words, columns}, std::move(bytes)});
}

// Two FP4 numbers a byte, the even one in the low half; scales as bytes of their own type.
void AddFp4(const std::string& base, const QuantizedWeight& w, std::vector<NamedTensor>* out) {
  const int64_t n = w.codes_NK.size(0), k = w.codes_NK.size(1);
  const auto* codes = w.codes_NK.const_data_ptr<uint8_t>();
  std::vector<uint8_t> bytes(static_cast<size_t>(n * k / 2));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
  out->push_back({base + "weight_packed", "U8", {n, k / 2}, std::move(bytes)});
  const float* scale = w.scales.scale_RC.const_data_ptr<float>();
  std::vector<uint8_t> scales(static_cast<size_t>(w.scales.scale_RC.numel()));
  const bool e8m0 = w.format.scale_dtype == quant::ScaleDtype::kE8m0;
  for (size_t i = 0; i < scales.size(); ++i)
    scales[i] = e8m0 ? static_cast<uint8_t>(std::ilogb(scale[i]) + 127)
                     : quant::FloatBits(quant::kE4m3Grid, scale[i]);
  out->push_back({base + "weight_scale", e8m0 ? "U8" : "F8_E4M3", w.scales.scale_RC.sizes().vec(),
                  std::move(scales)});
  if (w.format.has_global_scale) {
    out->push_back(
        {base + "weight_global_scale", "F32", {1}, BytesOf(std::vector<float>{w.scales.global})});
  }
}

NamedTensor Bf16(const std::string& name, const std::vector<int64_t>& shape, const float* values,
                 int64_t count) {
  std::vector<uint16_t> bits(static_cast<size_t>(count));
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = formats::Fp32ToBf16(values[i]);
  return {name, "BF16", shape, BytesOf(bits)};
}

int64_t CountOf(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::string BaseOf(const std::string& parameter) {
  return parameter.substr(0, parameter.size() - std::string("weight").size());
}

NamedTensor Scales(const std::string& base, const QuantizedWeight& w, const Scheme& scheme) {
  const at::Tensor& scale = w.scales.scale_RC;
  const float* values = scale.const_data_ptr<float>();
  if (scheme.container == Container::kFp8) {
    const std::vector<float> all(values, values + scale.numel());
    return {base + "weight_scale_inv", "F32", scale.sizes().vec(), BytesOf(all)};
  }
  TERN_CHECK(w.format.scale_dtype == quant::ScaleDtype::kBf16, "scales in ",
             quant::ToString(w.format.scale_dtype));
  const bool tensor = w.format.block_n == 0;
  return Bf16(base + "weight_scale", tensor ? std::vector<int64_t>{1} : scale.sizes().vec(), values,
              scale.numel());
}

}  // namespace

NamedTensor PackInputScale(const std::string& parameter, float amax) {
  const float scale = quant::RoundScale(quant::ScaleDtype::kBf16, amax / quant::kE4m3Grid.hi);
  return Bf16(BaseOf(parameter) + "input_scale", {1}, &scale, 1);
}

NamedTensor PackFloats(const std::string& name, const std::vector<int64_t>& shape,
                       const float* values, const Scheme& scheme) {
  const int64_t count = CountOf(shape);
  if (!scheme.IsHalf()) return Bf16(name, shape, values, count);
  std::vector<uint16_t> bits(static_cast<size_t>(count));
  for (size_t i = 0; i < bits.size(); ++i) {
    bits[i] = formats::Fp32ToFp16(values[i]);
    if (!std::isfinite(formats::Fp16ToFp32(bits[i])))
      throw NumericError(StrCat(name, " holds ", values[i],
                                ", which fp16 cannot; --container compressed-tensors is bf16"));
  }
  return {name, "F16", shape, BytesOf(bits)};
}

NamedTensor PackParameter(FloatModel* model, const ParameterSpec& spec, const Scheme& scheme) {
  constexpr int64_t kPieceBytes = 8 << 20;
  NamedTensor out{spec.name, "", spec.shape, {}};
  out.bytes.reserve(static_cast<size_t>(2 * spec.Count()));
  model->ReadRows(spec, kPieceBytes, [&](const at::Tensor& rows) {
    const NamedTensor piece =
        PackFloats(spec.name, rows.sizes().vec(), rows.const_data_ptr<float>(), scheme);
    out.dtype = piece.dtype;
    out.bytes.insert(out.bytes.end(), piece.bytes.begin(), piece.bytes.end());
  });
  return out;
}

at::Tensor AsStored(const at::Tensor& value, const Scheme& scheme) {
  return value.to(scheme.IsHalf() ? at::kHalf : at::kBFloat16).to(at::kFloat).contiguous();
}

std::vector<NamedTensor> PackLinear(const std::string& parameter, const QuantizedWeight& w,
                                    const Scheme& scheme) {
  const std::string base = BaseOf(parameter);
  std::vector<NamedTensor> out;
  if (scheme.container == Container::kAwq) return PackAwq(base, w);
  if (scheme.IsHalf()) return PackGptq(base, w, scheme.container == Container::kGptq);
  if (w.format.element == Element::kE2m1) {
    AddFp4(base, w, &out);
    return out;
  }
  if (scheme.layout == "pack-quantized") {
    AddWords(base, w, &out);
  } else {
    TERN_CHECK(scheme.layout == "int-quantized" || scheme.layout == "float-quantized",
               scheme.layout);
    out.push_back(Codes(base, w));
  }
  out.push_back(Scales(base, w, scheme));
  return out;
}

}  // namespace tern::ptq
