// Cuts attention for the threads and picks the instruction set; joins the segments of a row. Few
// items (decoding) are cut by segment, so that threads share a long sequence: segments go to a
// scratch and are joined in a second loop. Many items (prefill) join as they go. Both do the same
// operations in the same order.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <vector>

#include "kernels/attention/attention_impl.h"
#include "kernels/common/exp.h"
#include "kernels/common/versions.h"

namespace tern::kernels {
namespace {

constexpr int64_t kSplitBelowItems = 64;  // (row, kv head) pairs; above, threads have enough.

void AttendSegment(const SegmentArgs& args, const SegmentState& out) {
  return TERN_ACTIVE(AttendSegment)(args, out);
}

const int32_t* BlockTable(const KvRows& rows, int64_t row) {
  const int64_t sequence = rows.sequences == nullptr ? 0 : rows.sequences[row];
  return rows.block_tables + sequence * rows.block_table_stride;
}

int64_t ElementBytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
}

// Rows next to each other in the call and in their sequence, all with the same last segment.
struct Block {
  int64_t row = 0, rows = 1;
};

// One call of PagedAttention.
struct Job {
  const float* q;
  int64_t ldq;
  AttentionShape shape;
  KvRows rows;
  const KvPages* cache;
  float* out;
  int64_t ldo;
  int64_t group, padded;

  int64_t First(int64_t row) const {
    const int64_t end = rows.positions[row] + int64_t{1};
    return shape.window > 0 && end > shape.window ? end - shape.window : 0;
  }
  int64_t FirstSegment(int64_t row) const { return First(row) / kAttentionSegmentTokens; }
  int64_t EndSegment(int64_t row) const {
    return rows.positions[row] / kAttentionSegmentTokens + 1;
  }

  bool Continues(const Block& block, int64_t row) const {
    return BlockTable(rows, row) == BlockTable(rows, block.row) &&
           rows.positions[row] == rows.positions[row - 1] + 1 &&
           EndSegment(row) == EndSegment(block.row) && First(row) == 0;
  }
  std::vector<Block> Blocks() const {
    int64_t most = 8;  // More would gain little: the keys are widened once for kHeads queries.
    while (most > 1 && most * group > kQueryBlock) most /= 2;
    std::vector<Block> blocks;
    for (int64_t row = 0; row < rows.m; ++row) {
      if (!blocks.empty() && blocks.back().rows < most && Continues(blocks.back(), row)) {
        ++blocks.back().rows;
      } else {
        blocks.push_back({row, 1});
      }
    }
    return blocks;
  }

  // Floats of a SegmentState of so many rows, and a view of them.
  int64_t StateFloats(int64_t count) const { return count * group * (padded + 2); }
  SegmentState StateAt(float* p, int64_t count) const {
    const int64_t queries = count * group;
    return {p + queries * padded, p + queries * padded + queries, p};
  }

  // The queries of a kv head as AttendSegment wants them: [rows, group, padded].
  void CopyQueries(const Block& block, int64_t kv_head, float* to) const {
    const int64_t e = shape.head_width;
    for (int64_t i = 0; i < block.rows * group; ++i) {
      const int64_t row = block.row + i / group, head = kv_head * group + i % group;
      std::copy_n(q + row * ldq + head * e, e, to + i * padded);
      std::fill(to + i * padded + e, to + (i + 1) * padded, 0.0f);
    }
  }

  void Segment(const Block& block, int64_t kv_head, int64_t segment, const float* queries,
               float* state) const {
    const int64_t begin = segment * kAttentionSegmentTokens;
    const int64_t seen = rows.positions[block.row] + int64_t{1};
    SegmentArgs args;
    args.cache = cache;
    args.pages = BlockTable(rows, block.row);
    args.q = queries;
    args.rows = block.rows;
    args.group = group;
    args.head_width = shape.head_width;
    args.padded = padded;
    args.kv_head = kv_head;
    args.end = seen + block.rows - 1;
    args.first = std::max(begin, First(block.row));
    args.last = std::min(begin + kAttentionSegmentTokens, seen);
    args.grows = segment + 1 == EndSegment(block.row);
    args.scale = shape.scale;
    AttendSegment(args, StateAt(state, block.rows));
  }

  // Step 4: `total` takes the segment after it.
  void Join(int64_t count, float* total, float* next) const {
    const SegmentState a = StateAt(total, count), b = StateAt(next, count);
    for (int64_t h = 0; h < count * group; ++h) {
      const float max = a.max[h] < b.max[h] ? b.max[h] : a.max[h];
      const float f = Exp(a.max[h] - max), g = Exp(b.max[h] - max);
      a.max[h] = max;
      a.sum[h] = a.sum[h] * f + b.sum[h] * g;
      float* to = a.acc + h * padded;
      const float* from = b.acc + h * padded;
      for (int64_t i = 0; i < shape.head_width; ++i) to[i] = to[i] * f + from[i] * g;
    }
  }

  // Step 5.
  void Finish(const Block& block, int64_t kv_head, float* total) const {
    const SegmentState state = StateAt(total, block.rows);
    const int64_t e = shape.head_width;
    for (int64_t i = 0; i < block.rows * group; ++i) {
      const int64_t row = block.row + i / group, head = kv_head * group + i % group;
      float* to = out + row * ldo + head * e;
      for (int64_t j = 0; j < e; ++j) to[j] = state.acc[i * padded + j] / state.sum[i];
    }
  }
};

// Items go kv head by kv head, so that neighbouring rows of a sequence find its keys in the cache.
void AttendWhole(const Job& job, const ParallelFor& parallel) {
  const std::vector<Block> blocks = job.Blocks();
  const auto count = static_cast<int64_t>(blocks.size());
  parallel(count * job.shape.kv_heads, 1, [&](int64_t begin, int64_t end) {
    const int64_t most = std::max(kQueryBlock, job.group);
    std::vector<float> scratch(static_cast<size_t>(most * (3 * job.padded + 4)));
    float* queries = scratch.data();
    float* total = queries + most * job.padded;
    float* next = total + most * (job.padded + 2);
    for (int64_t item = begin; item < end; ++item) {
      const Block& block = blocks[static_cast<size_t>(item % count)];
      const int64_t kv_head = item / count, first = job.FirstSegment(block.row);
      job.CopyQueries(block, kv_head, queries);
      job.Segment(block, kv_head, first, queries, total);
      for (int64_t s = first + 1; s < job.EndSegment(block.row); ++s) {
        job.Segment(block, kv_head, s, queries, next);
        job.Join(block.rows, total, next);
      }
      job.Finish(block, kv_head, total);
    }
  });
}

void AttendSplit(const Job& job, const ParallelFor& parallel) {
  const int64_t m = job.rows.m, heads = job.shape.kv_heads, q_floats = job.group * job.padded;
  struct Item {
    int64_t row, kv_head, segment;
  };
  std::vector<Item> items;
  std::vector<size_t> first_item;  // Of each (row, kv head)
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      first_item.push_back(items.size());
      for (int64_t s = job.FirstSegment(row); s < job.EndSegment(row); ++s)
        items.push_back({row, head, s});
    }
  }
  first_item.push_back(items.size());
  const int64_t count = static_cast<int64_t>(items.size()), floats = job.StateFloats(1);
  std::vector<float> queries(static_cast<size_t>(m * heads * q_floats));
  std::vector<float> states(static_cast<size_t>(count * floats));
  for (int64_t i = 0; i < m * heads; ++i)
    job.CopyQueries({i / heads}, i % heads, queries.data() + i * q_floats);
  parallel(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [row, head, segment] = items[static_cast<size_t>(i)];
      job.Segment({row}, head, segment, queries.data() + (row * heads + head) * q_floats,
                  states.data() + i * floats);
    }
  });
  for (int64_t i = 0; i < m * heads; ++i) {
    const auto first = static_cast<int64_t>(first_item[static_cast<size_t>(i)]);
    const auto last = static_cast<int64_t>(first_item[static_cast<size_t>(i + 1)]);
    float* total = states.data() + first * floats;
    for (int64_t s = first + 1; s < last; ++s) job.Join(1, total, states.data() + s * floats);
    job.Finish({i / heads}, i % heads, total);
  }
}

}  // namespace

void WriteKvHead(const float* x, int64_t head_width, KvType type, void* row, float* scale) {
  return TERN_ACTIVE(WriteKvHead)(x, head_width, type, row, scale);
}

int64_t KvPageBytes(KvType type, int64_t kv_heads, int64_t head_width) {
  const int64_t elements = 2 * kv_heads * kKvPageTokens * head_width;
  switch (type) {
    case KvType::kF32:
      return elements * static_cast<int64_t>(sizeof(float));
    case KvType::kF16:
      return elements * static_cast<int64_t>(sizeof(uint16_t));
    case KvType::kInt8:
      return elements + 2 * kv_heads * kKvPageTokens * static_cast<int64_t>(sizeof(float));
  }
  return 0;
}

KvPages KvPagesAt(void* base, KvType type, int64_t kv_heads, int64_t head_width) {
  const int64_t element = ElementBytes(type), page = KvPageBytes(type, kv_heads, head_width);
  const int64_t elements = kv_heads * kKvPageTokens * head_width;
  char* bytes = static_cast<char*>(base);
  KvPages pages;
  pages.type = type;
  pages.keys = bytes;
  pages.values = bytes + elements * element;
  pages.page_stride = page / element;
  pages.head_stride = kKvPageTokens * head_width;
  pages.token_stride = head_width;
  if (type == KvType::kInt8) {
    pages.key_scales = reinterpret_cast<float*>(bytes + 2 * elements);
    pages.value_scales = pages.key_scales + kv_heads * kKvPageTokens;
    pages.scale_page_stride = page / static_cast<int64_t>(sizeof(float));
    pages.scale_head_stride = kKvPageTokens;
  }
  return pages;
}

void WriteKvRow(const float* k, const float* v, int64_t kv_heads, int64_t head_width,
                const KvRows& rows, int64_t row, const KvPages& cache) {
  const int64_t element = ElementBytes(cache.type), position = rows.positions[row],
                slot = position % kKvPageTokens,
                page = BlockTable(rows, row)[position / kKvPageTokens];
  const bool scaled = cache.type == KvType::kInt8;
  for (int64_t head = 0; head < kv_heads; ++head) {
    const int64_t at =
        (page * cache.page_stride + head * cache.head_stride + slot * cache.token_stride) * element;
    const int64_t scale = page * cache.scale_page_stride + head * cache.scale_head_stride + slot;
    WriteKvHead(k + head * head_width, head_width, cache.type, static_cast<char*>(cache.keys) + at,
                scaled ? cache.key_scales + scale : nullptr);
    WriteKvHead(v + head * head_width, head_width, cache.type,
                static_cast<char*>(cache.values) + at,
                scaled ? cache.value_scales + scale : nullptr);
  }
}

void WriteKv(const float* k, int64_t ldk, const float* v, int64_t ldv, int64_t kv_heads,
             int64_t head_width, const KvRows& rows, const KvPages& cache,
             const ParallelFor& parallel) {
  constexpr int64_t kGrainElements = 16384;  // Below, waking a thread costs more than it saves.
  parallel(rows.m, kGrainElements / (kv_heads * head_width) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      WriteKvRow(k + row * ldk, v + row * ldv, kv_heads, head_width, rows, row, cache);
  });
}

void PagedAttention(const float* q, int64_t ldq, const AttentionShape& shape, const KvRows& rows,
                    const KvPages& cache, float* out, int64_t ldo, const ParallelFor& parallel) {
  if (rows.m == 0) return;
  const int64_t padded = (shape.head_width + kLanes - 1) / kLanes * kLanes;
  const Job job{q, ldq, shape, rows, &cache, out, ldo, shape.heads / shape.kv_heads, padded};
  if (rows.m * shape.kv_heads < kSplitBelowItems) {
    AttendSplit(job, parallel);
  } else {
    AttendWhole(job, parallel);
  }
}

}  // namespace tern::kernels
