// What collectives send, counted by what they were asked to do, not on the wire: a sum of S bytes
// among n ranks as a ring makes it (2 (n-1)/n S a rank), a gather as every rank's part to every
// other, an exchange as the rows that go elsewhere. Beside it what the links must carry at least
// when ranks sit in machines: a machine needs what the others have only once, through all its
// ranks' ports, and hands it on inside (no sums inside switches). Plain arithmetic: no libtorch.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tern::parallel {

enum class Collective { kSum, kGather, kExchange };
const char* CollectiveName(Collective collective);  // "sum", "gather", "exchange"

// Of one kind ("gradients", "codes", ...), as one rank sees it.
struct Traffic {
  Collective collective = Collective::kSum;
  int64_t calls = 0;
  // Of a sum its tensor's bytes; else what goes to other ranks.
  int64_t payload_bytes = 0;
  double sent_bytes = 0;  // By this rank
  double near_bytes = 0;  // At least over the link to the others of its machine, one direction
  double far_bytes = 0;   // At least over its share of the machine's links, one direction

  Traffic& operator+=(const Traffic& other);
};
using TrafficByKind = std::map<std::string, Traffic>;

// Where the ranks of a group sit: each machine has `per_machine` of them, one after the other.
struct RankLayout {
  int64_t ranks = 1;
  int64_t per_machine = 1;

  int64_t MachineOf(int64_t rank) const { return rank / per_machine; }
};

// One call each, as rank `rank` sees it.
Traffic SumTraffic(const RankLayout& layout, int64_t bytes);
Traffic GatherTraffic(const RankLayout& layout, int64_t bytes_of_a_rank);
// bytes_to[i]: what goes to rank i.
Traffic ExchangeTraffic(const RankLayout& layout, int64_t rank,
                        const std::vector<int64_t>& bytes_to);

}  // namespace tern::parallel
