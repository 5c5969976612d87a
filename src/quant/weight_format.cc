// See weight_format.h.
#include "quant/weight_format.h"

#include "base/error.h"
#include "formats/half.h"

namespace tern::quant {
namespace {

int BitsOf(ScaleDtype dtype) {
  switch (dtype) {
    case ScaleDtype::kF32:
      return 32;
    case ScaleDtype::kBf16:
    case ScaleDtype::kF16:
      return 16;
    case ScaleDtype::kE4m3:
    case ScaleDtype::kE8m0:
      return 8;
  }
  throw BugError("no such type of scales");
}

int BitsOf(const WeightFormat& format) {
  switch (format.element) {
    case Element::kInt:
      return format.bits;
    case Element::kE4m3:
    case Element::kE5m2:
      return 8;
    case Element::kE2m1:
      return 4;
  }
  throw BugError("no such element");
}

// The least power of two that is not below x, within E8M0's 2^-127 .. 2^127 (2^-126 here: what is
// smaller is no normal fp32).
float PowerAbove(float x) {
  const float below = PowerBelow(x, -126);
  return below < x ? below * 2 : below;
}

float Round(ScaleDtype dtype, float scale) {
  switch (dtype) {
    case ScaleDtype::kF32:
      return scale;
    case ScaleDtype::kBf16:
      return formats::Bf16ToFp32(formats::Fp32ToBf16(scale));
    case ScaleDtype::kF16:
      return formats::Fp16ToFp32(formats::Fp32ToFp16(scale));
    case ScaleDtype::kE4m3:
      return RoundToGrid(kE4m3Grid, scale);
    case ScaleDtype::kE8m0:
      return PowerAbove(scale);
  }
  throw BugError("no such type of scales");
}

}  // namespace

Grid WeightFormat::grid() const {
  switch (element) {
    case Element::kInt:
      return IntegerGrid(bits);
    case Element::kE4m3:
      return kE4m3Grid;
    case Element::kE5m2:
      return kE5m2Grid;
    case Element::kE2m1:
      return kE2m1Grid;
  }
  throw BugError("no such element");
}

double WeightFormat::BitsPerWeight(int64_t n, int64_t k) const {
  const int64_t rows = block_n == 0 ? n : block_n, columns = block_k == 0 ? k : block_k;
  const auto blocks = static_cast<double>(((n + rows - 1) / rows) * ((k + columns - 1) / columns));
  const double overhead =
      blocks * (BitsOf(scale_dtype) + (symmetric ? 0 : bits)) + (has_global_scale ? 32.0 : 0.0);
  return BitsOf(*this) + overhead / static_cast<double>(n * k);
}

std::string WeightFormat::Describe() const {
  const char* names[] = {"int", "fp8 e4m3", "fp8 e5m2", "fp4 e2m1"};
  const auto size = [](int64_t block) { return block == 0 ? std::string("all") : StrCat(block); };
  return StrCat(names[static_cast<int>(element)], element == Element::kInt ? StrCat(bits) : "",
                symmetric ? "" : " with zero points", ", a ", ToString(scale_dtype), " scale for ",
                size(block_n), " x ", size(block_k), " weights",
                has_global_scale ? " and one for the tensor" : "");
}

WeightFormat IntFormat(int bits, int64_t group, bool symmetric, ScaleDtype scale) {
  TERN_CHECK(bits >= 2 && bits <= 8, "integers of ", bits, " bits");
  return {Element::kInt, bits, symmetric, 1, group, scale, false};
}
WeightFormat Fp8Rows(Element element) { return Fp8Blocks(1, 0, element); }
WeightFormat Fp8Tensor(Element element) { return Fp8Blocks(0, 0, element); }
WeightFormat Fp8Blocks(int64_t n, int64_t k, Element element) {
  return {element, 8, true, n, k, ScaleDtype::kBf16, false};
}
WeightFormat Nvfp4() { return {Element::kE2m1, 4, true, 1, 16, ScaleDtype::kE4m3, true}; }
WeightFormat Mxfp4() { return {Element::kE2m1, 4, true, 1, 32, ScaleDtype::kE8m0, false}; }
WeightFormat GgufFormat(int bits) { return IntFormat(bits, 32, true, ScaleDtype::kF16); }

void CheckGroups(const WeightFormat& format, int64_t k, const std::string& name) {
  if (format.block_n != 1 || format.block_k == 0 || k % format.block_k == 0) return;
  std::string fitting;
  for (int64_t group = 256; group >= 16; group /= 2)
    if (k % group == 0) fitting += StrCat(fitting.empty() ? "" : ", ", group);
  throw InputError(StrCat(
      name, ": rows of ", k, " weights do not divide into groups of ", format.block_k,
      "; groups that fit: ", fitting.empty() ? "none, only whole rows (--group 0)" : fitting));
}

float RoundScale(ScaleDtype dtype, float scale) {
  const float rounded = Round(dtype, scale);
  if (!std::isfinite(rounded)) {
    throw NumericError(StrCat("a scale of ", scale, " is too large for ", ToString(dtype),
                              "; the weights need another type of scales"));
  }
  return rounded > 0 ? rounded : LeastScale(dtype);
}

float LeastScale(ScaleDtype dtype) {
  switch (dtype) {
    case ScaleDtype::kF32:
    case ScaleDtype::kBf16:
    case ScaleDtype::kE8m0:
      return 0x1p-126f;
    case ScaleDtype::kF16:
      return 0x1p-14f;
    case ScaleDtype::kE4m3:
      return 0x1p-6f;
  }
  throw BugError("no such type of scales");
}

const char* ToString(ScaleDtype dtype) {
  switch (dtype) {
    case ScaleDtype::kF32:
      return "fp32";
    case ScaleDtype::kBf16:
      return "bf16";
    case ScaleDtype::kF16:
      return "fp16";
    case ScaleDtype::kE4m3:
      return "e4m3";
    case ScaleDtype::kE8m0:
      return "e8m0";
  }
  throw BugError("no such type of scales");
}

}  // namespace tern::quant
