// What the codes of GGUF's block types (Q4_0 .. Q8_0, Q2_K .. Q6_K) are multiplied with: a user's
// choice between accuracy and speed (docs/adr/0005). Other weights do not notice kInt8.
#pragma once

#include <string_view>

namespace tern::engine {

enum class CodeActivations {
  kInt8,    // Rounded to 8 bits, 32 with one scale (kernels/code8_gemm)
  kInt16,   // To 16 bits (kernels/code_gemm), of Q8_0 fp32: nothing that a user sees
  kFolder,  // As a folder of INT8 or FP8 weights asks (scaled_matrix.h), others as kInt16
  kFloat,   // fp32; all weights but ternary ones are decoded to fp32 when they are loaded
};

// As options call it.
constexpr std::string_view ToString(CodeActivations activations) {
  switch (activations) {
    case CodeActivations::kInt8:
      return "int8";
    case CodeActivations::kInt16:
      return "int16";
    case CodeActivations::kFolder:
      return "folder";
    case CodeActivations::kFloat:
      return "f32";
  }
  return "";
}

}  // namespace tern::engine
