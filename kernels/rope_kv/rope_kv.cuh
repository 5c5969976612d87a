// Rotation of queries and keys and writing of the cache on a GPU, equal to the CPU kernels bit for
// bit (each product rounded once).
//
//   block (head, row), one warp: query heads first, then heads of keys, then of values
//     query   lane l the pairs l, l + 32, ... of the head: neighbours read neighbouring elements of
//             low, high, cosine and sine
//     key     lane l the elements l, l + 32, ...; each is rotated where it is read, for int8 twice:
//             for the maximum, then for its code
#pragma once

#include <cstdint>

#include "kernels/attention/attention_impl.h"
#include "kernels/attention/kv_rows.cuh"
#include "kernels/common/half.h"
#include "kernels/rope_kv/rope_kv_cuda.h"
#include "kernels/simt/intrin.h"

namespace tern::kernels {

inline constexpr int kRopeKvThreads = 32;

// A head whose elements come out rotated.
struct RotatedHead {
  const float *x, *cosine, *sine;
  int half;

  TERN_DEVICE float operator[](int i) const {
    const bool is_low = i < half;
    const int pair = is_low ? i : i - half;
    const float low = x[pair], high = x[pair + half];
    const float c = cosine[pair], s = sine[pair];
    return is_low ? low * c - high * s : high * c + low * s;
  }
};

TERN_DEVICE void RotateHead(float* x, const float* cosine, const float* sine, int half) {
  for (int i = static_cast<int>(threadIdx.x); i < half; i += kRopeKvThreads) {
    const float low = x[i], high = x[i + half];
    x[i] = low * cosine[i] - high * sine[i];
    x[i + half] = high * cosine[i] + low * sine[i];
  }
}

// One head of one token, as WriteKvHeadRef. Head: a pointer or a RotatedHead.
template <class Head>
TERN_DEVICE void WriteKvHeadOfWarp(const Head& x, int width, uint16_t* row, float* /*scale*/) {
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kRopeKvThreads)
    row[i] = HalfFromFloat(x[i]);
}

template <class Head>
TERN_DEVICE void WriteKvHeadOfWarp(const Head& x, int width, int8_t* row, float* scale) {
  const int lane = static_cast<int>(threadIdx.x);
  int top = 0;  // Magnitudes compared as integers: NaN is above Inf is above every number.
  for (int i = lane; i < width; i += kRopeKvThreads) {
    const int magnitude = static_cast<int>(HalfFloatBits(x[i]) & 0x7FFFFFFFu);
    top = magnitude > top ? magnitude : top;
  }
  TERN_UNROLL
  for (unsigned mask = 16; mask > 0; mask /= 2) {
    const int other = simt::ShuffleXorInt(top, mask);
    top = other > top ? other : top;
  }
  const bool finite = top < 0x7F800000;
  const float amax = fmaxf(HalfBitsFloat(static_cast<uint32_t>(top)), kKvFloor);
  const float to_code = 127.0f / amax;
  if (lane == 0) *scale = finite ? amax / 127.0f : HalfBitsFloat(0x7FC00000u);
  for (int i = lane; i < width; i += kRopeKvThreads)
    row[i] = finite ? static_cast<int8_t>(static_cast<int>(rintf(x[i] * to_code))) : int8_t{0};
}

// Grid: (heads + 2 * kv_heads, m) blocks of kRopeKvThreads.
template <class Row>
__global__ void __launch_bounds__(kRopeKvThreads) RopeKvKernel(const RopeKvArgs args) {
  const int64_t row = blockIdx.y, position = args.rows.positions[row];
  const int width = static_cast<int>(args.head_width), half = width / 2;
  const float *cosine = args.cos_table + position * half, *sine = args.sin_table + position * half;
  const int64_t block = blockIdx.x;
  if (block < args.heads) {
    RotateHead(args.q + row * args.ldq + block * width, cosine, sine, half);
    return;
  }
  const bool is_key = block < args.heads + args.kv_heads;
  const int64_t head = (block - args.heads) % args.kv_heads, slot = position % kKvPageTokens;
  const int64_t page = BlockTableOfRow(args.rows, row)[position / kKvPageTokens];
  const KvPages& cache = args.cache;
  Row* to = static_cast<Row*>(is_key ? cache.keys : cache.values) + page * cache.page_stride +
            head * cache.head_stride + slot * cache.token_stride;
  float* scale = nullptr;
  if constexpr (sizeof(Row) == 1) {
    scale = (is_key ? cache.key_scales : cache.value_scales) + page * cache.scale_page_stride +
            head * cache.scale_head_stride + slot;
  }
  if (is_key) {
    const RotatedHead key{args.k + row * args.ldk + head * width, cosine, sine, half};
    WriteKvHeadOfWarp(key, width, to, scale);
  } else {
    WriteKvHeadOfWarp(args.v + row * args.ldv + head * width, width, to, scale);
  }
}

}  // namespace tern::kernels
