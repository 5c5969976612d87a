// One row to int8 on a GPU, by all threads of a block, with the numbers of absmax_quantize.h to the
// last bit: a maximum and an integer sum do not depend on order, product and division are rounded
// once.
//
//   row: | 4 of thread 0 | 4 of thread 1 | ... | 4 of thread 255 | 4 of thread 0 | ...
//   pass 1: max |x|  -> shuffles, shared memory -> gamma, 127 / gamma in every thread
//   pass 2: rint(x * scale), four codes a store, zeros to padded_k; sum of codes likewise
//
// The row comes through a reader, so that a fused kernel (kernels/rms_norm_quantize) quantizes what
// it computes instead of what it loads.
#pragma once

#include <cstdint>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/common/row.cuh"

namespace tern::kernels {

// The reader of a row that lies in memory.
struct PlainRow {
  const float* x;
  int k;
  // Elements i..i+3; those from k on are 0.
  TERN_DEVICE Floats4 Four(int i) const { return LoadFour(x + i, k - i); }
};

// q[0..3] of four elements; returns their sum.
TERN_DEVICE int QuantizeFour(const Floats4& v, float scale, int8_t* q) {
  uint32_t word = 0;
  int sum = 0;
  TERN_UNROLL
  for (int j = 0; j < 4; ++j) {
    const int code = static_cast<int>(
        fminf(fmaxf(rintf(v.value[j] * scale), -128.0f), 127.0f));  // Half to even.
    word |= (static_cast<uint32_t>(code) & 0xFFu) << (8 * j);
    sum += code;
  }
  if (reinterpret_cast<uintptr_t>(q) % 4 == 0) {
    *reinterpret_cast<uint32_t*>(q) = word;
  } else {
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) q[j] = static_cast<int8_t>(word >> (8 * j));
  }
  return sum;
}

// One row, by all threads of the block.
template <class Row>
TERN_DEVICE void QuantizeRow(const Row& row, int k, int padded_k, int8_t* q, float* gamma,
                             int32_t* sum) {
  const int first = 4 * static_cast<int>(threadIdx.x);
  float amax = 0.0f;
  for (int i = first; i < k; i += kRowStep) {
    const Floats4 v = row.Four(i);
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) amax = fmaxf(amax, fabsf(v.value[j]));
  }
  const float floored = fmaxf(MaxOfBlock(amax), kActivationFloor);
  const float scale = 127.0f / floored;
  int total = 0;
  for (int i = first; i < padded_k; i += kRowStep) total += QuantizeFour(row.Four(i), scale, q + i);
  total = SumOfBlock(total);
  if (threadIdx.x == 0) {
    *gamma = floored;
    *sum = total;
  }
}

}  // namespace tern::kernels
