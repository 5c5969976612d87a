// See traffic.h.
#include "parallel/traffic.h"

#include <algorithm>

#include "base/error.h"

namespace tern::parallel {

const char* CollectiveName(Collective collective) {
  switch (collective) {
    case Collective::kSum:
      return "sum";
    case Collective::kGather:
      return "gather";
    case Collective::kExchange:
      return "exchange";
  }
  __builtin_unreachable();
}

Traffic& Traffic::operator+=(const Traffic& other) {
  TERN_CHECK(calls == 0 || other.calls == 0 || collective == other.collective,
             CollectiveName(collective), " and ", CollectiveName(other.collective),
             " are counted as one kind");
  if (other.calls > 0) collective = other.collective;
  calls += other.calls;
  payload_bytes += other.payload_bytes;
  sent_bytes += other.sent_bytes;
  near_bytes += other.near_bytes;
  far_bytes += other.far_bytes;
  return *this;
}

Traffic SumTraffic(const RankLayout& layout, int64_t bytes) {
  const double n = static_cast<double>(layout.ranks), s = static_cast<double>(bytes);
  const double inside = static_cast<double>(std::min(layout.per_machine, layout.ranks));
  const double machines = n / inside;
  Traffic t;
  t.collective = Collective::kSum;
  t.calls = 1;
  t.payload_bytes = bytes;
  t.sent_bytes = 2 * (n - 1) / n * s;
  // Inside: every rank sums its share of the tensor and gives the sum back; between: that share
  // goes around the machines.
  t.near_bytes = 2 * (inside - 1) / inside * s;
  t.far_bytes = 2 * (machines - 1) / machines * s / inside;
  return t;
}

Traffic GatherTraffic(const RankLayout& layout, int64_t bytes_of_a_rank) {
  const double n = static_cast<double>(layout.ranks), b = static_cast<double>(bytes_of_a_rank);
  const double inside = static_cast<double>(std::min(layout.per_machine, layout.ranks));
  Traffic t;
  t.collective = Collective::kGather;
  t.calls = 1;
  t.payload_bytes = bytes_of_a_rank * (layout.ranks - 1);
  t.sent_bytes = static_cast<double>(t.payload_bytes);
  // What the other machines' ranks have comes in once, divided among the ports of this one's.
  t.far_bytes = (n - inside) * b / inside;
  t.near_bytes = t.sent_bytes - t.far_bytes;
  return t;
}

Traffic ExchangeTraffic(const RankLayout& layout, int64_t rank,
                        const std::vector<int64_t>& bytes_to) {
  TERN_CHECK(static_cast<int64_t>(bytes_to.size()) == layout.ranks, bytes_to.size(), " of ",
             layout.ranks);
  Traffic t;
  t.collective = Collective::kExchange;
  t.calls = 1;
  for (int64_t to = 0; to < layout.ranks; ++to) {
    const int64_t bytes = bytes_to[static_cast<size_t>(to)];
    if (to == rank) continue;
    t.payload_bytes += bytes;
    const bool near = layout.MachineOf(to) == layout.MachineOf(rank);
    (near ? t.near_bytes : t.far_bytes) += static_cast<double>(bytes);
  }
  t.sent_bytes = static_cast<double>(t.payload_bytes);
  return t;
}

}  // namespace tern::parallel
