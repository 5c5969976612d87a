// GGUF names of the decoder's parts, shared by the reader (engine) and the writer (transfer): one
// place for the spelling.
#pragma once

#include <string>
#include <string_view>

#include "arch/model_config.h"

namespace tern {

// "blk.3.attn_q.weight" of "model.layers.3.self_attn.q_proj.weight"; "token_embd.weight",
// "output_norm.weight", "output.weight"; biases of layers likewise. Throws BugError for a name
// outside of ParameterTable.
std::string GgufName(std::string_view parameter_name);

// "blk.3.attn_q.scale" of "blk.3.attn_q.weight": the fp32 scale of a ternary matrix.
std::string ScaleName(const std::string& gguf_name);

// Row of the file that holds row `row` of a llama-architecture q or k matrix: the file wants rotary
// pairs side by side (2i, 2i+1), the model has them half a head apart (i, i + E/2). A bijection
// within each head.
int64_t PermutedRow(int64_t row, int64_t head_dim);

// True when this architecture's file has permuted q and k rows and `parameter_name` is such a
// matrix.
bool IsPermuted(ArchName arch, std::string_view parameter_name);

// "llama", "qwen2", "qwen3", "bitnet", "bitnet-b1.58"; and back (kNone for another).
std::string GgufArchName(ArchName arch);
ArchName ArchFromGgufName(std::string_view name);

inline constexpr const char* kActivationKey = "tern.activation";  // "int8_token" | "none"

}  // namespace tern
