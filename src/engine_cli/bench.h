// What the bench verbs share: times of a program, the peer's side, the memory's read bandwidth, and
// the table.
//
// A peer is any program that is called as
//   PROGRAM decode  MODEL THREADS PROMPT_TOKENS NEW_TOKENS      seconds of each decoding step
//   PROGRAM prefill MODEL THREADS TOKENS REPEAT                 seconds of each evaluation of
//   TOKENS tokens PROGRAM gemm    TYPE THREADS N,K,M MATRICES REPEAT          seconds of each
//   product, over MATRICES in turn
// and prints {"peer": name, "seconds": [...]}. Ours and the peer's runs take turns, so that both
// meet the same machine.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tern::engine_cli {

struct BenchFlags {
  std::vector<int> threads{1, 2};
  int rounds = 3;
  std::string against;  // "llama.cpp", a program, or nothing
  bool json = false;
};

// One cell of a table: what is measured, by which program, with how many threads.
struct BenchCase {
  std::string name;       // "decode", "gemm tq2_0 2560x6912 m 1"
  double unit = 1;        // Tokens, or multiply-adds, of one timing
  std::string unit_name;  // "tokens", "GMAC"
  double bytes = 0;       // Weights read for one timing; 0: not shown
  std::function<std::vector<double>(int threads)> ours;       // Seconds
  std::function<std::vector<std::string>(int threads)> peer;  // Arguments for the peer's program
};

// Bytes of a set that no cache holds: four times the L3. Machines that report the caches of all
// their processors as one are believed up to 64 MiB.
int64_t BeyondCaches();

// Runs every case for every number of threads, `rounds` times ours, the peer and a plain read of
// memory in turn, and prints the table or JSON: medians and 10th percentiles over all rounds.
// Throws InputError (peer), UsageError.
void RunBench(const BenchFlags& flags, const std::vector<BenchCase>& cases);

}  // namespace tern::engine_cli
