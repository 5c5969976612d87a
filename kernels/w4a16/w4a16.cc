// Picks the 4-bit product of the active instruction set: activations are reordered once a call,
// rows are shared among the threads, tokens go in pieces of 8, 4, 2 or 1.
#include "kernels/w4a16/w4a16.h"

#include <algorithm>

#include "kernels/common/thread_buffer.h"
#include "kernels/common/versions.h"
#include "kernels/w4a16/w4a16_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainBytes = 32
                                << 10;  // About 2 us of streaming: less does not pay for a wake-up.

// [tokens][groups][steps][lanes], zero beyond k.
void Reorder(const W4A16Args& args, int64_t m_begin, int64_t tokens, float* to) {
  for (int64_t m = m_begin; m < m_begin + tokens; ++m) {
    const float* x = args.x + m * args.ldx;
    for (int64_t group = 0; group < W4Groups(args.k); ++group) {
      for (int64_t e = 0; e < kW4Steps; ++e) {
        for (int64_t lane = 0; lane < kW4Lanes; ++lane) {
          const int64_t at = group * kW4Group + W4Place(lane, e);
          *to++ = at < args.k ? x[at] : 0.0f;
        }
      }
    }
  }
}

// The version of an instruction set and the most tokens that it takes at once.
struct Version {
  W4A16Rows* rows = nullptr;  // Null: the oracle
  int most_tokens = 4;
};

Version ActiveVersion() {
  switch (ActiveIsa()) {
#if defined(__x86_64__)
    case Isa::kAvx2:
    case Isa::kAvxVnni:
      return {W4A16RowsAvx2, 4};
    case Isa::kAvx512:
      return {W4A16RowsAvx512, 8};
#elif defined(__aarch64__)
    case Isa::kNeon:
      return {W4A16RowsNeon, 4};
#endif
    default:
      return {};
  }
}

int Piece(int64_t left, int most_tokens) {
  if (left >= 8 && most_tokens == 8) return 8;
  return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

}  // namespace

void W4A16Gemv(const W4A16Args& args, const ParallelFor& parallel) {
  if (args.m <= 0 || args.n <= 0) return;
  const Version version = ActiveVersion();
  if (version.rows == nullptr) return W4A16GemvRef(args);
  const int64_t row_bytes = std::max<int64_t>(W4RowBytes(args.k), 1);
  for (int64_t m = 0; m < args.m;) {
    const int tokens = Piece(args.m - m, version.most_tokens);
    const int64_t floats = std::max<int64_t>(tokens * W4Groups(args.k) * kW4Group, 16);
    auto* reordered = reinterpret_cast<float*>(ThreadBuffer(floats * 4));
    Reorder(args, m, tokens, reordered);
    parallel(args.n, kGrainBytes / row_bytes + 1, [&](int64_t begin, int64_t end) {
      version.rows(args, m, tokens, reordered, begin, end);
    });
    m += tokens;
  }
}

}  // namespace tern::kernels
