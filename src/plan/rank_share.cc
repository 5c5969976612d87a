// See rank_share.h.
#include "plan/rank_share.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"
#include "parallel/row_split.h"
#include "quant/ternary_rows.h"

namespace tern::plan {
namespace {

using parallel::RankLayout;
using recipe::Sharding;

constexpr int64_t kFloat = 4;                   // Bytes of fp32
constexpr int64_t kFirstBucketBytes = 1 << 20;  // c10d::kDefaultFirstBucketBytes

// A parameter as the ranks have it.
struct Shared {
  ParameterSpec spec;         // Its shape that of a slice, with parallel.tensor
  parallel::RowSplit split;   // Empty: not spread
  bool rows_only = false;     // A rank holds its rows' values only
  bool sliced_codes = false;  // And 2-bit codes of its slice

  int64_t k() const { return spec.shape[1]; }
  bool spread() const { return !split.begin.empty(); }
};

// The ranks of one group that spreads its state, and those that hold the same rows.
RankLayout ShardLayout(const recipe::ParallelConfig& config, const RankLayout& all) {
  const int64_t size = ShardSize(config, all.ranks);
  return {size, std::min(size, all.per_machine)};
}
RankLayout ReplicaLayout(const recipe::ParallelConfig& config, const RankLayout& all) {
  const int64_t size = ShardSize(config, all.ranks);
  return {all.ranks / size, std::max<int64_t>(all.per_machine / size, 1)};
}

// layout: of the ranks that spread it.
std::vector<Shared> Share(const ModelConfig& model, const recipe::ParallelConfig& config,
                          const RankLayout& layout) {
  const bool alone = layout.ranks == 1 || config.shard == Sharding::kNone;
  std::vector<Shared> shared;
  for (ParameterSpec& spec : ParameterTable(model)) {
    const auto slices = TensorSlices(spec, config.tensor);  // All of one size
    if (!slices.empty()) {
      spec.shape[0] = slices[0].rows;
      if (spec.shape.size() == 2) spec.shape[1] = slices[0].columns;
    }
    shared.push_back({spec, {}, false});
    shared.back().sliced_codes = !slices.empty() && spec.role == ParameterRole::kLinear &&
                                 model.linear == LinearKind::kBitLinear;
    if (alone || spec.shape.size() != 2) continue;
    Shared& one = shared.back();
    one.split =
        parallel::SplitRows(spec.shape[0], quant::RowUnit(one.k()), static_cast<int>(layout.ranks));
    one.rows_only = config.shard == Sharding::kZero3 && spec.role == ParameterRole::kLinear;
  }
  return shared;
}

HeldByRank Held(const std::vector<Shared>& shared, int64_t rank) {
  HeldByRank held;
  for (const Shared& one : shared) {
    const int64_t all = kFloat * one.spec.Count();
    const int64_t mine =
        one.spread() ? kFloat * one.split.rows(static_cast<int>(rank)) * one.k() : all;
    held.parameters += one.rows_only ? mine : all;
    held.gradients += mine;
    held.moments += 2 * mine;
    if (one.sliced_codes) held.codes += one.spec.shape[0] * kernels::T2RowBytes(one.k());
    if (!one.spread()) continue;
    held.exchanged += all;
    held.largest_matrix = std::max(held.largest_matrix, all);
    if (one.spec.role == ParameterRole::kLinear)
      held.largest_linear = std::max(held.largest_linear, all);
    if (one.rows_only) held.codes += one.split.all() * kernels::T2RowBytes(one.k());
  }
  return held;
}

// libtorch's Reducer: parameters from the last to the first, cut where a bucket is full.
void CountBuckets(const std::vector<Shared>& shared, int64_t bucket_bytes, const RankLayout& layout,
                  parallel::TrafficByKind* sent) {
  int64_t limit = std::min(kFirstBucketBytes, bucket_bytes), bytes = 0;
  const auto close = [&] {
    if (bytes > 0) (*sent)["gradients"] += parallel::SumTraffic(layout, bytes);
    bytes = 0;
  };
  for (auto one = shared.rbegin(); one != shared.rend(); ++one) {
    bytes += kFloat * one->spec.Count();
    if (bytes < limit) continue;
    close();
    limit = bucket_bytes;
  }
  close();
}

// Codes of one layer travel together, padded to the rank that has most; sums of the scale's blocks
// of all matrices likewise.
void CountCodes(const std::vector<Shared>& shared, const RankLayout& layout,
                parallel::TrafficByKind* sent) {
  const auto ranks = static_cast<size_t>(layout.ranks);
  std::vector<int64_t> blocks(ranks, 0), codes(ranks, 0);
  std::string layer;
  const auto send_layer = [&] {
    const int64_t most = *std::max_element(codes.begin(), codes.end());
    if (most > 0) (*sent)["codes"] += parallel::GatherTraffic(layout, most);
    std::fill(codes.begin(), codes.end(), 0);
  };
  for (const Shared& one : shared) {
    if (!one.rows_only) continue;
    const std::string of = one.spec.name.substr(0, one.spec.name.find('.', sizeof "model.layers"));
    if (of != layer) send_layer();
    layer = of;
    for (size_t rank = 0; rank < ranks; ++rank) {
      const int64_t rows = one.split.rows(static_cast<int>(rank));
      codes[rank] += rows * kernels::T2RowBytes(one.k());
      blocks[rank] += quant::NumBlocks(rows * one.k());
    }
  }
  send_layer();
  (*sent)["scales"] +=
      parallel::GatherTraffic(layout, kFloat * *std::max_element(blocks.begin(), blocks.end()));
}

}  // namespace

int64_t ShardSize(const recipe::ParallelConfig& config, int64_t ranks) {
  if (config.shard_size == 0 || ranks == 1 || config.shard == Sharding::kNone) return ranks;
  if (ranks % config.shard_size != 0) {
    throw RecipeError(StrCat("parallel.shard_size: found ", config.shard_size,
                             ", which does not divide ", ranks,
                             " ranks into groups; want a divisor of them, or 0 for one group"));
  }
  return config.shard_size;
}

int64_t MaxBytesUnderWay(int64_t exchanged) {
  constexpr int64_t kMost = 64 << 20, kShare = 16;
  return std::min(kMost, exchanged / kShare);
}

HeldByRank HeldBy(const ModelConfig& model, const recipe::ParallelConfig& config,
                  const RankLayout& layout, int64_t rank) {
  TERN_CHECK(rank >= 0 && rank < layout.ranks, rank, " of ", layout.ranks);
  const RankLayout shards = ShardLayout(config, DataLayout(config, layout));
  return Held(Share(model, config, shards), rank / config.tensor % shards.ranks);
}

int64_t FullestRank(const ModelConfig& model, const recipe::ParallelConfig& config,
                    const RankLayout& layout) {
  const RankLayout shards = ShardLayout(config, DataLayout(config, layout));
  const std::vector<Shared> shared = Share(model, config, shards);
  int64_t fullest = 0, most = -1;
  for (int64_t rank = 0; rank < shards.ranks; ++rank) {
    const int64_t state = Held(shared, rank).State();
    if (state <= most) continue;
    most = state;
    fullest = rank;
  }
  return fullest * config.tensor;
}

parallel::TrafficByKind SentBy(const ModelConfig& model, const recipe::ParallelConfig& config,
                               const RankLayout& all, int64_t rank, const StepPasses& passes) {
  parallel::TrafficByKind sent = TensorSent(model, config, all, rank, passes);
  const RankLayout layout = DataLayout(config, all);
  rank /= config.tensor;
  if (layout.ranks == 1) return sent;
  const RankLayout shards = ShardLayout(config, layout), replicas = ReplicaLayout(config, layout);
  const std::vector<Shared> shared = Share(model, config, shards);
  rank %= shards.ranks;
  if (config.shard == Sharding::kNone) {
    CountBuckets(shared, static_cast<int64_t>(config.bucket_mib * (1 << 20)), layout, &sent);
    return sent;
  }
  const int64_t type = config.reduce == recipe::ReduceType::kBf16 ? 2 : kFloat;
  const int64_t times = config.shard == Sharding::kZero1 ? 1 : passes.count;
  int64_t small = 0;
  for (const Shared& one : shared) {
    if (!one.spread()) {
      small += kFloat * one.spec.Count();
      continue;
    }
    std::vector<int64_t> bytes_to = one.split.counts();
    for (int64_t& bytes : bytes_to) bytes *= type * one.k();
    const parallel::Traffic exchange = parallel::ExchangeTraffic(shards, rank, bytes_to);
    for (int64_t i = 0; i < times; ++i) sent["gradients"] += exchange;
    const int64_t mine = kFloat * one.split.rows(static_cast<int>(rank)) * one.k();
    if (replicas.ranks > 1 && mine > 0)
      sent["replica gradients"] += parallel::SumTraffic(replicas, mine);
    if (!one.rows_only) {
      sent["values"] += parallel::GatherTraffic(shards, kFloat * one.split.most() * one.k());
    }
  }
  sent["small gradients"] += parallel::SumTraffic(layout, small);
  if (config.shard == Sharding::kZero3) CountCodes(shared, shards, &sent);
  return sent;
}

}  // namespace tern::plan
