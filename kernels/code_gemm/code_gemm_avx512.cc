// CodeGemm with AVX-512 VNNI.
#include "kernels/code_gemm/bytes64_avx512.h"
#include "kernels/code_gemm/code_gemm_many.h"
#include "kernels/code_gemm/code_gemm_vec.h"
#include "kernels/common/thread_buffer.h"

namespace tern::kernels {
namespace {
using Version = CodeGemmVec<Bytes64Avx512, 2, 2, 4>;
using Many = CodeGemmMany<Bytes64Avx512, 4>;

// Tokens from which taking rows apart pays.
constexpr int64_t kManyTokens = 8;
}  // namespace

void CodeGemmAvx512(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end) {
  const int64_t panels = args.m < kManyTokens ? 0 : (n_end - n_begin) / kCodePanelRows;
  if (panels > 0) {
    const int64_t blocks = kCodePanelRows * Int16Blocks(args.k);
    auto* panel = reinterpret_cast<CodePanelBlock*>(
        ThreadBuffer(blocks * static_cast<int64_t>(sizeof(CodePanelBlock))));
    WithCodeType<Bytes64Avx512>(args.type, [&]<class C>() {
      for (int64_t p = 0; p < panels; ++p) Many::Rows<C>(args, n_begin + p * kCodePanelRows, panel);
    });
  }
  Version::Run(args, n_begin + panels * kCodePanelRows, n_end);
}

void QuantizeInt16Avx512(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out) {
  Version::Quantize(x, m, k, ldx, out);
}

}  // namespace tern::kernels
