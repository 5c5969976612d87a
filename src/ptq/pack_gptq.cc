// See pack_gptq.h.
#include "ptq/pack_gptq.h"

#include <cstring>

#include "base/error.h"
#include "formats/bit_pack.h"
#include "formats/half.h"

namespace tern::ptq {
namespace {

using quant::QuantizedWeight;

// Place in a word -> which of the 8 outputs lies there (AWQ's gemm kernel unpacks two at a time).
constexpr int64_t kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

class Packer {
 public:
  Packer(const std::string& base, const QuantizedWeight& w)
      : base_(base),
        codes_(w.codes_NK.const_data_ptr<int8_t>()),
        scale_(w.scales.scale_RC.const_data_ptr<float>()),
        zero_(w.scales.zero_RC.defined() ? w.scales.zero_RC.const_data_ptr<float>() : nullptr),
        n_(w.codes_NK.size(0)),
        k_(w.codes_NK.size(1)),
        groups_(w.scales.scale_RC.size(1)),
        bits_(w.format.bits) {
    TERN_CHECK(w.format.scale_dtype == quant::ScaleDtype::kF16 && w.format.block_n == 1 &&
                   k_ % groups_ == 0 && n_ * bits_ % 32 == 0 && k_ * bits_ % 32 == 0,
               base, " as ", w.format.Describe());
  }

  uint8_t Code(int64_t row, int64_t i) const {
    return static_cast<uint8_t>(codes_[row * k_ + i] + Half());
  }
  uint8_t Zero(int64_t row, int64_t group) const {
    const int zero = zero_ != nullptr ? static_cast<int>(zero_[row * groups_ + group]) : 0;
    return static_cast<uint8_t>(zero + Half());
  }

  // A stream of bits for each output, down its inputs: [K bits / 32, N].
  NamedTensor Down() const {
    const int64_t words = formats::PackedWords(k_, bits_);
    NamedTensor out = Words("qweight", words, n_);
    std::vector<uint8_t> codes(static_cast<size_t>(k_));
    std::vector<uint32_t> stream(static_cast<size_t>(words));
    for (int64_t row = 0; row < n_; ++row) {
      for (int64_t i = 0; i < k_; ++i) codes[static_cast<size_t>(i)] = Code(row, i);
      formats::PackBits(codes.data(), k_, bits_, stream.data());
      for (int64_t word = 0; word < words; ++word)
        std::memcpy(out.bytes.data() + 4 * (word * n_ + row), &stream[static_cast<size_t>(word)],
                    4);
    }
    return out;
  }

  // A stream of bits over the outputs for each of `rows` rows: [rows, N bits / 32].
  template <class At>
  NamedTensor Along(const char* part, int64_t rows, const At& at) const {
    const int64_t words = formats::PackedWords(n_, bits_);
    NamedTensor out = Words(part, rows, words);
    std::vector<uint8_t> codes(static_cast<size_t>(n_));
    std::vector<uint32_t> stream(static_cast<size_t>(words));
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < n_; ++i) codes[static_cast<size_t>(i)] = at(row, i);
      formats::PackBits(codes.data(), n_, bits_, stream.data());
      std::memcpy(out.bytes.data() + 4 * row * words, stream.data(),
                  static_cast<size_t>(4 * words));
    }
    return out;
  }

  NamedTensor Scales() const {  // [G, N]
    NamedTensor out{base_ + "scales", "F16", {groups_, n_}, {}};
    out.bytes.resize(static_cast<size_t>(2 * groups_ * n_));
    for (int64_t group = 0; group < groups_; ++group) {
      for (int64_t row = 0; row < n_; ++row) {
        const uint16_t bits = formats::Fp32ToFp16(scale_[row * groups_ + group]);
        std::memcpy(out.bytes.data() + 2 * (group * n_ + row), &bits, 2);
      }
    }
    return out;
  }

  NamedTensor GroupIndex() const {
    NamedTensor out = Words("g_idx", k_, 1);
    out.shape = {k_};
    for (int64_t i = 0; i < k_; ++i) {
      const auto group = static_cast<int32_t>(i / (k_ / groups_));
      std::memcpy(out.bytes.data() + 4 * i, &group, 4);
    }
    return out;
  }

  int64_t k() const { return k_; }
  int64_t groups() const { return groups_; }
  uint8_t mask() const { return static_cast<uint8_t>((1 << bits_) - 1); }

 private:
  int Half() const { return 1 << (bits_ - 1); }
  NamedTensor Words(const char* part, int64_t rows, int64_t columns) const {
    return {base_ + part,
            "I32",
            {rows, columns},
            std::vector<uint8_t>(static_cast<size_t>(4 * rows * columns))};
  }

  std::string base_;
  const int8_t* codes_;
  const float *scale_, *zero_;
  int64_t n_, k_, groups_;
  int bits_;
};

}  // namespace

std::vector<NamedTensor> PackGptq(const std::string& base, const QuantizedWeight& w,
                                  bool less_one) {
  TERN_CHECK(!less_one || w.format.symmetric, base, ": v1 with zero points");
  const Packer packer(base, w);
  const auto zero = [&](int64_t group, int64_t row) {
    return static_cast<uint8_t>((packer.Zero(row, group) - (less_one ? 1 : 0)) & packer.mask());
  };
  return {packer.Down(), packer.Along("qzeros", packer.groups(), zero), packer.Scales(),
          packer.GroupIndex()};
}

std::vector<NamedTensor> PackAwq(const std::string& base, const QuantizedWeight& w) {
  TERN_CHECK(w.format.bits == 4, base, ": AWQ of ", w.format.bits, " bits");
  const Packer packer(base, w);
  const auto ordered = [](int64_t i) { return i / 8 * 8 + kAwqOrder[i % 8]; };
  return {
      packer.Along("qweight", packer.k(),
                   [&](int64_t i, int64_t row) { return packer.Code(ordered(row), i); }),
      packer.Along("qzeros", packer.groups(),
                   [&](int64_t group, int64_t row) { return packer.Zero(ordered(row), group); }),
      packer.Scales()};
}

}  // namespace tern::ptq
