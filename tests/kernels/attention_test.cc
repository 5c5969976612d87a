// Attention over a paged cache: the oracle against fp64 softmax with a derived bound; every
// instruction set, cut, batch and cut of a prompt against the oracle, bit for bit; what must not be
// read (tokens to come, pages beyond a sequence) is NaN or out of bounds here.
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/attention/attention_impl.h"
#include "kernels/common/half.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

constexpr double kEps = 0x1.0p-24;  // Half an ulp of 1 in fp32: the relative error of one rounding.
const ParallelFor kCuts[] = {SerialFor, UnevenFor, OneByOneFor};

struct Options {
  KvType type = KvType::kF16;
  int64_t heads = 4, kv_heads = 2, head_width = 64, window = 0;
  float spread = 1;  // Of the queries: larger ones make the softmax sharper
};

// Sequences of the given lengths, all tokens written, in a cache whose pages are dealt at random.
// What was not written is NaN, and block tables go on with pages that do not exist.
class Sequences {
 public:
  Sequences(const Options& options, const std::vector<int64_t>& lengths)
      : options_(options), lengths_(lengths) {
    for (int64_t length : lengths) table_stride_ = std::max(table_stride_, length / 32 + 2);
    std::vector<int32_t> free(static_cast<size_t>(table_stride_) * lengths.size());
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), std::mt19937(3));
    tables_.assign(free.size(), 1 << 29);
    cache_.resize(free.size() * static_cast<size_t>(KvPageBytes(options.type, options.kv_heads,
                                                                options.head_width)));
    std::memset(cache_.data(), 0xFF, cache_.size());  // NaN in fp16 and in scales
    const int64_t kv_width = options.kv_heads * options.head_width;
    for (size_t s = 0; s < lengths.size(); ++s) {
      for (int64_t page = 0; page * kKvPageTokens < lengths[s]; ++page) {
        tables_[s * static_cast<size_t>(table_stride_) + static_cast<size_t>(page)] = free.back();
        free.pop_back();
      }
      Write(RandomFloats(lengths[s] * kv_width, 10 + static_cast<uint32_t>(s)),
            RandomFloats(lengths[s] * kv_width, 90 + static_cast<uint32_t>(s)), s);
    }
  }

  KvPages Pages() {
    return KvPagesAt(cache_.data(), options_.type, options_.kv_heads, options_.head_width);
  }

  void Write(const std::vector<float>& k, const std::vector<float>& v, size_t sequence) {
    const int64_t kv_width = options_.kv_heads * options_.head_width;
    std::vector<int32_t> positions(k.size() / static_cast<size_t>(kv_width));
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<int32_t> names(positions.size(), static_cast<int32_t>(sequence));
    WriteKv(k.data(), kv_width, v.data(), kv_width, options_.kv_heads, options_.head_width,
            {static_cast<int64_t>(positions.size()), positions.data(), names.data(), tables_.data(),
             table_stride_},
            Pages(), SerialFor);
  }

  // One row for each given (sequence, position).
  void SetRows(const std::vector<std::pair<int32_t, int32_t>>& rows) {
    sequences_.clear(), positions_.clear();
    for (const auto& [sequence, position] : rows) {
      sequences_.push_back(sequence), positions_.push_back(position);
    }
    q_ = RandomFloats(m() * Width(), 5, options_.spread);
  }
  // Every position of every sequence.
  void SetAllRows() {
    std::vector<std::pair<int32_t, int32_t>> rows;
    for (size_t s = 0; s < lengths_.size(); ++s) {
      for (int64_t t = 0; t < lengths_[s]; ++t)
        rows.emplace_back(static_cast<int32_t>(s), static_cast<int32_t>(t));
    }
    SetRows(rows);
  }

  int64_t m() const { return static_cast<int64_t>(positions_.size()); }
  int64_t Width() const { return options_.heads * options_.head_width; }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(options_.head_width)); }

  // The rows [begin, end) in one call.
  std::vector<float> Attend(int64_t begin, int64_t end, const ParallelFor& parallel) {
    std::vector<float> out(static_cast<size_t>((end - begin) * Width()), -7.0f);
    PagedAttention(q_.data() + begin * Width(), Width(), Shape(), Rows(begin, end), Pages(),
                   out.data(), Width(), parallel);
    return out;
  }
  std::vector<float> Attend(const ParallelFor& parallel) { return Attend(0, m(), parallel); }

  AttentionShape Shape() const {
    return {options_.heads, options_.kv_heads, options_.head_width, options_.window, Scale()};
  }
  KvRows Rows(int64_t begin, int64_t end) const {
    return {end - begin, positions_.data() + begin, sequences_.data() + begin, tables_.data(),
            table_stride_};
  }

  // Key (or value) of a token as the cache has it.
  double Cached(bool key, int64_t row, int64_t t, int64_t kv_head, int64_t e) {
    const KvPages p = Pages();
    const int64_t page = tables_[static_cast<size_t>(
        sequences_[static_cast<size_t>(row)] * table_stride_ + t / kKvPageTokens)];
    const int64_t at =
        page * p.page_stride + kv_head * p.head_stride + t % kKvPageTokens * p.token_stride + e;
    const void* data = key ? p.keys : p.values;
    if (p.type == KvType::kF32) return static_cast<const float*>(data)[at];
    if (p.type == KvType::kF16) return FloatFromHalf(static_cast<const uint16_t*>(data)[at]);
    const float* scales = key ? p.key_scales : p.value_scales;
    const float scale =
        scales[page * p.scale_page_stride + kv_head * p.scale_head_stride + t % kKvPageTokens];
    return static_cast<double>(static_cast<const int8_t*>(data)[at]) * scale;
  }

  void ExpectNearFp64(const std::vector<float>& out);

  Options options_;
  std::vector<int64_t> lengths_;
  int64_t table_stride_ = 0;
  std::vector<int32_t> tables_, sequences_, positions_;
  std::vector<uint8_t> cache_;
  std::vector<float> q_;
};

void Sequences::ExpectNearFp64(const std::vector<float>& out) {
  const int64_t e = options_.head_width, group = options_.heads / options_.kv_heads;
  for (int64_t row = 0; row < m(); ++row) {
    const int64_t end = positions_[static_cast<size_t>(row)] + 1;
    const int64_t first = options_.window > 0 ? std::max<int64_t>(end - options_.window, 0) : 0;
    for (int64_t head = 0; head < options_.heads; ++head) {
      const float* q = q_.data() + row * Width() + head * e;
      std::vector<double> p;
      double score_error = 0, highest = -1e300, lowest = 1e300, total = 0;
      for (int64_t t = first; t < end; ++t) {
        double dot = 0, size = 0;
        for (int64_t i = 0; i < e; ++i) {
          const double product = q[i] * Cached(true, row, t, head / group, i);
          dot += product, size += std::fabs(product);
        }
        // One product, e / 16 + 4 additions of the lanes, two scales: each rounds a part of `size`.
        const double roundings = static_cast<double>(e) / 16 + 8;
        score_error = std::max(score_error, roundings * kEps * size * Scale());
        p.push_back(dot * Scale());
        highest = std::max(highest, p.back()), lowest = std::min(lowest, p.back());
      }
      for (double& s : p) total += s = std::exp(s - highest);
      // A weight is off by the errors of its score and of the difference to the maximum, by 1 ulp
      // of exp and a rounding of the value's scale; the joins do the same once more a segment. The
      // sum of weights is off as much, so twice. Then up to 256 additions in a row and four
      // operations a segment.
      const double segments = static_cast<double>((end - first) / kAttentionSegmentTokens + 2);
      const double one = 2 * score_error + ((highest - lowest) + 4) * (1 + segments) * kEps;
      const double sum = std::min<double>(static_cast<double>(end - first), 256) + 4 * segments + 4;
      for (int64_t i = 0; i < e; ++i) {
        double want = 0, size = 0;
        for (int64_t t = first; t < end; ++t) {
          const double part =
              p[static_cast<size_t>(t - first)] / total * Cached(false, row, t, head / group, i);
          want += part, size += std::fabs(part);
        }
        const float found = out[static_cast<size_t>(row * Width() + head * e + i)];
        ASSERT_NEAR(found, want, size * (2 * one + 2 * sum * kEps))
            << "row " << row << " head " << head << " element " << i;
      }
    }
  }
}

Options With(KvType type, int64_t heads, int64_t kv_heads, int64_t head_width, int64_t window = 0,
             float spread = 1) {
  return {type, heads, kv_heads, head_width, window, spread};
}

// Positions around the edges of lanes, pages and segments.
std::vector<std::pair<int32_t, int32_t>> EdgeRows(int64_t length) {
  std::vector<std::pair<int32_t, int32_t>> rows;
  for (int32_t t : {0, 1, 7, 15, 16, 30, 31, 32, 33, 63, 64, 254, 255, 256, 257, 511, 512, 600})
    if (t < length) rows.emplace_back(0, t);
  return rows;
}

TEST(AttentionTest, OracleMatchesFp64) {
  SetActiveIsa(Isa::kScalar);
  for (KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    for (const Options& options :
         {With(type, 1, 1, 32), With(type, 4, 2, 64), With(type, 6, 2, 80, 40),
          With(type, 4, 1, 10, 300, 8), With(type, 2, 1, 64, 0, 30)}) {
      Sequences s(options, {601});
      s.SetRows(EdgeRows(601));
      s.ExpectNearFp64(s.Attend(SerialFor));
    }
  }
  SetActiveIsa(BestIsa());
}

TEST(AttentionTest, EveryIsaAndCutHasTheOraclesBits) {
  for (KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    for (const Options& options :
         {With(type, 1, 1, 1), With(type, 2, 2, 2), With(type, 3, 1, 24, 100), With(type, 1, 1, 32),
          With(type, 10, 2, 64), With(type, 4, 4, 80, 33), With(type, 8, 2, 96),
          With(type, 4, 2, 32, 31), With(type, 2, 2, 32, 32), With(type, 3, 3, 64, 256),
          With(type, 4, 1, 128, 257, 20), With(type, 17, 1, 40), With(type, 2, 1, 256, 1)}) {
      Sequences s(options, {601});
      s.SetRows(EdgeRows(601));
      SetActiveIsa(Isa::kScalar);
      const auto want = s.Attend(SerialFor);
      ForEachIsa([&](Isa isa) {
        for (const ParallelFor& parallel : kCuts) {
          EXPECT_EQ(s.Attend(parallel), want) << ToString(isa) << " " << options.head_width;
        }
      });
    }
  }
}

// Rows of several sequences in one call, one at a time, and in chunks: the paths that split a
// sequence and those that do not, and every place of a row in its batch.
TEST(AttentionTest, BatchAndCutOfThePromptDoNotShow) {
  for (KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    for (int64_t window : {0, 50}) {
      Sequences s(With(type, 4, 2, 32, window), {1, 33, 300, 64});
      s.SetAllRows();
      const auto want = s.Attend(SerialFor);
      for (int64_t chunk : {1, 7, 31, 32, 128}) {
        std::vector<float> found;
        for (int64_t begin = 0; begin < s.m(); begin += chunk) {
          const auto part = s.Attend(begin, std::min(begin + chunk, s.m()), UnevenFor);
          found.insert(found.end(), part.begin(), part.end());
        }
        EXPECT_EQ(found, want) << "chunks of " << chunk;
      }
    }
  }
}

// Neighbouring rows are done at once where their heads fit: a row has the bits of a call of its
// own.
TEST(AttentionTest, NeighboursDoNotShow) {
  for (KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    for (int64_t group : {1, 2, 3, 5, 8, 9, 16, 17}) {
      for (int64_t window : {0, 270}) {
        Sequences s(With(type, group, 1, 24, window), {282, 70});
        s.SetAllRows();
        SetActiveIsa(Isa::kScalar);
        std::vector<float> want;
        for (int64_t row = 0; row < s.m(); ++row) {
          const auto one = s.Attend(row, row + 1, SerialFor);
          want.insert(want.end(), one.begin(), one.end());
        }
        ForEachIsa([&](Isa isa) {
          EXPECT_EQ(s.Attend(UnevenFor), want) << ToString(isa) << " group " << group;
        });
      }
    }
  }
}

TEST(AttentionTest, OfOneTokenIsItsValue) {
  Sequences s(With(KvType::kF16, 2, 2, 16), {1});
  s.SetAllRows();
  const auto out = s.Attend(SerialFor);
  for (int64_t i = 0; i < s.Width(); ++i)
    EXPECT_EQ(out[static_cast<size_t>(i)],
              static_cast<float>(s.Cached(false, 0, 0, i / 16, i % 16)));
}

TEST(AttentionTest, NanStaysInTheHeadsThatReadIt) {
  for (KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    ForEachIsa([&](Isa) {
      Sequences s(With(type, 4, 2, 32), {40});
      s.SetAllRows();
      const auto before = s.Attend(SerialFor);
      auto k = RandomFloats(40 * 64, 10), v = RandomFloats(40 * 64, 90);
      k[20 * 64 + 32 + 3] = std::nanf("");  // Token 20, kv head 1
      s.Write(k, v, 0);
      const auto after = s.Attend(SerialFor);
      for (size_t i = 0; i < after.size(); ++i) {
        const size_t token = i / 128, kv_head = i % 128 / 64;
        if (token >= 20 && kv_head == 1) {
          EXPECT_TRUE(std::isnan(after[i]));
        } else {
          EXPECT_EQ(after[i], before[i]);
        }
      }
    });
  }
}

TEST(AttentionTest, StridesAndResultInPlace) {
  Sequences s(With(KvType::kF16, 4, 2, 24), {70});
  s.SetRows({{0, 69}, {0, 3}});
  const auto want = s.Attend(SerialFor);
  const int64_t width = s.Width(), ld = width + 5;
  std::vector<float> q(static_cast<size_t>(2 * ld), 42.0f);
  for (int64_t row = 0; row < 2; ++row)
    std::copy_n(s.q_.data() + row * width, width, q.data() + row * ld);
  PagedAttention(q.data(), ld, s.Shape(), s.Rows(0, 2), s.Pages(), q.data(), ld, OneByOneFor);
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t i = 0; i < ld; ++i)
      EXPECT_EQ(q[static_cast<size_t>(row * ld + i)],
                i < width ? want[static_cast<size_t>(row * width + i)] : 42.0f);
  }
  PagedAttention(nullptr, 0, s.Shape(), s.Rows(0, 0), s.Pages(), nullptr, 0, SerialFor);
}

TEST(WriteKvTest, Fp16RoundsAsTheHardwareDoes) {
  // Each half, the floats next to it, half-way to the next one, and next to that.
  std::vector<float> values;
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = FloatFromHalf(static_cast<uint16_t>(half));
    for (uint32_t offset : {0u, 1u, 0xFFFu, 0x1000u, 0x1001u, ~0u})
      values.push_back(HalfBitsFloat(HalfFloatBits(value) + offset));
  }
  for (float value : {65519.99f, 65520.0f, -70000.0f, 1e-8f, 2.9802322e-8f, 2.9802326e-8f, 1e-40f})
    values.push_back(value);
  const int64_t n = static_cast<int64_t>(values.size());
  std::vector<uint16_t> want(values.size());
  WriteKvHeadRef(values.data(), n, KvType::kF16, want.data(), nullptr);
  ForEachIsa([&](Isa isa) {
    std::vector<uint16_t> found(values.size());
    WriteKvHead(values.data(), n, KvType::kF16, found.data(), nullptr);
    EXPECT_TRUE(found == want) << ToString(isa);
  });
  for (size_t i = 0; i < values.size(); ++i) {
    // Nearest: no half is closer. Steps of a half: 2^-24 below 2^-14, else 2^-10 of the exponent.
    const float x = values[i], back = FloatFromHalf(want[i]);
    if (!std::isfinite(x) || std::fabs(x) >= 65520.0f) {
      EXPECT_TRUE(std::isnan(x) ? std::isnan(back) : std::isinf(back)) << x;
      continue;
    }
    const int exponent = std::max(std::ilogb(x == 0 ? 1e-30f : x), -14);
    EXPECT_LE(std::fabs(x - back), std::ldexp(1.0f, exponent - 11)) << x;
  }
}

TEST(WriteKvTest, Int8CodesAndScales) {
  for (int64_t e : {1, 7, 16, 24, 64, 80, 256}) {
    for (float size : {1.0f, 1e-20f, 1e-35f, 1e30f, 0.0f}) {
      const auto x = RandomFloats(e, static_cast<uint32_t>(e), size);
      std::vector<int8_t> want(x.size());
      float want_scale = 0, amax = 0;
      WriteKvHeadRef(x.data(), e, KvType::kInt8, want.data(), &want_scale);
      for (float value : x) amax = std::max(amax, std::fabs(value));
      EXPECT_EQ(want_scale, std::max(amax, kKvFloor) / 127.0f);
      for (size_t i = 0; i < x.size(); ++i) {
        // Half a step, and the roundings of scale, product and code * scale: |code| <= 127 each.
        EXPECT_NEAR(want[i] * static_cast<double>(want_scale), x[i],
                    want_scale * (0.5 + 4 * 127 * kEps));
      }
      ForEachIsa([&](Isa isa) {
        std::vector<int8_t> found(x.size());
        float scale = -1;
        WriteKvHead(x.data(), e, KvType::kInt8, found.data(), &scale);
        EXPECT_EQ(found, want) << ToString(isa);
        EXPECT_EQ(scale, want_scale);
      });
    }
  }
}

TEST(WriteKvTest, Int8OfNanOrInfHasANanScale) {
  for (float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    for (size_t at : {0, 17, 36}) {
      auto x = RandomFloats(37, 1);
      x[at] = bad;
      ForEachIsa([&](Isa isa) {
        std::vector<int8_t> codes(x.size(), 1);
        float scale = 1;
        WriteKvHead(x.data(), 37, KvType::kInt8, codes.data(), &scale);
        EXPECT_TRUE(std::isnan(scale)) << ToString(isa) << " " << bad << " at " << at;
        EXPECT_EQ(codes, std::vector<int8_t>(x.size())) << ToString(isa);
      });
    }
  }
}

}  // namespace
}  // namespace tern::kernels
