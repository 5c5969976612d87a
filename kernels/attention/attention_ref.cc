// Scalar oracle of attention over a paged cache: the steps of attention.h one token after the
// other.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/attention_impl.h"
#include "kernels/common/exp.h"
#include "kernels/common/half.h"

namespace tern::kernels {
namespace {

// Element e of a token in the cache as float, without its scale.
float Element(KvType type, const void* data, int64_t index) {
  switch (type) {
    case KvType::kF32:
      return static_cast<const float*>(data)[index];
    case KvType::kF16:
      return FloatFromHalf(static_cast<const uint16_t*>(data)[index]);
    case KvType::kInt8:
      return static_cast<float>(static_cast<const int8_t*>(data)[index]);
  }
  return 0.0f;
}

}  // namespace

void AttendSegmentRef(const SegmentArgs& args, const SegmentState& out) {
  const KvPages& cache = *args.cache;
  const int64_t e = args.head_width;
  const bool scaled = cache.type == KvType::kInt8;
  const auto row_of = [&](int64_t t) {
    return args.pages[t / kKvPageTokens] * cache.page_stride + args.kv_head * cache.head_stride +
           t % kKvPageTokens * cache.token_stride;
  };
  const auto scale_of = [&](int64_t t) {
    return args.pages[t / kKvPageTokens] * cache.scale_page_stride +
           args.kv_head * cache.scale_head_stride + t % kKvPageTokens;
  };
  for (int64_t query = 0; query < args.rows * args.group; ++query) {
    const float* q = args.q + query * args.padded;
    float* acc = out.acc + query * args.padded;
    const int64_t last = args.first + args.Tokens(query);
    std::vector<float> scores;
    float max = -std::numeric_limits<float>::infinity();
    for (int64_t t = args.first; t < last; ++t) {
      float lanes[kLanes] = {};
      for (int64_t i = 0; i < e; ++i)
        lanes[i % kLanes] =
            std::fma(q[i], Element(cache.type, cache.keys, row_of(t) + i), lanes[i % kLanes]);
      float score = JoinLanes(lanes);
      if (scaled) score *= cache.key_scales[scale_of(t)];
      scores.push_back(score * args.scale);
      max = scores.back() > max ? scores.back() : max;  // In this order NaN is passed over.
    }
    float lanes[kLanes] = {};
    std::fill_n(acc, args.padded, 0.0f);
    for (int64_t t = args.first; t < last; ++t) {
      float p = Exp(scores[static_cast<size_t>(t - args.first)] - max);
      lanes[(t - args.first) % kLanes] += p;
      if (scaled) p *= cache.value_scales[scale_of(t)];
      for (int64_t i = 0; i < e; ++i)
        acc[i] = std::fma(p, Element(cache.type, cache.values, row_of(t) + i), acc[i]);
    }
    out.max[query] = max;
    out.sum[query] = JoinLanes(lanes);
  }
}

void WriteKvHeadRef(const float* x, int64_t head_width, KvType type, void* row, float* scale) {
  if (type == KvType::kF32) {
    std::copy_n(x, head_width, static_cast<float*>(row));
    return;
  }
  if (type == KvType::kF16) {
    for (int64_t i = 0; i < head_width; ++i) static_cast<uint16_t*>(row)[i] = HalfFromFloat(x[i]);
    return;
  }
  int8_t* codes = static_cast<int8_t*>(row);
  float amax = kKvFloor;
  bool finite = true;
  for (int64_t i = 0; i < head_width; ++i) {
    amax = std::max(amax, std::fabs(x[i]));
    finite = finite && std::isfinite(x[i]);
  }
  *scale = finite ? amax / 127.0f : std::numeric_limits<float>::quiet_NaN();
  const float to_code = 127.0f / amax;
  for (int64_t i = 0; i < head_width; ++i)
    codes[i] = finite ? static_cast<int8_t>(std::nearbyint(x[i] * to_code)) : int8_t{0};
}

}  // namespace tern::kernels
