// The scalar oracle of CodeGemm: takes each block apart into codes, scales and shifts, as the
// formats' description says.
#include <cmath>
#include <cstring>

#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/common/columns.h"
#include "kernels/common/half.h"
#include "kernels/common/lanes.h"

namespace tern::kernels {
namespace {

float HalfAt(const uint8_t* p) { return FloatFromHalf(static_cast<uint16_t>(p[0] | p[1] << 8)); }

// Blocks of 32: fp16 d, fp16 m (the _1 types), fifth bits (the Q5 types), 16 bytes with weight i
// low and i + 16 high.
void TakeApartSmall(CodeType type, const uint8_t* block, int64_t blocks32, float scale,
                    CodeParts* parts) {
  const bool shifted = type == CodeType::kQ4_1 || type == CodeType::kQ5_1;
  const bool five = type == CodeType::kQ5_0 || type == CodeType::kQ5_1;
  for (int64_t b = 0; b < blocks32; ++b, block += BytesOf256(type) / 8) {
    const float s = HalfAt(block) * scale;
    const uint8_t* bits = block + (shifted ? 4 : 2);
    const uint8_t* nibbles = bits + (five ? 4 : 0);
    const float zero = five ? 16.0f : 8.0f;
    for (int64_t half = 0; half < 2; ++half) {
      parts->s[2 * b + half] = s;
      parts->t[2 * b + half] = shifted ? HalfAt(block + 2) * scale : -zero * s;
    }
    for (int64_t i = 0; i < 32; ++i) {
      const int code = nibbles[i % 16] >> (i / 16 * 4) & 15;
      const int fifth = five ? bits[i / 8] >> (i % 8) & 1 : 0;
      parts->code[32 * b + i] = static_cast<uint8_t>(code | fifth << 4);
    }
  }
}

// Blocks of 32: fp16 d, 32 signed bytes, here + 128.
void TakeApartQ8_0(const uint8_t* block, int64_t blocks32, float scale, CodeParts* parts) {
  for (int64_t b = 0; b < blocks32; ++b, block += 34) {
    for (int64_t half = 2 * b; half < 2 * b + 2; ++half) {
      parts->s[half] = HalfAt(block) * scale;
      parts->t[half] = -128.0f * parts->s[half];
    }
    for (int64_t i = 0; i < 32; ++i)
      parts->code[32 * b + i] = static_cast<uint8_t>(block[2 + i] ^ 0x80);
  }
}

void TakeApartQ4KQ5K(CodeType type, const uint8_t* block, float scale, CodeParts* parts) {
  const bool five = type == CodeType::kQ5K;
  const float d = HalfAt(block) * scale, dmin = HalfAt(block + 2) * scale;
  const uint8_t *six = block + 4, *fifths = block + 16, *nibbles = block + (five ? 48 : 16);
  for (int64_t s = 0; s < 8; ++s) {
    const int64_t j = s % 4;
    const int sc = s < 4 ? six[j] & 63 : (six[j + 8] & 15) | six[j] >> 6 << 4;
    const int min = s < 4 ? six[j + 4] & 63 : six[j + 8] >> 4 | six[j + 4] >> 6 << 4;
    for (int64_t half = 0; half < 2; ++half) {
      parts->s[2 * s + half] = d * static_cast<float>(sc);
      parts->t[2 * s + half] = -(dmin * static_cast<float>(min));
    }
    for (int64_t i = 0; i < 32; ++i) {
      const int code = nibbles[s / 2 * 32 + i] >> (s % 2 * 4) & 15;
      const int fifth = five ? fifths[i] >> s & 1 : 0;
      parts->code[32 * s + i] = static_cast<uint8_t>(code | fifth << 4);
    }
  }
}

void TakeApartQ6K(const uint8_t* block, float scale, CodeParts* parts) {
  const float d = HalfAt(block + 208) * scale;
  for (int64_t i = 0; i < 256; ++i) {
    const int64_t half = i / 128, g = i % 128 / 32, j = i % 32;
    const int low = block[half * 64 + g % 2 * 32 + j] >> (g / 2 * 4) & 15;
    const int high = block[128 + half * 32 + j] >> (2 * g) & 3;
    parts->code[i] = static_cast<uint8_t>(low | high << 4);
  }
  for (int64_t s = 0; s < 16; ++s) {
    parts->s[s] = d * static_cast<float>(static_cast<int8_t>(block[192 + s]));
    parts->t[s] = -32.0f * parts->s[s];
  }
}

void TakeApartQ2K(const uint8_t* block, float scale, CodeParts* parts) {
  const float d = HalfAt(block + 80) * scale, dmin = HalfAt(block + 82) * scale;
  for (int64_t i = 0; i < 256; ++i)
    parts->code[i] = block[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
  for (int64_t s = 0; s < 16; ++s) {
    parts->s[s] = d * static_cast<float>(block[s] & 15);
    parts->t[s] = -(dmin * static_cast<float>(block[s] >> 4));
  }
}

void TakeApartQ3K(const uint8_t* block, float scale, CodeParts* parts) {
  const float d = HalfAt(block + 108) * scale;
  for (int64_t i = 0; i < 256; ++i) {
    const int low = block[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    const int high = block[i % 32] >> (i / 32) & 1;
    parts->code[i] = static_cast<uint8_t>(low | high << 2);
  }
  for (int64_t s = 0; s < 16; ++s) {
    const int low = s < 8 ? block[96 + s] & 15 : block[96 + s - 8] >> 4;
    const int high = block[104 + s % 4] >> (2 * (s / 4)) & 3;
    parts->s[s] = d * static_cast<float>((low | high << 4) - 32);
    parts->t[s] = -4.0f * parts->s[s];
  }
}

float Dot(const uint8_t* row, const CodeGemmArgs& args, int64_t m) {
  const int64_t blocks = Int16Blocks(args.k);
  const bool of32 = args.type == CodeType::kQ4K || args.type == CodeType::kQ5K;
  float lanes[kLanes] = {};
  for (int64_t b = 0; b < blocks; ++b, row += BytesOf256(args.type)) {
    const Int16Block& x = args.x[m * blocks + b];
    const int64_t left = (args.k - b * kTokenBlock) / 32;
    const CodeParts parts = TakeApart(args.type, row, left < 8 ? left : 8, x.scale);
    for (int64_t l = 0; l < kLanes; ++l) {
      if (!of32) {
        lanes[l] = std::fma(parts.t[l], x.sums[l], lanes[l]);
      } else {
        const float factor = l < 8 ? parts.s[2 * l] : parts.t[2 * l - 16];
        lanes[l] = std::fma(factor, x.pair_sums[l], lanes[l]);
      }
    }
    for (int64_t c = 0; c < 4 && b * kTokenBlock + 64 * c < args.k; ++c) {
      for (int64_t l = 0; l < kLanes; ++l) {
        int32_t sum = 0;
        for (int64_t i = 64 * c + 4 * l; i < 64 * c + 4 * l + 4; ++i)
          sum += parts.code[i] * (256 * x.high[i] + x.low[i]);
        lanes[l] = std::fma(static_cast<float>(sum), parts.s[4 * c + l / 4], lanes[l]);
      }
    }
  }
  return JoinLanes(lanes);
}

}  // namespace

int64_t BytesOf256(CodeType type) {
  switch (type) {
    case CodeType::kQ4_0:
      return 8 * 18;
    case CodeType::kQ4_1:
      return 8 * 20;
    case CodeType::kQ5_0:
      return 8 * 22;
    case CodeType::kQ5_1:
      return 8 * 24;
    case CodeType::kQ8_0:
      return 8 * 34;
    case CodeType::kQ2K:
      return 84;
    case CodeType::kQ3K:
      return 110;
    case CodeType::kQ4K:
      return 144;
    case CodeType::kQ5K:
      return 176;
    case CodeType::kQ6K:
      return 210;
  }
  return 0;
}

int ZeroOf(CodeType type) {
  switch (type) {
    case CodeType::kQ4_0:
      return 8;
    case CodeType::kQ5_0:
      return 16;
    case CodeType::kQ8_0:
      return 128;
    case CodeType::kQ3K:
      return 4;
    case CodeType::kQ6K:
      return 32;
    case CodeType::kQ4_1:
    case CodeType::kQ5_1:
    case CodeType::kQ2K:
    case CodeType::kQ4K:
    case CodeType::kQ5K:
      return 0;
  }
  return 0;
}

CodeParts TakeApart(CodeType type, const uint8_t* block, int64_t blocks32, float token_scale) {
  CodeParts parts{};
  switch (type) {
    case CodeType::kQ8_0:
      TakeApartQ8_0(block, blocks32, token_scale, &parts);
      break;
    case CodeType::kQ2K:
      TakeApartQ2K(block, token_scale, &parts);
      break;
    case CodeType::kQ3K:
      TakeApartQ3K(block, token_scale, &parts);
      break;
    case CodeType::kQ4K:
    case CodeType::kQ5K:
      TakeApartQ4KQ5K(type, block, token_scale, &parts);
      break;
    case CodeType::kQ6K:
      TakeApartQ6K(block, token_scale, &parts);
      break;
    default:
      TakeApartSmall(type, block, blocks32, token_scale, &parts);
  }
  return parts;
}

void CodeGemmRef(const CodeGemmArgs& args, int64_t n_begin, int64_t n_end) {
  for (int64_t n = n_begin; n < n_end; ++n) {
    for (int64_t m = 0; m < args.m; ++m) {
      args.y[m * args.ldy + ColumnOf(n, args.paired_head_dim)] =
          Dot(args.w + n * args.row_bytes, args, m);
    }
  }
}

void QuantizeInt16Ref(const float* x, int64_t m, int64_t k, int64_t ldx, Int16Block* out) {
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t begin = 0; begin < k; begin += kTokenBlock, ++out) {
      const int64_t count = k - begin < kTokenBlock ? k - begin : kTokenBlock;
      const float* p = x + row * ldx + begin;
      float amax = 0;
      for (int64_t i = 0; i < count; ++i) amax = std::fmax(amax, std::fabs(p[i]));
      *out = {};
      if (amax < kSmallestAmax) continue;
      const float inverse = kInt16Limit / amax;
      out->scale = amax / kInt16Limit;
      for (int64_t i = 0; i < count; ++i) {
        const auto q = static_cast<int32_t>(std::nearbyint(p[i] * inverse));
        const int32_t high = (q + 128) >> 8;
        out->high[i] = static_cast<int8_t>(high);
        out->low[i] = static_cast<int8_t>(q - 256 * high);
        out->sums[i / 16] += static_cast<float>(q);
        out->pair_sums[8 + i / 32] += static_cast<float>(q);
      }
      DeriveMembers(out);
    }
  }
}

}  // namespace tern::kernels
