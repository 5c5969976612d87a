// Causal attention over a paged key-value cache (Kwon et al., arXiv 2309.06180), for decoding and
// prefill alike: every row is one query token with its own sequence and position. Grouped-query
// heads (Ainslie et al., arXiv 2305.13245), optional sliding window. All in fp32.
//
// The order of operations is fixed, so that a row has the same bits on every instruction set, on
// any number of threads, in any batch and however a prompt was cut into calls:
//   1. The visible tokens t of a row are cut at multiples of kAttentionSegmentTokens.
//   2. score[t] = dot(q, k[t]) * scale, for int8 keys (dot(q, k[t]) * key_scale[t]) * scale. The
//      dot product has 16 partial sums, joined pairwise (common/lanes.h); each term is a fused
//      multiply-add, here and in step 3, and nowhere else: a third faster than two roundings.
//   3. A segment has m = max score, p[t] = exp(score[t] - m) (common/exp.h), its sum l in 16 lanes
//      (the i-th visible token of the segment goes to lane i % 16), and a[e] = sum p[t] v[t][e] in
//      ascending t, fused; for int8 values sum (p[t] value_scale[t]) v[t][e].
//   4. Segments are joined in ascending order (M, L, A: what was joined; the first as it is):
//      N = max(M, m), f = exp(M - N), g = exp(m - N), L = L f + l g, A[e] = A[e] f + a[e] g.
//   5. out[e] = A[e] / L.
// NaN in q, keys or values gives NaN in the heads that read them.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

inline constexpr int64_t kKvPageTokens = 32;
inline constexpr int64_t kAttentionSegmentTokens = 256;

enum class KvType {
  kF32,   // As they are; on the CPU only, for comparisons with the trainer
  kF16,   // IEEE fp16, round to nearest even; beyond 65504 it becomes Inf
  kInt8,  // q = rint(x * (127 / amax)), one fp32 scale amax / 127 a token and head
};

// The cache of one layer. Element e of token t (of its page) of kv head j in page p is
//   keys[p * page_stride + j * head_stride + t * token_stride + e], strides in elements, and its
//   scale key_scales[p * scale_page_stride + j * scale_head_stride + t]; values likewise.
struct KvPages {
  KvType type = KvType::kF16;
  void* keys = nullptr;  // float, uint16_t or int8_t
  void* values = nullptr;
  float* key_scales = nullptr;  // Only for kInt8
  float* value_scales = nullptr;
  int64_t page_stride = 0, head_stride = 0, token_stride = 0;
  int64_t scale_page_stride = 0, scale_head_stride = 0;
};

// The layout that the engine uses: pages one after the other, each with all keys [J, 32, E], all
// values [J, 32, E] and, for int8, key scales [J, 32] and value scales [J, 32]. A page is a
// multiple of 64 bytes.
int64_t KvPageBytes(KvType type, int64_t kv_heads, int64_t head_width);
// A view of pages in that layout. REQUIRES: base aligned to 4 bytes (to 64 for speed).
KvPages KvPagesAt(void* base, KvType type, int64_t kv_heads, int64_t head_width);

// m rows (tokens): row r is token positions[r] of sequence sequences[r] (null: all of sequence 0),
// and token t of sequence s is in page block_tables[s * block_table_stride + t / kKvPageTokens].
struct KvRows {
  int64_t m = 0;
  const int32_t* positions = nullptr;
  const int32_t* sequences = nullptr;
  const int32_t* block_tables = nullptr;
  int64_t block_table_stride = 0;
};

// Converts keys (rotated already) and values, fp32 [m, J * E] with ldk and ldv elements from row to
// row, into their places in the cache. A key or value with NaN or Inf gets a NaN scale in an int8
// cache.
void WriteKv(const float* k, int64_t ldk, const float* v, int64_t ldv, int64_t kv_heads,
             int64_t head_width, const KvRows& rows, const KvPages& cache,
             const ParallelFor& parallel);

struct AttentionShape {
  int64_t heads = 0;     // H, a multiple of kv_heads
  int64_t kv_heads = 0;  // J; query head h reads kv head h / (H / J)
  int64_t head_width = 0;
  int64_t window = 0;  // A row sees its last `window` tokens, itself included; 0: all
  float scale = 1;     // Of the dot products, usually 1 / sqrt(E)
};

// q: [m, H * E] (rotated), out: [m, H * E], ldq and ldo elements from row to row; out may be q. Row
// r sees the tokens up to positions[r], which must be in the cache, those of this call included.
void PagedAttention(const float* q, int64_t ldq, const AttentionShape& shape, const KvRows& rows,
                    const KvPages& cache, float* out, int64_t ldo, const ParallelFor& parallel);

}  // namespace tern::kernels
