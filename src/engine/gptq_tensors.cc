// See gptq_tensors.h.
#include "engine/gptq_tensors.h"

#include <cstring>
#include <vector>

#include "base/error.h"
#include "engine/layer_tensors.h"
#include "engine/weight_table.h"
#include "formats/bit_pack.h"
#include "formats/half.h"

namespace tern::engine {
namespace {

using formats::SafetensorsReader;
using formats::SafetensorsTensor;
using Packing = ScaledScheme::Packing;
using Shape = std::vector<int64_t>;

// Where an output lies within AWQ's word of 8.
constexpr int64_t kAwqPlace[8] = {0, 4, 1, 5, 2, 6, 3, 7};

class Layer {
 public:
  Layer(const LayerTensors& files, const ScaledScheme& scheme, const ParameterSpec& spec)
      : files_(files),
        scheme_(scheme),
        n_(spec.shape[0]),
        k_(spec.shape[1]),
        group_(scheme.block_k == 0 ? k_ : scheme.block_k),
        groups_(k_ / group_) {
    TERN_CHECK_FORMAT(k_ % group_ == 0, files_.folder(), ": rows of ", files_.Name("weight"),
                      " have ", k_, " weights; want a multiple of the group's ", group_);
    for (const int64_t size : {n_, k_}) {
      TERN_CHECK_FORMAT(size * scheme.bits % 32 == 0, files_.folder(), ": ", files_.Name("weight"),
                        " is ", ShapeText(spec.shape), ", whose codes do not fill whole words");
    }
  }

  DenseMatrix Read() {
    const bool awq = scheme_.packing == Packing::kAwq;
    const std::vector<uint8_t> codes_KN = awq ? Along("qweight", k_) : Down();
    const std::vector<uint8_t> zeros_GN = Along("qzeros", groups_);
    const std::vector<float> scales_GN = Scales();
    const std::vector<int64_t> group_of = GroupIndex();
    // v1 stores zero points less one, within the bits of a code.
    const int add = scheme_.packing == Packing::kGptqV1 ? 1 : 0, mask = (1 << scheme_.bits) - 1;
    DenseMatrix out{std::vector<float>(static_cast<size_t>(n_ * k_)), n_, k_};
    for (int64_t i = 0; i < k_; ++i) {
      for (int64_t row = 0; row < n_; ++row) {
        const auto at = static_cast<size_t>(group_of[static_cast<size_t>(i)] * n_ + row);
        const int zero = (zeros_GN[at] + add) & mask;
        const int code = codes_KN[static_cast<size_t>(i * n_ + row)];
        out.values[static_cast<size_t>(row * k_ + i)] =
            static_cast<float>(code - zero) * scales_GN[at];
      }
    }
    CheckFinite(out.values, StrCat(files_.folder(), ": ", files_.Name("weight")));
    return out;
  }

 private:
  // Codes [K, N] of streams that run down the inputs, one an output.
  std::vector<uint8_t> Down() {
    const int64_t words = formats::PackedWords(k_, scheme_.bits);
    const auto bytes = files_.Take("qweight", "I32", {words, n_}).bytes;
    std::vector<uint8_t> out(static_cast<size_t>(n_ * k_)), codes(static_cast<size_t>(k_));
    std::vector<uint32_t> stream(static_cast<size_t>(words));
    for (int64_t row = 0; row < n_; ++row) {
      for (int64_t word = 0; word < words; ++word)
        std::memcpy(&stream[static_cast<size_t>(word)], bytes.data() + 4 * (word * n_ + row), 4);
      formats::UnpackBits(stream.data(), k_, scheme_.bits, codes.data());
      for (int64_t i = 0; i < k_; ++i)
        out[static_cast<size_t>(i * n_ + row)] = codes[static_cast<size_t>(i)];
    }
    return out;
  }

  // [rows, N] of streams that run over the outputs, in AWQ's order where it is AWQ's.
  std::vector<uint8_t> Along(const char* part, int64_t rows) {
    const int64_t words = formats::PackedWords(n_, scheme_.bits);
    const auto bytes = files_.Take(part, "I32", {rows, words}).bytes;
    std::vector<uint8_t> out(static_cast<size_t>(rows * n_)), codes(static_cast<size_t>(n_));
    std::vector<uint32_t> stream(static_cast<size_t>(words));
    const bool awq = scheme_.packing == Packing::kAwq;
    for (int64_t row = 0; row < rows; ++row) {
      std::memcpy(stream.data(), bytes.data() + 4 * row * words, static_cast<size_t>(4 * words));
      formats::UnpackBits(stream.data(), n_, scheme_.bits, codes.data());
      for (int64_t i = 0; i < n_; ++i)
        out[static_cast<size_t>(row * n_ + i)] =
            codes[static_cast<size_t>(awq ? i / 8 * 8 + kAwqPlace[i % 8] : i)];
    }
    return out;
  }

  std::vector<float> Scales() {  // [G, N]
    const std::string dtype = files_.Get("scales").dtype;
    TERN_CHECK_FORMAT(dtype == "F16" || dtype == "BF16", files_.folder(), ": ",
                      files_.Name("scales"), " is ", dtype, "; want F16 or BF16");
    const auto bytes = files_.Take("scales", dtype, {groups_, n_}).bytes;
    std::vector<float> out(static_cast<size_t>(groups_ * n_));
    for (size_t i = 0; i < out.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, bytes.data() + 2 * i, 2);
      out[i] = dtype == "F16" ? formats::Fp16ToFp32(bits) : formats::Bf16ToFp32(bits);
    }
    return out;
  }

  // The group of each input: adjacent ones, unless g_idx says otherwise.
  std::vector<int64_t> GroupIndex() {
    std::vector<int64_t> out(static_cast<size_t>(k_));
    const bool given = scheme_.packing != Packing::kAwq && files_.Has("g_idx");
    const std::byte* bytes = given ? files_.Take("g_idx", "I32", {k_}).bytes.data() : nullptr;
    for (int64_t i = 0; i < k_; ++i) {
      int32_t group = static_cast<int32_t>(i / group_);
      if (given) std::memcpy(&group, bytes + 4 * i, 4);
      TERN_CHECK_FORMAT(group >= 0 && group < groups_, files_.folder(), ": ", files_.Name("g_idx"),
                        " holds ", group, " at ", i, "; want 0 to ", groups_ - 1);
      out[static_cast<size_t>(i)] = group;
    }
    return out;
  }

  const LayerTensors& files_;
  const ScaledScheme& scheme_;
  int64_t n_, k_, group_, groups_;
};

}  // namespace

std::optional<DenseMatrix> ReadGptqMatrix(const SafetensorsReader& tensors,
                                          const HfQuantization& quantization,
                                          const ParameterSpec& spec, const std::string& folder,
                                          std::set<std::string>* used) {
  const LayerTensors files(tensors, spec, folder, used);
  if (!files.Has("qweight")) return std::nullopt;
  for (const ScaledScheme& scheme : quantization.schemes) {
    if (scheme.packing == Packing::kGptqV1 || scheme.packing == Packing::kGptqV2 ||
        scheme.packing == Packing::kAwq)
      return Layer(files, scheme, spec).Read();
  }
  return std::nullopt;
}

}  // namespace tern::engine
