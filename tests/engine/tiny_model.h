// Tiny random models for the tests of the engine: plain numbers by Hugging Face parameter name,
// from a fixed seed. What a file of such a model looks like is in tiny_files.h, what it computes in
// reference.h.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "base/random.h"

namespace tern::testing {

struct TinyTernary {
  std::vector<int8_t> codes;  // [N, K] of -1, 0, 1
  float beta;
};

struct TinyModel {
  ModelConfig config;
  std::map<std::string, std::vector<float>> floats;  // Tables, norms, dense matrices
  std::map<std::string, TinyTernary> ternary;
};

// Two layers with grouped queries; rows of 256, so that TQ types can hold them.
inline ModelConfig TinyConfig(ArchName arch, LinearKind linear = LinearKind::kBitLinear) {
  ModelConfig c;
  c.vocab_size = 40;
  c.hidden_size = 256;
  c.intermediate_size = 256;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.context_length = 300;
  c.linear = linear;
  c.activation = arch == ArchName::kBitnet158 ? Activation::kRelu2 : Activation::kSilu;
  const bool bitnet = arch == ArchName::kBitnet || arch == ArchName::kBitnet158;
  c.sub_norms = bitnet ? SubNorms::kOutputs : SubNorms::kNone;
  c.qk_norm = arch == ArchName::kQwen3;
  c.qkv_bias = arch == ArchName::kQwen2;
  // qwen3: heads wider than the model's share, which the file says in a key of its own.
  c.head_dim = arch == ArchName::kQwen3 ? 128 : 0;
  c.tied_head = arch != ArchName::kLlama && arch != ArchName::kQwen2;
  return c;
}

inline TinyModel MakeTinyModel(const ModelConfig& config, uint64_t seed) {
  TinyModel model{config, {}, {}};
  RandomStream random(seed, "tiny model");
  for (const ParameterSpec& spec : ParameterTable(config)) {
    const auto count = static_cast<size_t>(spec.Count());
    if (spec.role == ParameterRole::kLinear && config.linear == LinearKind::kBitLinear) {
      TinyTernary& matrix = model.ternary[spec.name];
      for (size_t i = 0; i < count; ++i)
        matrix.codes.push_back(static_cast<int8_t>(static_cast<int>(random.NextU64() % 3) - 1));
      matrix.beta = 0.02f + 0.06f * random.NextUniform();
      continue;
    }
    const bool norm = spec.role == ParameterRole::kNorm;
    const float spread = spec.role == ParameterRole::kLinear ? 0.06f
                         : spec.role == ParameterRole::kBias ? 0.5f
                                                             : 0.3f;
    for (size_t i = 0; i < count; ++i)
      model.floats[spec.name].push_back((norm ? 1.0f : 0.0f) + spread * random.NextNormal());
  }
  return model;
}

inline std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab_size, uint64_t seed) {
  RandomStream random(seed, "tokens");
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(random.NextU64() % static_cast<uint64_t>(vocab_size)));
  return tokens;
}

}  // namespace tern::testing
