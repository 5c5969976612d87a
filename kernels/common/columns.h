// Where the results of a matrix's rows go.
#pragma once

#include <cstdint>

namespace tern::kernels {

// The model's row that row n of a stored matrix is. llama.cpp keeps the rows of q and k, in each
// head of `paired_head_dim` rows, with the two halves interleaved: row 2 j + h of a head is row j +
// h head_dim / 2 of the model. 0: in order.
static inline int64_t ColumnOf(int64_t n, int64_t paired_head_dim) {
  if (paired_head_dim == 0) return n;
  const int64_t j = n % paired_head_dim;
  return n - j + j % 2 * (paired_head_dim / 2) + j / 2;
}

}  // namespace tern::kernels
