// Model files (model.h5): what `tern import` writes computes the same bits as its source, whatever
// the source's storage is; and a file that is damaged, cut or foreign is refused.
#include "engine/model_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "h5/h5.h"
#include "tests/engine/scaled_folder.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/file_size_limit.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using formats::GgmlType;

class ModelFileTest : public ::testing::Test {
 protected:
  std::string Import(const std::string& source) {
    const std::string path = folder_ / StrCat(++files_, ".h5");
    engine::WriteModelFile(*engine::OpenModel(source), path);
    return path;
  }
  static std::vector<float> Logits(const std::string& path) {
    const engine::Engine engine(engine::LoadModel(path), 1);
    return engine::Session(engine).Append(RandomTokens(7, engine.config().vocab_size, 31),
                                          engine::LogitsOf::kAll);
  }
  // The same config, the same bits of every logit; and so of a copy of the copy.
  void ExpectSame(const std::string& source) {
    const std::string path = Import(source);
    EXPECT_EQ(engine::OpenModel(path)->config(), engine::OpenModel(source)->config());
    const std::vector<float> want = Logits(source);
    EXPECT_EQ(Logits(path), want) << source;
    EXPECT_EQ(Logits(Import(path)), want) << source;
  }
  std::string Gguf(const TinyModel& model, ArchName arch, GgmlType linear, GgmlType table) {
    GgufOptions options;
    options.linear = linear;
    options.table = table;
    if (model.ternary.empty()) options.activation = std::nullopt;
    const std::string path = folder_ / StrCat(++files_, ".gguf");
    WriteGguf(model, arch, path, options);
    return path;
  }
  std::string Folder(const TinyModel& model, const HfOptions& options = {}) {
    const std::string path = folder_ / StrCat("hf", ++files_);
    WriteHfFolder(model, path, options);
    return path;
  }

  TempFolder folder_;
  int files_ = 0;
};

TEST_F(ModelFileTest, TernaryModelsOfEveryArchitecture) {
  for (const ArchName arch : {ArchName::kLlama, ArchName::kQwen2, ArchName::kQwen3,
                              ArchName::kBitnet, ArchName::kBitnet158}) {
    const TinyModel model = MakeTinyModel(TinyConfig(arch), 5);
    for (const GgmlType type : {GgmlType::kTq2_0, GgmlType::kTq1_0})
      ExpectSame(Gguf(model, arch, type, GgmlType::kF16));
  }
  for (const char* meaning : {"bitlinear", "autobitlinear"}) {
    HfOptions options;
    options.linear_class = meaning;
    ExpectSame(Folder(MakeTinyModel(TinyConfig(ArchName::kBitnet158), 6), options));
  }
}

TEST_F(ModelFileTest, DenseModelsKeepTheirTypes) {
  for (const ArchName arch : {ArchName::kLlama, ArchName::kQwen2, ArchName::kQwen3}) {
    const TinyModel model = MakeTinyModel(TinyConfig(arch, LinearKind::kDense), 7);
    for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16, GgmlType::kBf16, GgmlType::kQ8_0}) {
      const std::string source = Gguf(model, arch, type, type);
      ExpectSame(source);
      const engine::LinearMatrix found = engine::LinearOf(engine::LoadModel(Import(source)),
                                                          "model.layers.1.self_attn.k_proj.weight");
      if (type == GgmlType::kF32) {
        EXPECT_TRUE(std::holds_alternative<engine::DenseMatrix>(found));
      } else {
        EXPECT_EQ(std::get<engine::BlockMatrix>(found).type, type);
      }
    }
  }
}

TEST_F(ModelFileTest, IntegersAndFp8WithScales) {
  const ScaledKind kinds[] = {{"int4", "int4", "group", 1, 4, true, "F16"},
                              {"int8", "int8", "channel", 1, 0, false, "BF16"},
                              {"fp8", "fp8", "tensor", 0, 0, false, "F32"}};
  for (const ScaledKind& kind : kinds) {
    const std::string path = folder_ / kind.name;
    ScaledFolder(kind).folder.Write(path);
    ExpectSame(path);
  }
}

// What a folder asks of the inputs of its layers comes along.
TEST_F(ModelFileTest, RoundedInputs) {
  const ScaledKind kinds[] = {{"int8", "int8", "channel", 1, 0, false, "BF16"},
                              {"fp8", "fp8", "tensor", 0, 0, false, "F32"}};
  for (const ScaledKind& kind : kinds) {
    ScaledFolder scaled(kind);
    scaled.folder.config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {
        {"num_bits", 8},
        {"type", kind.code == "int8" ? "int" : "float"},
        {"symmetric", true},
        {"dynamic", true},
        {"strategy", "token"}};
    const std::string path = folder_ / (kind.name + "_inputs");
    scaled.folder.Write(path);
    engine::ModelWeights source = engine::LoadModel(path), copy = engine::LoadModel(Import(path));
    const auto input = [](const engine::ModelWeights& weights) {
      return std::get<engine::ScaledMatrix>(weights.layers[0].up).input;
    };
    EXPECT_NE(input(source).code, engine::InputRounding::Code::kNone);
    EXPECT_EQ(input(copy), input(source));
    EXPECT_NO_THROW(engine::SetActivations(engine::CodeActivations::kFolder, &copy));
  }
}

TEST_F(ModelFileTest, ScaledRopeAndBiasesAreInTheConfig) {
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kQwen2, LinearKind::kDense), 8);
  HfOptions options;
  options.change_config = [](nlohmann::json& config) {
    config["model_type"] = "qwen2";
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 8.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 64}};
  };
  const std::string source = Folder(model, options);
  ExpectSame(source);
  const ModelConfig config = engine::OpenModel(Import(source))->config();
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_EQ(config.rope_scaling.kind, RopeScalingKind::kLlama3);
}

// Latents (quantization_mode online, and 1bitLLM's names) run as what packing them gives.
TEST_F(ModelFileTest, LatentsAreQuantizedWhenTheyRun) {
  ModelConfig config = TinyConfig(ArchName::kBitnet);
  TinyModel latents = MakeTinyModel(config, 9);
  latents.ternary.clear();
  RandomStream random(10, "latents");
  for (const ParameterSpec& spec : ParameterTable(config)) {
    if (spec.role != ParameterRole::kLinear) continue;
    for (int64_t i = 0; i < spec.Count(); ++i)
      latents.floats[spec.name].push_back(0.05f * random.NextNormal());
  }
  HfOptions online;
  online.change_config = [](nlohmann::json& json) {
    json["quantization_config"]["quantization_mode"] = "online";
    json["quantization_config"]["linear_class"] = "autobitlinear";
  };
  const std::string source = Folder(latents, online);
  ExpectSame(source);
  const auto weights = engine::LoadModel(source);
  EXPECT_TRUE(std::holds_alternative<engine::TernaryMatrix>(weights.layers[0].down));

  TinyModel inner = latents;
  for (const auto& [name, values] : latents.floats) {
    std::string other = name;
    const auto rename = [&](const std::string& from, const std::string& to) {
      const size_t at = other.find(from);
      if (at != std::string::npos) other.replace(at, from.size(), to);
    };
    rename("self_attn.attn_sub_norm", "self_attn.inner_attn_ln");
    rename("mlp.ffn_sub_norm", "mlp.ffn_layernorm");
    if (other == name) continue;
    inner.floats[other] = values;
  }
  RawFolder folder;
  folder.config = HfConfig(config, "");
  folder.config.erase("quantization_config");
  folder.config["model_type"] = "llama";
  for (const auto& [name, values] : inner.floats) {
    if (name.find("sub_norm") != std::string::npos) continue;
    const auto count = static_cast<int64_t>(values.size());
    std::vector<int64_t> shape = {count};
    for (const ParameterSpec& spec : ParameterTable(config)) {
      if (spec.name == name) shape = spec.shape;
    }
    folder.tensors[name] = MakeRaw("F32", shape, values);
  }
  folder.Write(folder_ / "inner");
  ExpectSame(folder_ / "inner");
  EXPECT_EQ(Logits(folder_ / "inner"), Logits(source));
}

// Logits runs 7 tokens.
TEST_F(ModelFileTest, WindowsOfAttentionAreInTheConfig) {
  const TinyModel model = MakeTinyModel(TinyConfig(ArchName::kQwen2, LinearKind::kDense), 15);
  const std::string source = Folder(model, SlidingQwen2()), path = Import(source);
  ExpectSame(source);
  EXPECT_EQ(engine::OpenModel(path)->config().attention_windows, (std::vector<int64_t>{0, 3}));
}

// A full disk is an error, not a crash, though slices still wait to be hashed; nothing is left.
TEST_F(ModelFileTest, AFullDiskLeavesNothing) {
  const TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 16);
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kBf16}) {
    const std::string source = Gguf(model, ArchName::kLlama, type, type);
    for (const rlim_t limit : {rlim_t{4096}, rlim_t{150'000}, rlim_t{400'000}}) {
      const FileSizeLimit full(limit);
      EXPECT_THROW(engine::WriteModelFile(*engine::OpenModel(source), folder_ / "full.h5"),
                   ResourceError)
          << limit;
    }
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / ""))
    EXPECT_EQ(entry.path().filename().string().find("full"), std::string::npos) << entry;
}

// A value that is not finite is found in every slice and every kind of file, by its place.
TEST_F(ModelFileTest, ValuesThatAreNotFiniteAreNamed) {
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 17);
  const auto message = [&](const std::string& source) -> std::string {
    try {
      engine::WriteModelFile(*engine::OpenModel(source), folder_ / "bad.h5");
      return "taken";
    } catch (const FormatError& error) {
      return error.what();
    }
  };
  std::vector<float>& q = model.floats.at("model.layers.1.self_attn.q_proj.weight");
  q[q.size() - 3] = -INFINITY;
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16, GgmlType::kBf16}) {
    const std::string found = message(Gguf(model, ArchName::kLlama, type, type));
    EXPECT_NE(found.find("blk.1.attn_q.weight, row 255, holds -inf at 253"), std::string::npos)
        << found;
  }
  const std::string found = message(Folder(model));
  EXPECT_NE(found.find("model.layers.1.self_attn.q_proj.weight"), std::string::npos) << found;
  EXPECT_NE(found.find("holds -inf at"), std::string::npos) << found;
}

TEST_F(ModelFileTest, FilesOfTheFolderGoAlong) {
  const std::string source = Folder(MakeTinyModel(TinyConfig(ArchName::kBitnet), 11));
  WriteFileAtomically(source + "/chat_template.jinja", "{{ messages }}");
  WriteFileAtomically(source + "/generation_config.json", "{}");
  WriteFileAtomically(source + "/README.md", "not the model's");
  const auto files = engine::OpenModel(Import(source))->Files();
  EXPECT_EQ(files.size(), 3u);  // And config.json, which may name EOS
  EXPECT_FALSE(files.contains("README.md"));
  EXPECT_EQ(files.at("chat_template.jinja"), "{{ messages }}");
}

// Any changed byte of a tensor is found, and no damage anywhere is more than an error.
TEST_F(ModelFileTest, FuzzDamagedFilesAreRefusedOrTheSame) {
  const std::string path = Import(Gguf(MakeTinyModel(TinyConfig(ArchName::kLlama), 12),
                                       ArchName::kLlama, GgmlType::kTq2_0, GgmlType::kF16));
  const std::string good = ReadFile(path);
  const std::vector<float> want = Logits(path);
  RandomStream random(13, "damage");
  int refused = 0;
  constexpr int kTrials = 150;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::string bytes = good;
    if (trial % 5 == 0) {
      bytes.resize(random.NextU64() % bytes.size());
    } else {
      // Half of the flips in the first pages, where the metadata are.
      const size_t range = trial % 2 == 0 ? bytes.size() : 8192;
      bytes[random.NextU64() % range] ^= static_cast<char>(1 << random.NextU64() % 8);
    }
    WriteFileAtomically(path, bytes);
    try {
      EXPECT_EQ(Logits(path), want) << trial;  // A byte that nobody reads
    } catch (const Error& error) {
      ++refused;
    }
  }
  EXPECT_GT(refused, kTrials / 3);
}

TEST_F(ModelFileTest, ForeignAndUnfinishedFilesAreRefused) {
  h5::File::Create(folder_ / "other.h5").Close();
  EXPECT_THROW(engine::OpenModel(folder_ / "other.h5"), FormatError);
  WriteFileAtomically(folder_ / "empty", "");
  EXPECT_THROW(engine::OpenModel(folder_ / "empty"), FormatError);
  EXPECT_THROW(engine::OpenModel(folder_ / "missing"), InputError);
  // A source that fails half way leaves nothing behind.
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama), 14);
  model.floats.at("model.norm.weight")[3] = NAN;
  const std::string source = Folder(model);
  EXPECT_THROW(engine::WriteModelFile(*engine::OpenModel(source), folder_ / "half.h5"),
               FormatError);
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / ""))
    EXPECT_EQ(entry.path().filename().string().find("half"), std::string::npos) << entry;
}

}  // namespace
}  // namespace tern::testing
