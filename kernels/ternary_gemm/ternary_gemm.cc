// Picks the ternary product of the active instruction set and cuts the work for the threads: few
// tokens by rows, many tokens in a grid of row panels x token chunks.
#include "kernels/ternary_gemm/ternary_gemm.h"

#include <algorithm>

#include "kernels/common/isa.h"
#include "kernels/common/thread_buffer.h"
#include "kernels/ternary_gemm/ternary_gemm_impl.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

constexpr int64_t kPanelBufferBytes = 256 << 10;  // Half of the L2 of a Zen 3 core.
constexpr int64_t kStreamGrainBytes =
    32 << 10;                         // About 2 us of streaming; less does not pay for a wake-up.
constexpr int64_t kGridTasks = 256;   // Enough pieces for an even split on many cores.
constexpr int64_t kChunkTokens = 96;  // Tokens over which unpacking a panel once costs some 5 %.
constexpr int64_t kGrainMacs = 200'000;  // About 2 us of multiplying.

// The version of an instruction set. Where `few` is null, `few_reordered` reads activations that
// `reorder` has laid out.
struct Version {
  TernaryGemmMany* many = nullptr;  // Null: the oracle
  int64_t panel_rows = 0;
  TernaryGemmFew* few = nullptr;
  decltype(&TernaryGemmFewAvx512) few_reordered = nullptr;
  decltype(&ReorderTokensAvx512) reorder = nullptr;
};

Version ActiveVersion() {
  switch (ActiveIsa()) {
#if defined(__x86_64__)
    case Isa::kAvx2:
      return {TernaryGemmManyAvx2, kPanelRows256, TernaryGemmFewAvx2};
    case Isa::kAvxVnni:
      return {TernaryGemmManyAvxVnni, kPanelRows256, TernaryGemmFewAvxVnni};
    case Isa::kAvx512:
      return {TernaryGemmManyAvx512, kPanelRowsAvx512, nullptr, TernaryGemmFewAvx512,
              ReorderTokensAvx512};
#elif defined(__aarch64__)
    case Isa::kNeon:
      return {TernaryGemmManyNeon, kPanelRowsNeon, TernaryGemmFewNeon};
#endif
    default:
      return {};
  }
}

void FewTokens(const TernaryGemmArgs& args, const Version& version, const GemmRange& tokens,
               const ParallelFor& parallel) {
  const int8_t* reordered = nullptr;
  if (version.reorder != nullptr) {
    uint8_t* buffer = ThreadBuffer(kFewTokens * ReorderedK(args.k));
    version.reorder(args, tokens.m_begin, tokens.m_end, reinterpret_cast<int8_t*>(buffer));
    reordered = reinterpret_cast<const int8_t*>(buffer);
  }
  constexpr int64_t kUnitRows = 4;
  const int64_t unit_bytes = kUnitRows * T2RowBytes(args.k);
  parallel((args.n + kUnitRows - 1) / kUnitRows,
           kStreamGrainBytes / std::max<int64_t>(unit_bytes, 1) + 1,
           [&](int64_t begin, int64_t end) {
             GemmRange range = tokens;
             range.n_begin = begin * kUnitRows;
             range.n_end = std::min(end * kUnitRows, args.n);
             if (version.few != nullptr) return version.few(args, range);
             version.few_reordered(args, range, reordered);
           });
}

void ManyTokensBlock(const TernaryGemmArgs& args, const Version& version, const GemmRange& range) {
  const int64_t panel_bytes = std::max<int64_t>(version.panel_rows * T2PaddedK(args.k), 64);
  const int64_t panels = std::max<int64_t>(kPanelBufferBytes / panel_bytes, 1);
  version.many(args, range, ThreadBuffer(panels * panel_bytes), panels);
}

// Tasks are numbered chunk by chunk, so that a thread's share is whole chunks (all rows) plus parts
// of two.
void ManyTokens(const TernaryGemmArgs& args, const Version& version, const ParallelFor& parallel) {
  const int64_t panel_rows = version.panel_rows;
  const int64_t units = (args.n + panel_rows - 1) / panel_rows;
  const int64_t chunks =
      std::clamp<int64_t>(kGridTasks / units, 1, std::max<int64_t>(args.m / kChunkTokens, 1));
  // A multiple of 24, of the tokens of every version's tile.
  const int64_t chunk = ((args.m + chunks - 1) / chunks + 23) / 24 * 24;
  const int64_t task_macs = std::max<int64_t>(panel_rows * chunk * args.k, 1);
  parallel(units * chunks, kGrainMacs / task_macs + 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t unit = begin % units;
      const int64_t whole_chunks = unit == 0 ? (end - begin) / units : 0;
      const int64_t taken =
          whole_chunks > 0 ? whole_chunks * units : std::min(units - unit, end - begin);
      GemmRange range;
      range.m_begin = begin / units * chunk;
      range.m_end = std::min(range.m_begin + std::max<int64_t>(whole_chunks, 1) * chunk, args.m);
      range.n_begin = unit * panel_rows;
      range.n_end = std::min((unit + taken) * panel_rows, args.n);
      if (range.m_begin < range.m_end) ManyTokensBlock(args, version, range);
      begin += taken;
    }
  });
}

void ScalarRows(const TernaryGemmArgs& args, const ParallelFor& parallel) {
  parallel(args.m, 1, [&](int64_t begin, int64_t end) {
    TernaryGemmArgs part = args;
    part.m = end - begin;
    part.x += begin * args.ldx;
    part.x_sum += begin;
    part.out_scale += begin;
    part.y += begin * args.ldy;
    TernaryGemmRef(part);
  });
}

}  // namespace

void TernaryGemm(const TernaryGemmArgs& args, const ParallelFor& parallel) {
  if (args.m <= 0 || args.n <= 0) return;
  const Version version = ActiveVersion();
  if (version.many == nullptr) return ScalarRows(args, parallel);
  if (args.m > 2 * kFewTokens) return ManyTokens(args, version, parallel);
  for (int64_t m = 0; m < args.m; m += kFewTokens) {
    FewTokens(args, version, {m, std::min(m + kFewTokens, args.m), 0, 0}, parallel);
  }
}

}  // namespace tern::kernels
