// See packed_floats.h.
#include "engine/packed_floats.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "engine/layer_tensors.h"
#include "engine/weight_table.h"
#include "formats/bit_pack.h"
#include "formats/half.h"
#include "kernels/fp8/fp8.h"

namespace tern::engine {
namespace {

using formats::SafetensorsReader;
using formats::SafetensorsTensor;
using Packing = ScaledScheme::Packing;
using Shape = std::vector<int64_t>;

constexpr float kFp4[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

class Layer {
 public:
  Layer(const LayerTensors& files, const ScaledScheme& scheme, const ParameterSpec& spec)
      : files_(files),
        scheme_(scheme),
        n_(spec.shape[0]),
        k_(spec.shape[1]),
        group_(scheme.block_k == 0 ? k_ : scheme.block_k) {}

  DenseMatrix Read() {
    TERN_CHECK_FORMAT(k_ % group_ == 0, files_.folder(), ": rows of ", files_.Name("weight"),
                      " have ", k_, " weights; want a multiple of the group's ", group_);
    DenseMatrix out{std::vector<float>(static_cast<size_t>(n_ * k_)), n_, k_};
    const std::vector<float> scales = Scales();
    scheme_.packing == Packing::kBits ? Integers(scales, &out) : Fp4(scales, &out);
    CheckFinite(out.values, StrCat(files_.folder(), ": ", files_.Name("weight")));
    return out;
  }

 private:
  int64_t Groups() const { return k_ / group_; }

  // [n, groups], as what the codes are multiplied with.
  std::vector<float> Scales() {
    std::vector<float> out(static_cast<size_t>(n_ * Groups()));
    const Shape shape = {n_, Groups()};
    const auto fill = [&](const SafetensorsTensor& tensor, const auto& value) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(tensor.bytes.data());
      for (size_t i = 0; i < out.size(); ++i) out[i] = value(bytes, i);
    };
    if (scheme_.packing == Packing::kNvfp4) {
      float global = 0;
      std::memcpy(&global, files_.Take("weight_global_scale", "F32", {1}).bytes.data(),
                  sizeof global);
      TERN_CHECK_FORMAT(std::isfinite(global) && global > 0, files_.folder(), ": ",
                        files_.Name("weight_global_scale"), " is ", global,
                        "; want a number above 0");
      fill(files_.Take("weight_scale", "F8_E4M3", shape), [=](const uint8_t* bytes, size_t i) {
        return kernels::E4M3ToFp32Ref(bytes[i]) / global;
      });
    } else if (scheme_.packing == Packing::kMxfp4) {
      fill(files_.Take("weight_scale", "U8", shape),
           [](const uint8_t* bytes, size_t i) { return std::ldexp(1.0f, bytes[i] - 127); });
    } else {
      const std::string dtype = files_.Get("weight_scale").dtype;
      TERN_CHECK_FORMAT(dtype == "BF16" || dtype == "F16", files_.folder(), ": ",
                        files_.Name("weight_scale"), " is ", dtype, "; want BF16 or F16");
      fill(files_.Take("weight_scale", dtype, shape), [&](const uint8_t* bytes, size_t i) {
        const uint16_t bits = formats::LoadHalfBits(bytes + 2 * i);
        return dtype == "BF16" ? formats::Bf16ToFp32(bits) : formats::Fp16ToFp32(bits);
      });
    }
    return out;
  }

  // Rows of unsigned codes from words of a stream of bits.
  std::vector<uint8_t> Unpack(const SafetensorsTensor& tensor, int64_t rows, int64_t columns) {
    const int64_t words = formats::PackedWords(columns, scheme_.bits);
    std::vector<uint8_t> codes(static_cast<size_t>(rows * columns));
    std::vector<uint32_t> row_words(static_cast<size_t>(words));
    for (int64_t row = 0; row < rows; ++row) {
      std::memcpy(row_words.data(), tensor.bytes.data() + 4 * row * words,
                  static_cast<size_t>(4 * words));
      formats::UnpackBits(row_words.data(), columns, scheme_.bits, codes.data() + row * columns);
    }
    return codes;
  }

  // [groups, n]: the words of a group run down the rows, so they are put one behind the other
  // first.
  std::vector<uint8_t> ZeroPoints() {
    const int64_t words = formats::PackedWords(n_, scheme_.bits), groups = Groups();
    const SafetensorsTensor& tensor = files_.Take("weight_zero_point", "I32", {words, groups});
    std::vector<std::byte> turned(tensor.bytes.size());
    for (int64_t word = 0; word < words; ++word)
      for (int64_t group = 0; group < groups; ++group)
        std::memcpy(turned.data() + 4 * (group * words + word),
                    tensor.bytes.data() + 4 * (word * groups + group), 4);
    return Unpack({tensor.dtype, tensor.shape, turned}, groups, n_);
  }

  void Integers(const std::vector<float>& scales, DenseMatrix* out) {
    const Shape stored = {n_, k_};
    const SafetensorsTensor& shape = files_.Take("weight_shape", "I64", {2});
    TERN_CHECK_FORMAT(std::memcmp(shape.bytes.data(), stored.data(), 16) == 0, files_.folder(),
                      ": ", files_.Name("weight_shape"), " is not ", ShapeText(stored));
    const std::vector<uint8_t> codes = Unpack(
        files_.Take("weight_packed", "I32", {n_, formats::PackedWords(k_, scheme_.bits)}), n_, k_);
    const std::vector<uint8_t> zeros = scheme_.symmetric ? std::vector<uint8_t>() : ZeroPoints();
    const int half = 1 << (scheme_.bits - 1);
    for (int64_t row = 0; row < n_; ++row) {
      for (int64_t i = 0; i < k_; ++i) {
        const int64_t group = i / group_;
        const int zero = zeros.empty() ? half : zeros[static_cast<size_t>(group * n_ + row)];
        const auto at = static_cast<size_t>(row * k_ + i);
        out->values[at] = static_cast<float>(codes[at] - zero) *
                          scales[static_cast<size_t>(row * Groups() + group)];
      }
    }
  }

  void Fp4(const std::vector<float>& scales, DenseMatrix* out) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(
        files_.Take("weight_packed", "U8", {n_, k_ / 2}).bytes.data());
    for (int64_t i = 0; i < n_ * k_; ++i) {
      const int code = bytes[i / 2] >> (i % 2 == 0 ? 0 : 4) & 15;
      out->values[static_cast<size_t>(i)] = kFp4[code] * scales[static_cast<size_t>(i / group_)];
    }
  }

  const LayerTensors& files_;
  const ScaledScheme& scheme_;
  int64_t n_, k_, group_;
};

bool HasCodesOf(const ScaledScheme& scheme, const SafetensorsTensor& packed, int64_t k) {
  if (scheme.packing == Packing::kNone) return false;
  const bool words = scheme.packing == Packing::kBits;
  const int64_t width = words ? formats::PackedWords(k, scheme.bits) : k / 2;
  return packed.dtype == (words ? "I32" : "U8") && !packed.shape.empty() &&
         packed.shape.back() == width;
}

// Tells groups apart whose codes look the same.
bool HasScalesOf(const ScaledScheme& scheme, const LayerTensors& files, const Shape& weight) {
  if (!files.Has("weight_scale")) return false;
  const SafetensorsTensor& scale = files.Get("weight_scale");
  const std::string& dtype = scale.dtype;
  const bool fp8 = dtype == "F8_E4M3", exponents = dtype == "U8";
  const int64_t group = scheme.block_k == 0 ? weight[1] : scheme.block_k;
  return fp8 == (scheme.packing == Packing::kNvfp4) &&
         exponents == (scheme.packing == Packing::kMxfp4) &&
         scale.shape == Shape{weight[0], weight[1] / group} &&
         files.Has("weight_zero_point") == !scheme.symmetric;
}

}  // namespace

std::optional<DenseMatrix> ReadPackedFloats(const SafetensorsReader& tensors,
                                            const HfQuantization& quantization,
                                            const ParameterSpec& spec, const std::string& folder,
                                            std::set<std::string>* used) {
  const LayerTensors files(tensors, spec, folder, used);
  if (!files.Has("weight_packed")) return std::nullopt;
  const ScaledScheme* chosen = nullptr;
  for (const ScaledScheme& scheme : quantization.schemes) {
    if (!HasCodesOf(scheme, files.Get("weight_packed"), spec.shape[1])) continue;
    const bool fits = HasScalesOf(scheme, files, spec.shape);
    // Without one that fits, the first says what it would have wanted.
    if (fits || chosen == nullptr) chosen = &scheme;
    if (fits) break;
  }
  if (chosen == nullptr) return std::nullopt;
  return Layer(files, *chosen, spec).Read();
}

}  // namespace tern::engine
