// Attention over a paged cache on vectors of W floats, for attention_avx2.cc, attention_avx512.cc
// and attention_neon.cc.
//   Scores: a tile of kHeads heads x kTokens tokens keeps its 16 partial sums a dot product in
//   registers, so a key is widened once a tile and a query loaded once for kTokens keys. Heads of
//   neighbouring rows are of one tile, as those of one kv head are too few for it. The sums
//   of W tokens are then joined together by transposing, which adds in the order of common/lanes.h.
//   Values: a tile of kHeads heads x kColumns registers of the result stays in registers over the
//   tokens of a page, which is in the first-level cache by then.
// Simd: kWidth, MulAdd (fused), Widen (W fp16 or int8 elements as floats), Narrow (to fp16).
#pragma once

#include <cstdint>

#include "kernels/attention/attention_impl.h"
#include "kernels/common/exp.h"
#include "kernels/common/vec.h"

#define TERN_ATTENTION_INLINE inline __attribute__((always_inline))

namespace tern::kernels {

template <class Simd>
struct AttentionVec {
  static constexpr int W = Simd::kWidth;
  static constexpr int kRegs = static_cast<int>(kLanes) / W;
  static constexpr int kHeads = W == 8 ? 2 : 4;    // Of a tile; AVX2 has half the registers
  static constexpr int kTokens = W / 4;            // Of a tile of scores
  static constexpr int kQuarters = W / kTokens;    // Tiles whose products are joined at once
  static constexpr int kColumns = W == 4 ? 2 : 4;  // Registers of values of a tile
  static constexpr int kScores = static_cast<int>(kAttentionSegmentTokens) + W;
  using F = VecF<W>;
  using U = typename Vec<W>::U;

  // `left` elements of a row, zeros after them.
  template <class Row>
  static TERN_ATTENTION_INLINE F WidenSome(const Row* p, int64_t left) {
    Row padded[W] = {};
    for (int64_t i = 0; i < W && i < left; ++i) padded[i] = p[i];
    return Simd::Widen(padded);
  }

  // The rows of a tile of keys.
  template <class Row>
  struct Keys {
    const Row* row[kTokens];
  };

  // Dot products of a tile of keys with H queries, their 16 lanes folded to four: quarters[h *
  // kQuarters] has those of the tile's tokens, each in 128 bits.
  template <int H, class Row>
  static TERN_ATTENTION_INLINE void Dots(const Keys<Row>& k, const float* q, int64_t padded,
                                         int64_t e, F* quarters) {
    F acc[H][kTokens][kRegs];
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
        for (int r = 0; r < kRegs; ++r) acc[h][t][r] = F{};
      }
    }
    int64_t i = 0;
    for (; i + kLanes <= e; i += kLanes) {
#pragma GCC unroll 4
      for (int r = 0; r < kRegs; ++r) {
        F key[kTokens];
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) key[t] = Simd::Widen(k.row[t] + i + r * W);
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
          const F query = Load<W>(q + h * padded + i + r * W);
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t)
            acc[h][t][r] = Simd::MulAdd(query, key[t], acc[h][t][r]);
        }
      }
    }
    // All loops are unrolled here too: one that is not would keep the sums in memory.
#pragma GCC unroll 4
    for (int r = 0; r < kRegs; ++r) {
      const int64_t left = e - i - r * W;
      if (left <= 0) break;
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const F key = WidenSome(k.row[t] + i + r * W, left);
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h)
          acc[h][t][r] = Simd::MulAdd(Load<W>(q + h * padded + i + r * W), key, acc[h][t][r]);
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) quarters[h * kQuarters] = Fold(acc[h]);
  }

  // The first two steps of JoinLanes for the tokens of a tile: the upper half of each token's sums
  // is added to the lower half, twice; what is left of two tokens goes into one vector.
  static TERN_ATTENTION_INLINE F Fold(const F (&v)[kTokens][kRegs]) {
    if constexpr (W == 16) {
      F halves[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const F a = v[2 * i][0], b = v[2 * i + 1][0];
        halves[i] =
            __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
            __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30,
                                    31);
      }
      const F a = halves[0], b = halves[1];
      return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26,
                                     27) +
             __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30,
                                     31);
    } else if constexpr (W == 4) {
      return (v[0][0] + v[0][2]) + (v[0][1] + v[0][3]);
    } else {
      const F a = v[0][0] + v[0][1], b = v[1][0] + v[1][1];
      return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
             __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
  }

  // The last two steps, for the tokens of kQuarters tiles: their dot products in order.
  static TERN_ATTENTION_INLINE F JoinQuarters(const F* quarters) {
    F eighths[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const F a = quarters[2 * i], b = quarters[2 * i + 1];
      eighths[i] = InLanes<0, 1, 0, 1>(a, b) + InLanes<2, 3, 2, 3>(a, b);
    }
    const F sums =
        InLanes<0, 2, 0, 2>(eighths[0], eighths[1]) + InLanes<1, 3, 1, 3>(eighths[0], eighths[1]);
    // 128-bit lane n holds token n of each tile.
    if constexpr (W == 16) {
      return __builtin_shufflevector(sums, sums, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11,
                                     15);
    } else if constexpr (W == 4) {
      return sums;
    } else {
      return __builtin_shufflevector(sums, sums, 0, 4, 1, 5, 2, 6, 3, 7);
    }
  }

  // In each 128-bit lane: elements I0 and I1 of a, then I2 and I3 of b.
  template <int I0, int I1, int I2, int I3>
  static TERN_ATTENTION_INLINE F InLanes(F a, F b) {
    if constexpr (W == 16) {
      return __builtin_shufflevector(a, b, I0, I1, I2 + 16, I3 + 16, I0 + 4, I1 + 4, I2 + 20,
                                     I3 + 20, I0 + 8, I1 + 8, I2 + 24, I3 + 24, I0 + 12, I1 + 12,
                                     I2 + 28, I3 + 28);
    } else if constexpr (W == 4) {
      return __builtin_shufflevector(a, b, I0, I1, I2 + 4, I3 + 4);
    } else {
      return __builtin_shufflevector(a, b, I0, I1, I2 + 8, I3 + 8, I0 + 4, I1 + 4, I2 + 12,
                                     I3 + 12);
    }
  }

  template <class Row>
  static TERN_ATTENTION_INLINE void PrefetchRow(const Row* row, int64_t e) {
    constexpr int64_t kLine = 64 / sizeof(Row);
    for (int64_t i = 0; i < e; i += kLine) __builtin_prefetch(row + i, 0, 2);
  }

  // Dot products of H heads with `tokens` keys in a row: scores[h * kScores + t]. Writes up to W -
  // 1 places more.
  template <int H, class Row>
  static void ScoreHeads(const Row* k, const Row* next, int64_t stride, int64_t tokens,
                         const float* q, int64_t padded, int64_t e, float* scores) {
    for (int64_t begin = 0; begin < tokens; begin += W) {
      F quarters[H * kQuarters] = {};
      for (int tile = 0; tile < kQuarters; ++tile) {
        const int64_t first = begin + tile * kTokens;
        if (first >= tokens) break;
        Keys<Row> keys;
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          // Beyond the last token it is taken again, its products are not used.
          const int64_t token = first + t < tokens ? first + t : tokens - 1;
          keys.row[t] = k + token * stride;
          PrefetchRow(next + token * stride, e);
        }
        Dots<H>(keys, q, padded, e, quarters + tile);
      }
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h)
        Store(scores + h * kScores + begin, JoinQuarters(quarters + h * kQuarters));
    }
  }

  // acc[h][columns] += sum over tokens of p[h][t] v[t][columns], B registers of columns.
  template <int H, int B, class Row>
  static TERN_ATTENTION_INLINE void AddColumns(const Row* v, const Row* next, int64_t stride,
                                               int64_t tokens, const float* p, float* acc,
                                               int64_t padded, int64_t left) {
    F sum[H][B];
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) sum[h][b] = Load<W>(acc + h * padded + b * W);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      PrefetchRow(next + t * stride, B * W);
      F value[B];
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        const Row* from = v + t * stride + b * W;
        value[b] = B > 1 || left >= W ? Simd::Widen(from) : WidenSome(from, left);
      }
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) {
        const F weight = F{} + p[h * kScores + t];
#pragma GCC unroll 4
        for (int b = 0; b < B; ++b) sum[h][b] = Simd::MulAdd(weight, value[b], sum[h][b]);
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) Store(acc + h * padded + b * W, sum[h][b]);
    }
  }

  template <int H, class Row>
  static void AddHeads(const Row* v, const Row* next, int64_t stride, int64_t tokens,
                       const float* p, float* acc, int64_t padded, int64_t e) {
    int64_t i = 0;
    for (; i + kColumns * W <= e; i += kColumns * W)
      AddColumns<H, kColumns>(v + i, next + i, stride, tokens, p, acc + i, padded, e - i);
    for (; i < e; i += W)
      AddColumns<H, 1>(v + i, next + i, stride, tokens, p, acc + i, padded, e - i);
  }

  // Scores of n tokens to their exponentials; the maximum and the sum of step 3.
  static void Softmax(float* scores, int64_t n, float* max, float* sum) {
    const float lowest = -__builtin_inff();
    for (int64_t i = n; i % kLanes != 0; ++i) scores[i] = lowest;  // exp gives 0 for these.
    F highest = F{} + lowest;
    for (int64_t i = 0; i < n; i += W) {
      const F s = Load<W>(scores + i);
      highest = s > highest ? s : highest;
    }
    float top = lowest;
    for (int l = 0; l < W; ++l) top = highest[l] > top ? highest[l] : top;
    F acc[kRegs] = {};
    for (int64_t i = 0; i < n; i += kLanes) {
      for (int r = 0; r < kRegs; ++r) {
        const F p = ExpOf<F, U>(Load<W>(scores + i + r * W) - top);
        Store(scores + i + r * W, p);
        acc[r] += p;
      }
    }
    float lanes[kLanes];
    for (int r = 0; r < kRegs; ++r) Store(lanes + r * W, acc[r]);
    *max = top;
    *sum = JoinLanes(lanes);
  }

  // The tokens of a segment that are in one page.
  struct Part {
    int64_t offset;  // Of the first one's row, for the kv head
    int64_t next;    // Of the row after them in the next page, or -1 at the end of the segment
    int64_t scales;  // Of the first one's scale
    int64_t tokens, begin;  // How many, and the index of the first in the segment
  };

  // The row of token t, which need not be in the segment.
  static TERN_ATTENTION_INLINE int64_t RowOf(const SegmentArgs& args, int64_t t) {
    const KvPages& cache = *args.cache;
    return args.pages[t / kKvPageTokens] * cache.page_stride + args.kv_head * cache.head_stride +
           t % kKvPageTokens * cache.token_stride;
  }

  // Tokens [first, last) of the segment.
  template <class Body>
  static TERN_ATTENTION_INLINE void ForPages(const SegmentArgs& args, int64_t first, int64_t last,
                                             const Body& body) {
    const KvPages& cache = *args.cache;
    for (int64_t t = first; t < last;) {
      const int64_t page = args.pages[t / kKvPageTokens], slot = t % kKvPageTokens;
      const int64_t room = kKvPageTokens - slot, wanted = last - t;
      const int64_t tokens = room < wanted ? room : wanted;
      body(Part{RowOf(args, t), t + tokens < last ? RowOf(args, t + tokens) : -1,
                page * cache.scale_page_stride + args.kv_head * cache.scale_head_stride + slot,
                tokens, t - args.first});
      t += tokens;
    }
  }

  // Multiplies the scores of the first n tokens by the tokens' scales.
  static void MultiplyScales(const SegmentArgs& args, int64_t n, const float* scales,
                             float* scores) {
    ForPages(args, args.first, args.first + n, [&](const Part& part) {
      for (int64_t t = 0; t < part.tokens; ++t) scores[part.begin + t] *= scales[part.scales + t];
    });
  }

  // Calls body(h) with H heads from h as often as they fit, then with half as many, and so on.
  template <int H, class Body>
  static TERN_ATTENTION_INLINE void ForHeads(int64_t h, int64_t heads, const Body& body) {
    for (; h + H <= heads; h += H) body.template operator()<H>(h);
    if constexpr (H > 1) ForHeads<H / 2>(h, heads, body);
  }

  // acc[h] of heads [h, heads) += what the tokens of `part` have for them.
  template <class Row>
  static TERN_ATTENTION_INLINE void AddPart(const SegmentArgs& args, const Part& part,
                                            const Row* next, int64_t first_head, int64_t heads,
                                            const float* scores, float* acc) {
    const Row* from = static_cast<const Row*>(args.cache->values) + part.offset;
    ForHeads<kHeads>(first_head, heads, [&]<int H>(int64_t h) {
      AddHeads<H>(from, h == first_head ? next : from, args.cache->token_stride, part.tokens,
                  scores + h * kScores + part.begin, acc + h * args.padded, args.padded,
                  args.head_width);
    });
  }

  template <class Row>
  static TERN_ATTENTION_INLINE void AddValues(const SegmentArgs& args, int64_t heads,
                                              const float* scores, float* acc) {
    const KvPages& cache = *args.cache;
    const Row* values = static_cast<const Row*>(cache.values);
    for (int64_t i = 0; i < heads * args.padded; ++i) acc[i] = 0.0f;
    const bool more = args.last < args.end;
    ForPages(args, args.first, args.last, [&](const Part& part) {
      const Row* next = values + part.offset;
      if (part.next >= 0) {
        next = values + part.next;
      } else if (more) {
        next = static_cast<const Row*>(cache.keys) + RowOf(args, args.last);
      }
      AddPart(args, part, next, 0, heads, scores, acc);
    });
    if (!args.grows) return;
    for (int64_t row = 1; row < args.rows; ++row) {  // The token that this row is the first to see
      const int64_t t = args.last + row - 1;
      ForPages(args, t, t + 1, [&](const Part& part) {
        AddPart(args, part, values + part.offset, row * args.group, heads, scores, acc);
      });
    }
  }

  template <class Row>
  static void AttendHeads(const SegmentArgs& args, int64_t heads, const float* q, float* max,
                          float* sum, float* acc) {
    const KvPages& cache = *args.cache;
    const Row* keys = static_cast<const Row*>(cache.keys);
    const Row* values = static_cast<const Row*>(cache.values);
    const int64_t e = args.head_width, padded = args.padded, stride = cache.token_stride;
    constexpr bool kScaled = sizeof(Row) == 1;
    float scores[kQueryBlock * kScores];
    // What is read next goes to the first-level cache meanwhile; the hardware does not foresee
    // pages. Scores of tokens that a row does not see are not used.
    const int64_t last = args.grows ? args.last + args.rows - 1 : args.last;
    ForPages(args, args.first, last, [&](const Part& part) {
      const Row* next = part.next >= 0 ? keys + part.next : values + RowOf(args, args.first);
      ForHeads<kHeads>(0, heads, [&]<int H>(int64_t h) {
        const Row* from = keys + part.offset;
        ScoreHeads<H>(from, h == 0 ? next : from, stride, part.tokens, q + h * padded, padded, e,
                      scores + h * kScores + part.begin);
      });
    });
    for (int64_t h = 0; h < heads; ++h) {
      float* row = scores + h * kScores;
      const int64_t n = args.Tokens(h);
      if constexpr (kScaled) MultiplyScales(args, n, cache.key_scales, row);
      for (int64_t i = 0; i < n; ++i) row[i] *= args.scale;
      Softmax(row, n, max + h, sum + h);
      if constexpr (kScaled) MultiplyScales(args, n, cache.value_scales, row);
    }
    AddValues<Row>(args, heads, scores, acc);
  }

  static void Attend(const SegmentArgs& args, const SegmentState& out) {
    const int64_t queries = args.rows * args.group;
    for (int64_t h = 0; h < queries; h += kQueryBlock) {
      const int64_t heads = queries - h < kQueryBlock ? queries - h : kQueryBlock;
      const float* q = args.q + h * args.padded;
      float* acc = out.acc + h * args.padded;
      if (args.cache->type == KvType::kF32) {
        AttendHeads<float>(args, heads, q, out.max + h, out.sum + h, acc);
      } else if (args.cache->type == KvType::kF16) {
        AttendHeads<uint16_t>(args, heads, q, out.max + h, out.sum + h, acc);
      } else {
        AttendHeads<int8_t>(args, heads, q, out.max + h, out.sum + h, acc);
      }
    }
  }

  static void WriteHalf(const float* x, int64_t e, uint16_t* row) {
    int64_t i = 0;
    for (; i + W <= e; i += W) Simd::Narrow(Load<W>(x + i), row + i);
    if (i < e) {
      float padded[W] = {};
      uint16_t half[W];
      for (int64_t j = i; j < e; ++j) padded[j - i] = x[j];
      Simd::Narrow(Load<W>(padded), half);
      for (int64_t j = i; j < e; ++j) row[j] = half[j - i];
    }
  }

  static void WriteInt8(const float* x, int64_t e, int8_t* row, float* scale) {
    // Magnitudes compared as integers: NaN is above Inf is above every number.
    U highest = U{};
    int64_t i = 0;
    const auto magnitude = [](F v) {
      U bits;
      __builtin_memcpy(&bits, &v, sizeof(bits));
      return bits & 0x7FFFFFFFu;
    };
    for (; i + W <= e; i += W) {
      const U bits = magnitude(Load<W>(x + i));
      highest = bits > highest ? bits : highest;
    }
    float tail[W] = {};
    for (int64_t j = i; j < e; ++j) tail[j - i] = x[j];
    const U bits = magnitude(Load<W>(tail));
    highest = bits > highest ? bits : highest;
    uint32_t top = 0;
    for (int l = 0; l < W; ++l) top = highest[l] > top ? highest[l] : top;
    if (top >= 0x7F800000u) {
      *scale = __builtin_nanf("");
      for (int64_t j = 0; j < e; ++j) row[j] = 0;
      return;
    }
    float amax;
    __builtin_memcpy(&amax, &top, sizeof(amax));
    amax = amax < kKvFloor ? kKvFloor : amax;
    *scale = amax / 127.0f;
    // Adding 1.5 * 2^23 rounds to an integer, half to even, and leaves it in the low bits.
    const float to_code = 127.0f / amax;
    for (int64_t j = 0; j < e; ++j) {
      const float shifted = x[j] * to_code + 12582912.0f;
      uint32_t code;
      __builtin_memcpy(&code, &shifted, sizeof(code));
      row[j] = static_cast<int8_t>(code);
    }
  }

  static void Write(const float* x, int64_t e, KvType type, void* row, float* scale) {
    if (type == KvType::kF32) {
      __builtin_memcpy(row, x, static_cast<size_t>(e) * sizeof(float));
    } else if (type == KvType::kF16) {
      WriteHalf(x, e, static_cast<uint16_t*>(row));
    } else {
      WriteInt8(x, e, static_cast<int8_t*>(row), scale);
    }
  }
};

}  // namespace tern::kernels
