// See split_codes.h.
#include "kernels/code_gemm/split_codes.h"

#include <algorithm>

#include "kernels/code_gemm/code_gemm_impl.h"

namespace tern::kernels {

int64_t SplitRun(CodeType type) {
  const bool of16 = type == CodeType::kQ2K || type == CodeType::kQ3K || type == CodeType::kQ6K;
  return of16 ? 16 : 32;
}

bool HasShifts(CodeType type) { return ZeroOf(type) == 0; }

void SplitCodes(CodeType type, const uint8_t* row, int64_t k, int8_t* codes, float* scales,
                float* shifts) {
  const int zero = ZeroOf(type);
  const int64_t run = SplitRun(type);
  for (int64_t begin = 0; begin < k; begin += kTokenBlock, row += BytesOf256(type)) {
    const int64_t count = std::min<int64_t>(kTokenBlock, k - begin);
    const CodeParts parts = TakeApart(type, row, count / 32, /*token_scale=*/1.0f);
    for (int64_t i = 0; i < count; ++i)
      codes[begin + i] = static_cast<int8_t>(parts.code[i] - zero);
    for (int64_t i = 0; i < count; i += run) {  // Parts are of 16
      scales[(begin + i) / run] = parts.s[i / 16];
      if (HasShifts(type)) shifts[(begin + i) / run] = parts.t[i / 16];
    }
  }
}

}  // namespace tern::kernels
