// What the kernel tests share: every instruction set of the machine in turn, random data from a
// fixed seed, and a ParallelFor that cuts ranges unevenly.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "kernels/common/isa.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_pack/t2_impl.h"

namespace tern::kernels {

// Calls body(isa) with each set active, then restores the best one.
template <class Body>
void ForEachIsa(const Body& body) {
  for (Isa isa : AvailableIsas()) {
    SetActiveIsa(isa);
    body(isa);
  }
  SetActiveIsa(BestIsa());
}

// Cuts [0, n) into pieces of grain, grain + 1, grain + 2, ...: results must not notice.
inline void UnevenFor(int64_t n, int64_t grain, const RangeBody& body) {
  int64_t begin = 0;
  for (int64_t size = std::max<int64_t>(grain, 1); begin < n; ++size) {
    body(begin, std::min(begin + size, n));
    begin += size;
  }
}

// Pieces of one unit, whatever the grain: the hardest cut.
inline void OneByOneFor(int64_t n, int64_t /*grain*/, const RangeBody& body) {
  for (int64_t i = 0; i < n; ++i) body(i, i + 1);
}

inline std::vector<float> RandomFloats(int64_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  // Sum of four uniforms: near enough to normal, and the same numbers with every standard library.
  for (float& v : values) {
    double sum = -2.0;
    for (int i = 0; i < 4; ++i) sum += random() * 0x1.0p-32;
    v = static_cast<float>(sum * scale);
  }
  return values;
}

inline std::vector<int8_t> RandomTernary(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int8_t> values(static_cast<size_t>(count));
  for (int8_t& v : values) v = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
  return values;
}

inline std::vector<uint8_t> PackMatrix(const std::vector<int8_t>& weights, int64_t n, int64_t k) {
  std::vector<uint8_t> packed(static_cast<size_t>(n * T2RowBytes(k)));
  for (int64_t row = 0; row < n; ++row) {
    PackT2RowRef(weights.data() + row * k, k, packed.data() + row * T2RowBytes(k));
  }
  return packed;
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// run(cut) fills y on every instruction set and for every cut of the work: always with the bits of
// `want`. What it does not write keeps the -7 of before.
template <class Run>
void ExpectSameBits(const Run& run, std::vector<float>& y, const std::vector<float>& want,
                    const std::string& what) {
  ForEachIsa([&](Isa isa) {
    for (const ParallelFor& cut :
         {ParallelFor(SerialFor), ParallelFor(UnevenFor), ParallelFor(OneByOneFor)}) {
      std::fill(y.begin(), y.end(), -7.0f);
      run(cut);
      ASSERT_TRUE(SameBits(y, want)) << what << " on " << ToString(isa);
    }
  });
}

}  // namespace tern::kernels
