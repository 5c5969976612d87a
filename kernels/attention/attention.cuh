// Attention over a paged cache on a GPU, equal to the CPU kernels bit for bit: the steps and the
// order of attention.h, of which a segment is one block of threads and the joining a second kernel.
//
//   block (segment, kv head, row):
//     scores   16 threads a token, thread l the elements l, l + 16, ... of its key: the lanes of
//              common/lanes.h, joined by shuffles; a key is read once for kAttentionHeads queries
//     softmax  one warp a query head; the 16 lanes of the sum are 16 threads
//     values   one thread an element of the result, tokens in ascending order, read by neighbours
//   join: one thread an element, segments in ascending order
#pragma once

#include <cstdint>

#include "kernels/attention/attention_cuda.h"
#include "kernels/attention/kv_rows.cuh"
#include "kernels/common/exp.h"
#include "kernels/common/half.h"
#include "kernels/common/lanes.h"
#include "kernels/simt/intrin.h"

namespace tern::kernels {

inline constexpr int kAttentionThreads = 128;
inline constexpr int kAttentionHeads = 8;  // Query heads of a block
inline constexpr int kAttentionTokens = kAttentionThreads / static_cast<int>(kLanes);

// The part of a row's visible tokens in its i-th segment: [first, last), empty beyond the last one.
struct TokenSpan {
  int64_t first, last;
};

TERN_DEVICE TokenSpan SegmentOfRow(const AttentionArgs& args, int64_t row, int64_t i) {
  const int64_t end = args.rows.positions[row] + int64_t{1}, window = args.shape.window;
  const int64_t visible = window > 0 && end > window ? end - window : 0;
  const int64_t begin = (visible / kAttentionSegmentTokens + i) * kAttentionSegmentTokens;
  const int64_t limit = begin + kAttentionSegmentTokens;
  return {begin > visible ? begin : visible, limit < end ? limit : end};
}

TERN_DEVICE float WidenElement(uint16_t value) { return FloatFromHalf(value); }
TERN_DEVICE float WidenElement(int8_t value) { return static_cast<float>(value); }

// Joins the 16 lanes of each half of a warp as JoinLanes does: valid in lanes 0 and 16.
TERN_DEVICE float JoinHalfWarp(float sum) {
  TERN_UNROLL
  for (unsigned half = kLanes / 2; half > 0; half /= 2) sum += simt::ShuffleDownFloat(sum, half);
  return sum;
}

// Where a block works.
template <class Row>
struct SegmentPlace {
  const Row *keys, *values;
  const int32_t* pages;
  const KvPages* cache;
  int64_t kv_head;

  TERN_DEVICE int64_t RowAt(int64_t t) const {
    return pages[t / kKvPageTokens] * cache->page_stride + kv_head * cache->head_stride +
           t % kKvPageTokens * cache->token_stride;
  }
  TERN_DEVICE int64_t ScaleAt(int64_t t) const {
    return pages[t / kKvPageTokens] * cache->scale_page_stride +
           kv_head * cache->scale_head_stride + t % kKvPageTokens;
  }
};

using SharedScores = float[kAttentionHeads][kAttentionSegmentTokens];
using SharedQueries = float[kAttentionHeads][kAttentionMaxWidth];

template <class Row>
TERN_DEVICE void ScoreSegment(const SegmentPlace<Row>& at, const TokenSpan& span, int heads,
                              int width, float scale, const SharedQueries& q,
                              SharedScores& scores) {
  const int lane = static_cast<int>(threadIdx.x) % static_cast<int>(kLanes);
  const int slot = static_cast<int>(threadIdx.x) / static_cast<int>(kLanes);
  for (int64_t begin = span.first; begin < span.last; begin += kAttentionTokens) {
    const int64_t t = begin + slot;
    const bool active = t < span.last;
    float acc[kAttentionHeads] = {};
    if (active) {
      const Row* key = at.keys + at.RowAt(t);
      for (int i = lane; i < width; i += static_cast<int>(kLanes)) {
        const float element = WidenElement(key[i]);
        TERN_UNROLL
        for (int h = 0; h < kAttentionHeads; ++h) {
          if (h < heads) acc[h] = fmaf(q[h][i], element, acc[h]);
        }
      }
    }
    TERN_UNROLL
    for (int h = 0; h < kAttentionHeads; ++h) {
      if (h >= heads) break;
      float score = JoinHalfWarp(acc[h]);
      if (!active || lane != 0) continue;
      if constexpr (sizeof(Row) == 1) score *= at.cache->key_scales[at.ScaleAt(t)];
      scores[h][t - span.first] = score * scale;
    }
  }
}

// Scores of `heads` heads to exponentials; the maximum of a head in every lane of its warp is kept
// in max[h], its sum in sum[h], by lane 0.
TERN_DEVICE void SoftmaxSegment(int n, int heads, SharedScores& scores, float* max, float* sum) {
  constexpr int kWarps = kAttentionThreads / 32;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int h = warp; h < heads; h += kWarps) {
    float top = -INFINITY;
    for (int i = lane; i < n; i += 32) top = scores[h][i] > top ? scores[h][i] : top;
    TERN_UNROLL
    for (unsigned mask = 16; mask > 0; mask /= 2) {
      const float other = simt::ShuffleXorFloat(top, mask);
      top = other > top ? other : top;
    }
    for (int i = lane; i < n; i += 32) scores[h][i] = Exp(scores[h][i] - top);
    if (lane == 0) max[h] = top;
  }
  simt::SyncBlock();
  for (int h = warp; h < heads; h += kWarps) {
    float lanes = 0.0f;
    if (lane < kLanes) {
      for (int i = lane; i < n; i += static_cast<int>(kLanes)) lanes += scores[h][i];
    }
    lanes = JoinHalfWarp(lanes);
    if (lane == 0) sum[h] = lanes;
  }
}

// state[h * state_stride + e] = sum over tokens of the weights times the values.
template <class Row>
TERN_DEVICE void AddValues(const SegmentPlace<Row>& at, const TokenSpan& span, int heads, int width,
                           const SharedScores& scores, float* state, int64_t state_stride) {
  for (int e = static_cast<int>(threadIdx.x); e < width; e += kAttentionThreads) {
    float acc[kAttentionHeads] = {};
    for (int64_t t = span.first; t < span.last; ++t) {
      const float value = WidenElement(at.values[at.RowAt(t) + e]);
      float scale = 1.0f;
      if constexpr (sizeof(Row) == 1) scale = at.cache->value_scales[at.ScaleAt(t)];
      TERN_UNROLL
      for (int h = 0; h < kAttentionHeads; ++h) {
        if (h < heads) acc[h] = fmaf(scores[h][t - span.first] * scale, value, acc[h]);
      }
    }
    for (int h = 0; h < heads; ++h) state[h * state_stride + e] = acc[h];
  }
}

// Grid: (max_segments, kv_heads * ceil(group / kAttentionHeads), m) blocks of kAttentionThreads.
// Row: uint16_t (fp16) or int8_t.
template <class Row>
__global__ void __launch_bounds__(kAttentionThreads)
    AttendSegmentsKernel(const AttentionArgs args) {
  TERN_SHARED(SharedQueries, q);
  TERN_SHARED(SharedScores, scores);
  TERN_SHARED(float, max, [kAttentionHeads]);
  TERN_SHARED(float, sum, [kAttentionHeads]);
  const int64_t row = blockIdx.z, segment = blockIdx.x;
  const TokenSpan span = SegmentOfRow(args, row, segment);
  if (span.first >= span.last) return;  // The whole block.
  const int group = static_cast<int>(args.shape.heads / args.shape.kv_heads);
  const int blocks = (group + kAttentionHeads - 1) / kAttentionHeads;
  const int64_t kv_head = blockIdx.y / blocks;
  const int first = static_cast<int>(blockIdx.y) % blocks * kAttentionHeads;
  const int heads = group - first < kAttentionHeads ? group - first : kAttentionHeads;
  const int64_t head = kv_head * group + first;
  const int width = static_cast<int>(args.shape.head_width);
  for (int i = static_cast<int>(threadIdx.x); i < heads * width; i += kAttentionThreads)
    q[i / width][i % width] = args.q[row * args.ldq + head * width + i];
  simt::SyncBlock();

  const SegmentPlace<Row> at{static_cast<const Row*>(args.cache.keys),
                             static_cast<const Row*>(args.cache.values),
                             BlockTableOfRow(args.rows, row), &args.cache, kv_head};
  ScoreSegment(at, span, heads, width, args.shape.scale, q, scores);
  simt::SyncBlock();
  SoftmaxSegment(static_cast<int>(span.last - span.first), heads, scores, max, sum);
  const int64_t state_stride = args.max_segments * static_cast<int64_t>(width + 2);
  float* state = args.states + (row * args.shape.heads + head) * state_stride +
                 segment * static_cast<int64_t>(width + 2);
  AddValues(at, span, heads, width, scores, state, state_stride);
  simt::SyncBlock();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < heads) {
    state[thread * state_stride + width] = max[thread];
    state[thread * state_stride + width + 1] = sum[thread];
  }
}

// Grid: (H, m) blocks of kAttentionThreads.
__global__ void __launch_bounds__(kAttentionThreads) JoinSegmentsKernel(const AttentionArgs args) {
  const int64_t head = blockIdx.x, row = blockIdx.y;
  const int width = static_cast<int>(args.shape.head_width);
  const float* states = args.states + (row * args.shape.heads + head) * args.max_segments *
                                          static_cast<int64_t>(width + 2);
  for (int e = static_cast<int>(threadIdx.x); e < width; e += kAttentionThreads) {
    float max = states[width], sum = states[width + 1], acc = states[e];
    for (int64_t i = 1; i < args.max_segments; ++i) {
      const TokenSpan span = SegmentOfRow(args, row, i);
      if (span.first >= span.last) break;
      const float* next = states + i * static_cast<int64_t>(width + 2);
      const float top = max < next[width] ? next[width] : max;
      const float f = Exp(max - top), g = Exp(next[width] - top);
      max = top;
      sum = sum * f + next[width + 1] * g;
      acc = acc * f + next[e] * g;
    }
    args.out[row * args.ldo + head * width + e] = acc / sum;
  }
}

}  // namespace tern::kernels
