// Small valid GGUF files for fuzzing, written by our own writer: the keys of every architecture the
// engine runs, a tensor of every type that tern writes or only reads, and every kind of metadata.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "formats/gguf.h"
#include "formats/i2_s.h"

namespace tern::formats::testing {

inline constexpr const char* kCorpusArchs[] = {"llama", "qwen2", "qwen3", "bitnet", "bitnet-b1.58"};

inline void AddCorpusKeys(const std::string& arch, GgufWriter* writer) {
  for (const char* key : {"context_length", "embedding_length", "feed_forward_length",
                          "block_count", "attention.head_count", "attention.head_count_kv"}) {
    writer->AddU32(arch + "." + key, 1);
  }
  writer->AddF32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  writer->AddString("tokenizer.ggml.model", "llama");
  writer->AddStrings("tokenizer.ggml.tokens", {"<unk>", "<s>", "\u2581a"});
  writer->AddF32s("tokenizer.ggml.scores", {0, 0, -1});
  writer->AddI32s("tokenizer.ggml.token_type", {2, 3, 1});
  writer->AddBool("tokenizer.ggml.add_bos_token", true);
}

// The bytes of the files, a few hundred to two thousand each. Tensors of random bytes.
inline std::vector<std::string> GgufCorpus(const std::string& folder) {
  RandomStream random(31, "corpus");
  std::vector<std::string> files;
  const auto write = [&](const std::string& arch, const std::vector<GgmlType>& types) {
    GgufWriter writer(arch);
    AddCorpusKeys(arch, &writer);
    for (const GgmlType type : types) {
      const int64_t k = InfoOf(type).block_weights * (type == GgmlType::kF32 ? 3 : 1);
      const bool i2s = type == GgmlType::kI2_S;
      const int64_t size = i2s ? I2sBytes(1, k) : RowBytes(type, k);
      writer.AddTensor(StrCat("blk.0.", InfoOf(type).name, ".weight"), type, {i2s ? 1 : 2, k},
                       [size, &random](int64_t, uint8_t* out) {
                         for (int64_t i = 0; i < size; ++i)
                           out[i] = static_cast<uint8_t>(random.NextU64());
                       });
    }
    const std::string path = StrCat(folder, "/", files.size(), ".gguf");
    writer.Write(path);
    files.push_back(ReadFile(path));
  };
  for (const char* arch : kCorpusArchs) write(arch, {GgmlType::kF32, GgmlType::kTq2_0});
  for (uint32_t number = 0; number < 64; ++number) {
    const auto info = FindGgmlType(number);
    if (info && info->type != GgmlType::kF16) write("llama", {info->type, GgmlType::kF16});
  }
  return files;
}

}  // namespace tern::formats::testing
