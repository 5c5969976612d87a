// Matrix steps of a warp: mma.sync and ldmatrix, with the lane maps of the PTX ISA manual (sections
// "Matrix Fragments for mma.m16n8k32 / m16n8k16" and "ldmatrix"). With g = lane / 4, t = lane % 4:
//   A (16 x k): registers 0..3 hold rows g, g+8, g, g+8; the last two are half of k further on;
//   B (k x 8):  column g; register 1 is half of k further on than register 0;
//   C (16 x 8): rows g, g, g+8, g+8 and columns 2t, 2t+1, 2t, 2t+1.
// A register holds neighbours along k: four bytes from 4t on, or two 16-bit floats from 2t on.
// tests/simt/matrix_test.cc holds the same maps in another form, element by element.
//
// Integers are exact. Floats: the products of one step and the accumulator are added in fp64 and
// rounded once to fp32; hardware keeps fewer bits and its order is not documented, so a kernel's
// test needs a tolerance that allows any order.
#include <cstring>

#include "kernels/common/half.h"
#include "kernels/simt/machine.h"

namespace tern::simt {
namespace {

constexpr int kRows = 16, kColumns = 8;

// Words of a lane: 0..3 A, 4..5 B, 6..9 C.
template <class T, int kDepth>
struct Operands {
  static constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
  explicit Operands(const WarpSlots& slots) {
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      const int g = lane / 4, t = lane % 4;
      for (int r = 0; r < 4; ++r) {
        std::memcpy(&a[g + 8 * (r & 1)][kPerWord * t + kDepth / 2 * (r >> 1)], &slots.in[lane][r],
                    4);
      }
      for (int r = 0; r < 2; ++r) {
        std::memcpy(&b[g][kPerWord * t + kDepth / 2 * r], &slots.in[lane][4 + r], 4);
      }
    }
  }
  T a[kRows][kDepth];
  T b[kColumns][kDepth];
};

// each(row, column, c): replaces the word c of the accumulator.
template <class Each>
void ForEachResult(WarpSlots& slots, const Each& each) {
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    for (int r = 0; r < 4; ++r) {
      slots.out[lane][r] = slots.in[lane][6 + r];
      each(lane / 4 + 8 * (r >> 1), 2 * (lane % 4) + (r & 1), &slots.out[lane][r]);
    }
  }
}

template <bool kUnsignedA>
void StepInt8(WarpSlots& slots) {
  const Operands<uint8_t, 32> operands(slots);
  ForEachResult(slots, [&](int row, int column, uint32_t* c) {
    for (int k = 0; k < 32; ++k) {
      const uint8_t a = operands.a[row][k];
      const int factor = kUnsignedA ? a : static_cast<int8_t>(a);
      // Wraps as .s32 without .satfinite does.
      *c += static_cast<uint32_t>(factor * static_cast<int8_t>(operands.b[column][k]));
    }
  });
}

float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

template <float (*kDecode)(uint16_t)>
void StepFloat16(WarpSlots& slots) {
  const Operands<uint16_t, 16> operands(slots);
  ForEachResult(slots, [&](int row, int column, uint32_t* c) {
    double sum = FromBits(*c);
    for (int k = 0; k < 16; ++k) {
      sum += static_cast<double>(kDecode(operands.a[row][k])) * kDecode(operands.b[column][k]);
    }
    const auto rounded = static_cast<float>(sum);
    std::memcpy(c, &rounded, sizeof(rounded));
  });
}

// Matrix i is 8 rows of 8 16-bit elements; lanes 8 i .. 8 i + 7 brought its rows.
template <int kMatrices, bool kTransposed>
void StepLoad(WarpSlots& slots) {
  for (int i = 0; i < kMatrices; ++i) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) std::memcpy(matrix[row], slots.in[8 * i + row], 16);
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t low = kTransposed ? matrix[2 * t][g] : matrix[g][2 * t];
      const uint32_t high = kTransposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
      slots.out[lane][i] = low | high << 16;
    }
  }
}

constexpr WarpOperation kSignedBytes{"mma.m16n8k32.s8.s8", 10, 4, StepInt8<false>};
constexpr WarpOperation kUnsignedBytes{"mma.m16n8k32.u8.s8", 10, 4, StepInt8<true>};
constexpr WarpOperation kHalves{"mma.m16n8k16.f16", 10, 4, StepFloat16<kernels::FloatFromHalf>};
constexpr WarpOperation kBfloats{"mma.m16n8k16.bf16", 10, 4, StepFloat16<kernels::FloatFromBfloat>};
constexpr WarpOperation kLoad1{"ldmatrix.x1", 4, 1, StepLoad<1, false>};
constexpr WarpOperation kLoad2{"ldmatrix.x2", 4, 2, StepLoad<2, false>};
constexpr WarpOperation kLoad4{"ldmatrix.x4", 4, 4, StepLoad<4, false>};
constexpr WarpOperation kLoad1Trans{"ldmatrix.x1.trans", 4, 1, StepLoad<1, true>};
constexpr WarpOperation kLoad2Trans{"ldmatrix.x2.trans", 4, 2, StepLoad<2, true>};
constexpr WarpOperation kLoad4Trans{"ldmatrix.x4.trans", 4, 4, StepLoad<4, true>};

void Multiply(const WarpOperation& operation, const uint32_t* a4, const uint32_t* b2,
              uint32_t* c4) {
  uint32_t in[10];
  for (int i = 0; i < 4; ++i) in[i] = a4[i];
  for (int i = 0; i < 2; ++i) in[4 + i] = b2[i];
  for (int i = 0; i < 4; ++i) in[6 + i] = c4[i];
  MeetWarp(operation, in, c4);
}

}  // namespace

void MatrixMultiplyInt8(MatrixType a_type, const uint32_t* a4, const uint32_t* b2, uint32_t* c4) {
  Multiply(a_type == MatrixType::kU8 ? kUnsignedBytes : kSignedBytes, a4, b2, c4);
}

void MatrixMultiplyFloat16(MatrixType type, const uint32_t* a4, const uint32_t* b2, uint32_t* c4) {
  Multiply(type == MatrixType::kF16 ? kHalves : kBfloats, a4, b2, c4);
}

void LoadMatrices(int matrices, bool transposed, const uint8_t* row, uint32_t* out) {
  uint32_t in[4] = {};
  if (row != nullptr) std::memcpy(in, row, sizeof(in));
  switch (matrices) {
    case 1:
      return MeetWarp(transposed ? kLoad1Trans : kLoad1, in, out);
    case 2:
      return MeetWarp(transposed ? kLoad2Trans : kLoad2, in, out);
    case 4:
      return MeetWarp(transposed ? kLoad4Trans : kLoad4, in, out);
    default:
      Fail("ldmatrix loads 1, 2 or 4 matrices");
  }
}

}  // namespace tern::simt
