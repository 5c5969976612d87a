// Counts bank conflicts and memory sectors from the addresses of the lanes. Lanes run one after the
// other here, so the n-th access of each lane of a warp at a source line is taken as one
// instruction of the warp: right as long as the lanes agree on how often they come.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "kernels/simt/simt.h"

namespace tern::simt {

class TrafficCounter {
 public:
  void Record(Traffic kind, const void* address, int bytes, const char* file, int line,
              int64_t block, int thread);
  // Closes what is open and fills stats->traffic, by file and line.
  void Report(LaunchStats* stats);

 private:
  struct Request {
    uint64_t address[kWarpLanes] = {};
    uint32_t lanes = 0;
    int bytes = 0;
  };
  using SiteKey = std::tuple<std::string, int, Traffic>;
  struct Site {
    std::map<std::pair<int64_t, int>, int64_t> come;            // (block, thread): how often.
    std::map<std::tuple<int64_t, int, int64_t>, Request> open;  // (block, warp, time).
    SiteTraffic total;
  };
  static void Close(Site& site, Traffic kind, const Request& request);

  std::map<SiteKey, Site> sites_;
};

// Passes over the banks that shared memory needs for one request: lanes go in phases of 128 bytes
// (32, 16 or 8 lanes); within a phase each of the 32 banks gives one 4-byte word a pass.
int SharedWavefronts(const uint64_t* address, uint32_t lanes, int bytes);

}  // namespace tern::simt
