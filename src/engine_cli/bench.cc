// See bench.h.
#include "engine_cli/bench.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/huge_pages.h"
#include "base/subprocess.h"
#include "base/thread_pool.h"
#include "kernels/common/isa.h"

namespace tern::engine_cli {
namespace {

using nlohmann::json;

double SecondsOf(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double Percentile(std::vector<double> values, double p) {
  TERN_CHECK(!values.empty(), "no timings");
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1) + 0.5)];
}

// Bytes a second of a plain read of a buffer beyond the caches; the fastest of a few passes.
class ReadBandwidth {
 public:
  ReadBandwidth() { words_.assign(static_cast<size_t>(BeyondCaches() / 8), 1); }

  double Measure(int threads) {
    ThreadPool pool(threads);
    double best = 1e9;
    for (int pass = 0; pass < 3; ++pass) best = std::min(best, SecondsOf([&] { Pass(pool); }));
    return static_cast<double>(words_.size() * 8) / best;
  }

 private:
  typedef uint64_t Words8 __attribute__((vector_size(64)));

  void Pass(ThreadPool& pool) {
    pool.For(static_cast<int64_t>(words_.size() / 32), 1, [&](int64_t begin, int64_t end) {
      Words8 sums[4] = {};
      const uint64_t* p = words_.data() + begin * 32;
      for (int64_t i = begin; i < end; ++i, p += 32) {
        for (int j = 0; j < 4; ++j) {
          Words8 v;
          __builtin_memcpy(&v, p + 8 * j, sizeof v);
          sums[j] += v;
        }
        __builtin_prefetch(p + 512);
      }
      const Words8 all = sums[0] + sums[1] + sums[2] + sums[3];
      sink_.fetch_add(all[0] + all[7], std::memory_order_relaxed);
    });
  }

  HugePageVector<uint64_t> words_;
  std::atomic<uint64_t> sink_{0};
};

std::string PeerProgram(const std::string& against) {
  if (against != "llama.cpp") return against;
  const char* cache = std::getenv("TERN_CACHE");
  const char* home = std::getenv("HOME");
  const std::string folder =
      cache != nullptr ? cache : StrCat(home != nullptr ? home : "", "/.cache/tern");
  const std::string program = folder + "/llama/llama_bench";
  TERN_CHECK_INPUT(std::filesystem::exists(program), "no ", program,
                   "; build it once with tests/peers/build_llama");
  return program;
}

struct Timings {
  std::string program;
  std::vector<double> seconds;
};

Timings RunPeer(const std::string& program, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{program};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const std::string text = RunProgram(command);
  const json result = json::parse(text, nullptr, /*allow_exceptions=*/false);
  TERN_CHECK_INPUT(result.is_object() && result.contains("peer") && result["peer"].is_string() &&
                       result.contains("seconds") && result["seconds"].is_array() &&
                       !result["seconds"].empty(),
                   program, " printed \"", text.substr(0, 200),
                   "\"; want one JSON object with peer and seconds");
  Timings timings{result["peer"].get<std::string>(), {}};
  for (const json& value : result["seconds"]) {
    TERN_CHECK_INPUT(value.is_number() && value.get<double>() > 0, program, " printed the time ",
                     value.dump(), "; want seconds above 0");
    timings.seconds.push_back(value.get<double>());
  }
  return timings;
}

json Describe(const BenchCase& bench, int threads, const Timings& timings, double bandwidth) {
  const double median = Percentile(timings.seconds, 0.5);
  json row{{"case", bench.name},
           {"program", timings.program},
           {"threads", threads},
           {"timings", timings.seconds.size()},
           {"median_seconds", median},
           {"p10_seconds", Percentile(timings.seconds, 0.1)},
           {bench.unit_name + "_per_second", bench.unit / median},
           {"read_bandwidth_gb_per_second", bandwidth * 1e-9},
           {"seconds", timings.seconds}};
  if (bench.bytes > 0 && timings.program == "tern") {
    row["gb_per_second"] = bench.bytes / median * 1e-9;
    row["share_of_read_bandwidth"] = bench.bytes / median / bandwidth;
  }
  return row;
}

void PrintRow(const BenchCase& bench, const json& row, const json& ours) {
  const double median = row["median_seconds"];
  std::printf("%-28s %-10s %7d %10.3f %10.3f %12.1f", bench.name.c_str(),
              row["program"].get<std::string>().c_str(), row["threads"].get<int>(), median * 1e3,
              row["p10_seconds"].get<double>() * 1e3, bench.unit / median);
  if (row.contains("gb_per_second")) {
    std::printf(" %7.1f %5.0f%%", row["gb_per_second"].get<double>(),
                100 * row["share_of_read_bandwidth"].get<double>());
  } else {
    std::printf(" %7s %6s", "", "");
  }
  if (&row != &ours) std::printf(" %9.2fx", median / ours["median_seconds"].get<double>());
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int64_t BeyondCaches() {
  const int64_t l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return 4 * std::clamp<int64_t>(l3, 32 << 20, 64 << 20);
}

void RunBench(const BenchFlags& flags, const std::vector<BenchCase>& cases) {
  const std::string peer = flags.against.empty() ? "" : PeerProgram(flags.against);
  ReadBandwidth bandwidth;
  json rows = json::array();
  if (!flags.json) {
    std::printf("%-28s %-10s %7s %10s %10s %12s %7s %6s %10s\n", "", "program", "threads",
                "median ms", "p10 ms", (cases.at(0).unit_name + "/s").c_str(), "GB/s", "of read",
                peer.empty() ? "" : "tern is");
  }
  for (const BenchCase& bench : cases) {
    for (const int threads : flags.threads) {
      Timings ours{"tern", {}}, theirs;
      double best_bandwidth = 0;
      for (int round = 0; round < flags.rounds; ++round) {
        const std::vector<double> seconds = bench.ours(threads);
        ours.seconds.insert(ours.seconds.end(), seconds.begin(), seconds.end());
        if (!peer.empty()) {
          const Timings part = RunPeer(peer, bench.peer(threads));
          theirs.program = part.program;
          theirs.seconds.insert(theirs.seconds.end(), part.seconds.begin(), part.seconds.end());
        }
        best_bandwidth = std::max(best_bandwidth, bandwidth.Measure(threads));
      }
      const json row = Describe(bench, threads, ours, best_bandwidth);
      if (!flags.json) PrintRow(bench, row, row);
      rows.push_back(row);
      if (peer.empty()) continue;
      const json peer_row = Describe(bench, threads, theirs, best_bandwidth);
      if (!flags.json) PrintRow(bench, peer_row, row);
      rows.push_back(peer_row);
    }
  }
  if (flags.json) {
    std::cout << json{{"isa", kernels::ToString(kernels::ActiveIsa())}, {"rows", rows}}.dump(1)
              << "\n";
  }
}

}  // namespace tern::engine_cli
