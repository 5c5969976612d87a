// Linear layers of the engine. One input serves several matrices, each of which wants it in its own
// form: int8 tokens for ternary layers, 16-bit or 8-bit blocks for codes (kernels/code_gemm,
// kernels/code8_gemm), fp32 for the rest (kernels/float_gemm, kernels/w4a16). A form is made once,
// when it is first asked for.
// Matrices are multiplied as they lie in memory, never decoded as a whole.
#pragma once

#include <cstdint>
#include <vector>

#include "base/parallel.h"
#include "engine/model_weights.h"
#include "kernels/code8_gemm/int8_tokens.h"
#include "kernels/code_gemm/int16_tokens.h"

namespace tern::engine {

// m rows of k numbers, normalised by RMSNorm where there is a gain. Its memory is kept from one
// input to the next.
class LinearInput {
 public:
  // activations: what codes are multiplied with.
  LinearInput(const ParallelFor& parallel, CodeActivations activations)
      : parallel_(parallel), activations_(activations) {}

  // x: [m, k] fp32, which must stay as it is until the next Set. gain: [k], or empty for none.
  void Set(const float* x, int64_t m, int64_t k, const std::vector<float>& gain = {},
           float eps = 0);

  int64_t m() const { return m_; }
  int64_t k() const { return k_; }
  CodeActivations activations() const { return activations_; }

  const float* Floats();  // [m, k]
  struct Int8Tokens {
    const int8_t* q;  // [m, ldq], ldq = T2PaddedK(k)
    const float* gamma;
    const int32_t* sum;
    int64_t ldq;
  };
  Int8Tokens Int8();
  const float* Rounded(const InputRounding& rounding);  // [m, k], scaled back
  const kernels::Int16Block* Int16();                   // [m, Int16Blocks(k)]
  const kernels::Int8Block* Int8Blocks();               // [m, Int8Blocks(k)]

 private:
  template <class Quantize, class Block>
  void QuantizeBlocks(Quantize* quantize, std::vector<Block>* buffer);

  const ParallelFor& parallel_;
  CodeActivations activations_;
  const float* x_ = nullptr;
  const float* gain_ = nullptr;  // Null: none
  float eps_ = 0;
  int64_t m_ = 0, k_ = 0;
  bool has_floats_ = false, has_int8_ = false, has_int16_ = false, has_int8_blocks_ = false;
  InputRounding rounding_;  // Of rounded_; kNone: not there
  std::vector<float> floats_, rounded_, inverse_rms_, gamma_;
  std::vector<int8_t> int8_;
  std::vector<int32_t> sum_;
  std::vector<kernels::Int16Block> int16_;
  std::vector<kernels::Int8Block> int8_blocks_;
};

// y[m, n] = x w^T. Ternary matrices follow `rule`. A row of y has the same bits for one token and
// for many, on any number of threads and instruction set. REQUIRES: input.k() = w's k; y has room.
void Multiply(LinearInput& input, const LinearMatrix& w, ActivationRule rule, float* y,
              const ParallelFor& parallel);
void Multiply(LinearInput& input, const TableMatrix& w, float* y, const ParallelFor& parallel);

// Row `row` of a table as floats, out[k].
void CopyRow(const TableMatrix& w, int64_t row, float* out);

}  // namespace tern::engine
