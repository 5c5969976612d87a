// The versions of CodeGemm and QuantizeInt16, for their dispatchers and tests. Products work on the
// rows [n_begin, n_end).
#pragma once

#include <algorithm>

#include "kernels/code_gemm/code_gemm.h"

namespace tern::kernels {

void CodeGemmRef(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end);
void CodeGemmAvx2(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end);
void CodeGemmAvxVnni(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end);
void CodeGemmAvx512(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end);
void CodeGemmNeon(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end);

void QuantizeInt16Ref(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out);
void QuantizeInt16Avx2(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out);
void QuantizeInt16Avx512(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out);
void QuantizeInt16Neon(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out);

// Cuts the rows of a product for the threads. rows: a version of CodeGemm or of Code8Gemm.
template <class Args>
void CutRows(void (*rows)(const Args&, int64_t, int64_t), const Args& args,
             const ParallelFor& parallel) {
  constexpr int64_t kUnitRows = 4;
  constexpr int64_t kGrainMacs = 60'000;  // About 2 us on one thread; less does not pay a wake-up
  if (args.m <= 0 || args.n <= 0) return;
  const int64_t unit_macs = std::max<int64_t>(kUnitRows * args.k * args.m, 1);
  parallel((args.n + kUnitRows - 1) / kUnitRows, kGrainMacs / unit_macs + 1,
           [&](int64_t begin, int64_t end) {
             rows(args, begin * kUnitRows, std::min(end * kUnitRows, args.n));
           });
}

// One block of 256 weights (8 blocks of 32 of the small types) taken apart, for the oracle and for
// SplitCodes: w = s[i
// / 16] code[i] + t[i / 16] with the token's scale folded in.
struct CodeParts {
  uint8_t code[kTokenBlock];
  float s[16], t[16];
};
// `blocks32`: how many of the eight blocks of a small type there are; the others give zeros.
CodeParts TakeApart(CodeType type, const uint8_t* block, int64_t blocks32, float token_scale);
// Bytes of 256 weights.
int64_t BytesOf256(CodeType type);
// What the codes of a type without minima are shifted by; 0: it has minima.
int ZeroOf(CodeType type);

}  // namespace tern::kernels
