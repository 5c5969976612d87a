// tern verify on quantized outputs: any changed byte is found and named, and the mistakes that
// engines load without a word are refused even when the ledger was written for them.
#include "ptq/verify.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "arch/gguf_names.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "ptq/ledger.h"
#include "ptq/quantize_model.h"
#include "ptq/traps.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

class VerifyTest : public ::testing::Test {
 protected:
  VerifyTest() {
    at::set_num_threads(1);
    testing::WriteHfFolder(
        testing::MakeTinyModel(testing::TinyConfig(ArchName::kLlama, LinearKind::kDense), 3),
        folder_ / "source");
  }
  // Of the source, rounded to nearest.
  std::string Quantize(const std::string& to, const std::string& name = "out") {
    QuantizeOptions options;
    options.source = folder_ / "source";
    options.output = folder_ / name;
    options.to = to;
    options.min_max = true;
    options.threads = 1;
    QuantizeModel(options);
    return options.output;
  }
  VerifyReport Verify(const std::string& output, bool against = false) {
    VerifyOptions options;
    options.output = output;
    if (against) options.source = folder_ / "source";
    options.threads = 1;
    options.max_kl = 4;  // Random weights rounded to 3 bits are another model; its place is below.
    return VerifyQuantized(options);
  }
  // The error's words; "" and a failure when nothing is refused.
  std::string Refusal(const std::function<void()>& act) {
    try {
      act();
    } catch (const Error& error) {
      EXPECT_NE(error.code(), ExitCode::kBug) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }
  // As if the output had been made as it is now: only the checks behind the ledger can refuse it.
  void Reseal(const std::string& output) {
    const Ledger ledger = ReadLedger(LedgerPath(output));
    WriteLedger(output, ledger.matrices, LedgerPath(output));
  }
  TempFolder folder_;
};

// Where a tensor's bytes begin in its file. The mapping is the file, whose end is the last
// tensor's.
size_t OffsetOf(const std::string& file, const std::string& name) {
  if (file.ends_with(".gguf")) {
    const formats::GgufReader reader(file);
    const auto bytes = reader.Get(name).bytes;
    return ReadFile(file).find(
        std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  const formats::SafetensorsReader reader(file);
  const std::byte* end = nullptr;
  for (const auto& [other, tensor] : reader.tensors())
    end = std::max(end, tensor.bytes.data() + tensor.bytes.size());
  return fs::file_size(file) - static_cast<size_t>(end - reader.Get(name).bytes.data());
}

void Change(const std::string& file, const std::function<void(std::string&)>& change) {
  std::string bytes = ReadFile(file);
  change(bytes);
  std::ofstream(file, std::ios::binary) << bytes;
}

TEST_F(VerifyTest, PassesWhatWasWritten) {
  for (const char* to : {"int4", "int4_asym", "w3", "int8", "fp8_block", "nvfp4", "mxfp4"}) {
    const std::string out = Quantize(to, to);
    const VerifyReport report = Verify(out, true);
    EXPECT_EQ(report.matrices, 14) << to;
    EXPECT_EQ(report.compared, 14) << to;
    EXPECT_EQ(report.files, 2) << to;  // No tokenizer
    EXPECT_GT(report.worst_error, 0) << to;
    EXPECT_EQ(report.traps, std::string(to) == "nvfp4" ? 1 : 0);
    EXPECT_EQ(report.divergence.tokens, 64);
    EXPECT_TRUE(IsQuantizedOutput(out));
  }
  const std::string gguf = Quantize("q4_k_m", "q.gguf");
  EXPECT_EQ(Verify(gguf, true).compared, 14);
  fs::rename(gguf, folder_ / "renamed.gguf");
  fs::rename(LedgerPath(gguf), LedgerPath(folder_ / "renamed.gguf"));
  EXPECT_EQ(Verify(folder_ / "renamed.gguf").files, 1);
  fs::remove(LedgerPath(folder_ / "renamed.gguf"));
  EXPECT_TRUE(IsQuantizedOutput(folder_ / "renamed.gguf"));
  EXPECT_EQ(Verify(folder_ / "renamed.gguf", true).compared, 14);
  EXPECT_NE(Refusal([&] { Verify(folder_ / "renamed.gguf"); }).find("--against"),
            std::string::npos);
  EXPECT_FALSE(IsQuantizedOutput(folder_ / "source"));
}

// One bit anywhere: header, weights, scales, tables, configuration, the ledger itself.
TEST_F(VerifyTest, EveryFlippedBitIsRefused) {
  const std::string folder = Quantize("int4"), gguf = Quantize("q4_0", "q.gguf");
  std::vector<std::pair<std::string, std::string>> files;  // Output, and a file of it
  for (const auto& entry : fs::directory_iterator(folder)) files.emplace_back(folder, entry.path());
  files.emplace_back(gguf, gguf);
  files.emplace_back(gguf, LedgerPath(gguf));
  RandomStream random(11, "flips");
  for (const auto& [output, file] : files) {
    const std::string whole = ReadFile(file);
    for (int flip = 0; flip < 25; ++flip) {
      const size_t at = random.NextU64() % whole.size();
      const int bit = static_cast<int>(random.NextU64() % 8);
      Change(file, [&](std::string& bytes) { bytes[at] ^= static_cast<char>(1 << bit); });
      const std::string words = Refusal([&, o = output] { Verify(o); });
      EXPECT_FALSE(words.empty()) << file << " bit " << bit << " of byte " << at;
      Change(file, [&](std::string& bytes) { bytes = whole; });
    }
    EXPECT_NO_THROW(Verify(output)) << file;
  }
}

TEST_F(VerifyTest, NamesTheMatrixWithAChangedByte) {
  const std::string folder = Quantize("int4"), gguf = Quantize("q4_0", "q.gguf");
  const std::string file = folder + "/model.safetensors";
  for (const char* name :
       {"model.layers.1.mlp.up_proj.weight_packed", "model.layers.0.self_attn.k_proj.weight_scale",
        "model.norm.weight", "model.embed_tokens.weight"}) {
    const std::string whole = ReadFile(file);
    const size_t at = OffsetOf(file, name);
    Change(file, [&](std::string& bytes) { bytes[at + 7] ^= 1; });
    EXPECT_NE(Refusal([&] { Verify(folder); }).find(name), std::string::npos) << name;
    Change(file, [&](std::string& bytes) { bytes = whole; });
  }
  const char* name = "blk.1.ffn_down.weight";
  const size_t at = OffsetOf(gguf, name);
  Change(gguf, [&](std::string& bytes) { bytes[at + 100] ^= 1; });
  EXPECT_NE(Refusal([&] { Verify(gguf); }).find(name), std::string::npos);
}

TEST_F(VerifyTest, FindsMissingAndOtherFiles) {
  const std::string folder = Quantize("int4");
  WriteFileAtomically(folder + "/notes.txt", "of the user");
  EXPECT_NO_THROW(Verify(folder));
  const std::string config = ReadFile(folder + "/config.json");
  WriteFileAtomically(folder + "/config.json", config + " ");
  EXPECT_NE(Refusal([&] { Verify(folder); }).find("config.json was changed"), std::string::npos);
  WriteFileAtomically(folder + "/config.json", config);
  fs::remove(folder + "/model.safetensors");
  EXPECT_NE(Refusal([&] { Verify(folder); }).find("model.safetensors"), std::string::npos);
}

// Bytes of which the ledger has the hash, but not the values that the quantizer had.
TEST_F(VerifyTest, ValuesOfAnotherQuantizerAreRefused) {
  const std::string folder = Quantize("nvfp4");
  const std::string name = "model.layers.1.self_attn.o_proj.weight_global_scale",
                    file = folder + "/model.safetensors";
  const size_t at = OffsetOf(file, name);
  Change(file, [&](std::string& bytes) { bytes[at + 3] ^= 1; });
  Reseal(folder);
  EXPECT_NE(Refusal([&] { Verify(folder); }).find("model.layers.1.self_attn.o_proj"),
            std::string::npos);
}

// Engines fuse q, k and v and use one of the three scales.
TEST_F(VerifyTest, GlobalScalesOfFusedMatricesMustBeEqual) {
  const std::string folder = Quantize("nvfp4");
  EXPECT_EQ(CheckTraps(folder), 1);
  const std::string name = "model.layers.1.self_attn.k_proj.weight_global_scale",
                    file = folder + "/model.safetensors";
  const size_t at = OffsetOf(file, name);
  Change(file, [&](std::string& bytes) { bytes[at + 2] ^= 1; });
  const std::string words = Refusal([&] { CheckTraps(folder); });
  EXPECT_NE(words.find("self_attn.k_proj"), std::string::npos) << words;
  EXPECT_NE(words.find("engines fuse"), std::string::npos) << words;
}

TEST_F(VerifyTest, TernaryScalesTheWrongWayRoundAreRefused) {
  const testing::TinyModel model =
      testing::MakeTinyModel(testing::TinyConfig(ArchName::kBitnet), 3);
  for (const char* written : {"bitlinear", "autobitlinear"}) {
    for (const char* said : {"bitlinear", "autobitlinear"}) {
      const std::string folder = folder_ / StrCat(written, "-", said);
      testing::HfOptions options;
      options.linear_class = written;
      options.change_config = [&](nlohmann::json& config) {
        config["quantization_config"]["linear_class"] = said;
      };
      testing::WriteHfFolder(model, folder, options);
      if (std::string(written) == said) {
        EXPECT_EQ(CheckTraps(folder), 1);
      } else {
        EXPECT_NE(Refusal([&] { CheckTraps(folder); }).find("wrong way round"), std::string::npos);
      }
    }
  }
}

// llama's q and k rows stand in pairs in GGUF; a file with them in the model's order loads
// everywhere.
TEST_F(VerifyTest, RowsInAnotherOrderAreRefused) {
  const std::string gguf = Quantize("q8_0", "q.gguf");
  const char* name = "blk.1.attn_k.weight";
  const size_t at = OffsetOf(gguf, name), size = formats::GgufReader(gguf).Get(name).bytes.size(),
               row = size / 128;
  Change(gguf, [&](std::string& bytes) {
    const std::string paired = bytes.substr(at, size);
    for (int64_t to = 0; to < 128; ++to)  // Two heads of 64
      bytes.replace(at + static_cast<size_t>(to) * row, row, paired,
                    static_cast<size_t>(PermutedRow(to, 64)) * row, row);
  });
  Reseal(gguf);
  EXPECT_NO_THROW(Verify(gguf));
  const std::string words = Refusal([&] { Verify(gguf, true); });
  EXPECT_NE(words.find("model.layers.1.self_attn.k_proj"), std::string::npos) << words;
  EXPECT_NE(words.find("rows in another order"), std::string::npos) << words;
}

TEST_F(VerifyTest, AnotherModelsShapeIsRefused) {
  const ModelConfig source = testing::TinyConfig(ArchName::kBitnet158);
  ModelConfig found = source;
  EXPECT_NO_THROW(CheckConfig(found, source, "x.gguf"));
  found.activation = Activation::kSilu;  // As mainline's bitnet runs it
  EXPECT_NE(Refusal([&] { CheckConfig(found, source, "x.gguf"); }).find("bitnet-b1.58"),
            std::string::npos);
  found = source;
  found.rope_theta = 500000;
  EXPECT_NE(Refusal([&] { CheckConfig(found, source, "x.gguf"); }).find("rope_theta is 500000"),
            std::string::npos);
}

TEST_F(VerifyTest, HoldsTheBoundOfKl) {
  VerifyOptions options;
  options.output = Quantize("w2");
  options.source = folder_ / "source";
  options.threads = 1;
  options.max_kl = 1e-6;
  EXPECT_NE(Refusal([&] { VerifyQuantized(options); }).find("the limit 1e-06"), std::string::npos);
}

}  // namespace
}  // namespace tern::ptq
