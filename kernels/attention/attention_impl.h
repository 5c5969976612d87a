// The implementations behind attention.h, one an instruction set. For the dispatcher and the tests
// only.
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/common/lanes.h"

namespace tern::kernels {

inline constexpr int64_t kQueryBlock = 16;  // Queries whose scores are kept at once
inline constexpr float kKvFloor = 1e-30f;   // Smallest amax: 127 / amax stays finite.

// One segment of neighbouring rows of a sequence, for the query heads of one kv head.
struct SegmentArgs {
  const KvPages* cache;
  const int32_t* pages;  // Block table of the sequence
  const float* q;        // [rows, group, padded], zero beyond head_width
  int64_t rows;          // Above 1: rows * group is at most kQueryBlock
  int64_t group;         // Query heads of the kv head
  int64_t head_width;
  int64_t padded;  // head_width rounded up to kLanes
  int64_t kv_head;
  int64_t first, last;  // Tokens that the first row sees: at least one, all of one segment
  bool grows;           // The segment ends with the rows: each sees one token more than the last
  int64_t end;          // Of the rows' visible tokens: what may be read ahead of time
  float scale;

  // Tokens of this segment that query q sees.
  int64_t Tokens(int64_t query) const { return last - first + (grows ? query / group : 0); }
};

// What step 3 gives: max and sum [rows * group], acc [rows * group, padded] (beyond head_width
// unspecified).
struct SegmentState {
  float* max;
  float* sum;
  float* acc;
};

void AttendSegmentRef(const SegmentArgs& args, const SegmentState& out);
void AttendSegmentAvx2(const SegmentArgs& args, const SegmentState& out);
void AttendSegmentAvx512(const SegmentArgs& args, const SegmentState& out);
void AttendSegmentNeon(const SegmentArgs& args, const SegmentState& out);

// One head of one token: x [head_width] to `row`; *scale only for kInt8.
void WriteKvHead(const float* x, int64_t head_width, KvType type, void* row, float* scale);
void WriteKvHeadRef(const float* x, int64_t head_width, KvType type, void* row, float* scale);
void WriteKvHeadAvx2(const float* x, int64_t head_width, KvType type, void* row, float* scale);
void WriteKvHeadAvx512(const float* x, int64_t head_width, KvType type, void* row, float* scale);
void WriteKvHeadNeon(const float* x, int64_t head_width, KvType type, void* row, float* scale);

// One token: keys and values [kv_heads * head_width] to row `row` of rows.
void WriteKvRow(const float* k, const float* v, int64_t kv_heads, int64_t head_width,
                const KvRows& rows, int64_t row, const KvPages& cache);

}  // namespace tern::kernels
