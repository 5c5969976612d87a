// Bank conflicts and sectors: the arithmetic of traffic.h.
#include "kernels/simt/traffic.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>

#include "kernels/simt/machine.h"

namespace tern::simt {
namespace {

constexpr int kBanks = 32, kBankBytes = 4, kSectorBytes = 32;

int64_t Sectors(const uint64_t* address, uint32_t lanes, int bytes) {
  std::set<uint64_t> sectors;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    const uint64_t last = (address[lane] + static_cast<uint64_t>(bytes) - 1) / kSectorBytes;
    for (uint64_t s = address[lane] / kSectorBytes; s <= last; ++s) sectors.insert(s);
  }
  return static_cast<int64_t>(sectors.size());
}

// Sectors that the distinct bytes would fill if they lay together.
int64_t IdealSectors(const uint64_t* address, uint32_t lanes, int bytes) {
  std::set<uint64_t> starts;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((lanes >> lane & 1) != 0) starts.insert(address[lane]);
  }
  return (static_cast<int64_t>(starts.size()) * bytes + kSectorBytes - 1) / kSectorBytes;
}

const char* Name(Traffic kind) {
  switch (kind) {
    case Traffic::kSharedLoad:
      return "shared load";
    case Traffic::kSharedStore:
      return "shared store";
    case Traffic::kGlobalLoad:
      return "global load";
    case Traffic::kGlobalStore:
      return "global store";
  }
  return "";
}

bool IsShared(Traffic kind) {
  return kind == Traffic::kSharedLoad || kind == Traffic::kSharedStore;
}

// Lanes that shared memory serves at once.
int PhaseLanes(int bytes) { return std::min(kWarpLanes, kBanks * kBankBytes / bytes); }

}  // namespace

int SharedWavefronts(const uint64_t* address, uint32_t lanes, int bytes) {
  int wavefronts = 0;
  for (int first = 0; first < kWarpLanes; first += PhaseLanes(bytes)) {
    std::set<uint64_t> words[kBanks];
    size_t most = 0;
    for (int lane = first; lane < first + PhaseLanes(bytes); ++lane) {
      if ((lanes >> lane & 1) == 0) continue;
      for (int b = 0; b < bytes; b += kBankBytes) {
        const uint64_t word = (address[lane] + static_cast<uint64_t>(b)) / kBankBytes;
        std::set<uint64_t>& bank = words[word % kBanks];
        bank.insert(word);
        most = std::max(most, bank.size());
      }
    }
    wavefronts += static_cast<int>(most);
  }
  return wavefronts;
}

void TrafficCounter::Close(Site& site, Traffic kind, const Request& request) {
  ++site.total.requests;
  if (IsShared(kind)) {
    site.total.transactions += SharedWavefronts(request.address, request.lanes, request.bytes);
    for (int first = 0; first < kWarpLanes; first += PhaseLanes(request.bytes)) {
      const uint64_t phase = (uint64_t{1} << PhaseLanes(request.bytes)) - 1;
      site.total.ideal += (request.lanes >> first & phase) != 0 ? 1 : 0;
    }
  } else {
    site.total.transactions += Sectors(request.address, request.lanes, request.bytes);
    site.total.ideal += IdealSectors(request.address, request.lanes, request.bytes);
  }
}

void TrafficCounter::Record(Traffic kind, const void* address, int bytes, const char* file,
                            int line, int64_t block, int thread) {
  const char* slash = std::strrchr(file, '/');
  Site& site = sites_[SiteKey(slash != nullptr ? slash + 1 : file, line, kind)];
  const int64_t time = site.come[{block, thread}]++;
  const auto key = std::make_tuple(block, thread / kWarpLanes, time);
  Request& request = site.open[key];
  const int lane = thread % kWarpLanes;
  request.address[lane] = reinterpret_cast<uint64_t>(address);
  request.lanes |= 1u << lane;
  request.bytes = bytes;
  if (request.lanes != kFullMask) return;
  Close(site, kind, request);
  site.open.erase(key);
}

void TrafficCounter::Report(LaunchStats* stats) {
  for (auto& [key, site] : sites_) {
    for (const auto& [_, request] : site.open) Close(site, std::get<2>(key), request);
    site.total.file = std::get<0>(key);
    site.total.line = std::get<1>(key);
    site.total.kind = std::get<2>(key);
    stats->traffic.push_back(site.total);
  }
}

void RecordAccess(Traffic kind, const void* address, int bytes, const char* file, int line) {
  const Slot& slot = RunningSlot();
  if (slot.grid->traffic == nullptr) return;
  const TsanIgnores ignores;  // The tables grow and shrink by whichever fiber comes.
  const Dim3 &at = slot.block_index, &shape = slot.grid->grid;
  const int64_t block = (static_cast<int64_t>(at.z) * shape.y + at.y) * shape.x + at.x;
  slot.grid->traffic->Record(kind, address, bytes, file, line, block, slot.current->linear);
}

std::string TrafficTable(const LaunchStats& stats) {
  std::string table;
  for (const SiteTraffic& site : stats.traffic) {
    char line[256];
    std::snprintf(line, sizeof(line), "%s:%d %s: %lld requests, %lld %s, %lld at best\n",
                  site.file.c_str(), site.line, Name(site.kind),
                  static_cast<long long>(site.requests), static_cast<long long>(site.transactions),
                  IsShared(site.kind) ? "wavefronts" : "sectors",
                  static_cast<long long>(site.ideal));
    table += line;
  }
  return table;
}

}  // namespace tern::simt
