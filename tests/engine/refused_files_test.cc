// Model files that the engine must not run: something is missing, of another size, damaged, or
// would make another model than the one the writer meant. Each is refused with a typed error that
// names the culprit.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "engine/model_source.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using formats::GgmlType;
using formats::GgufWriter;

// Loads and expects an error of the input (exit code 3) whose text holds `part`.
void ExpectRefused(const std::string& path, const std::string& part) {
  try {
    engine::LoadModel(path);
    ADD_FAILURE() << "taken, though " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInput) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

GgufWriter::RowWriter Constant(float value, int64_t k) {
  return [=](int64_t, uint8_t* out) {
    const std::vector<float> row(static_cast<size_t>(k), value);
    formats::EncodeRow(GgmlType::kF32, row.data(), k, out);
  };
}

class RefusedGgufTest : public ::testing::Test {
 protected:
  void Refuse(const GgufOptions& options, const std::string& part) {
    WriteGguf(model_, ArchName::kBitnet, path_, options);
    ExpectRefused(path_, part);
  }

  TempFolder folder_;
  std::string path_ = folder_ / "model.gguf";
  TinyModel model_ = MakeTinyModel(TinyConfig(ArchName::kBitnet), 41);
};

TEST_F(RefusedGgufTest, TheUnchangedFileIsTaken) {
  WriteGguf(model_, ArchName::kBitnet, path_);
  EXPECT_NO_THROW(engine::LoadModel(path_));
}

TEST_F(RefusedGgufTest, MissingTensors) {
  for (const char* name :
       {"blk.1.attn_q.scale", "blk.0.ffn_down.scale", "blk.1.attn_q.weight",
        "blk.0.attn_sub_norm.weight", "output_norm.weight", "token_embd.weight"}) {
    GgufOptions options;
    options.leave_out = {name};
    Refuse(options, name);
  }
}

TEST_F(RefusedGgufTest, ShapesThatTheKeysContradict) {
  const auto lie = [&](const std::function<void(ModelConfig&)>& change, const std::string& part) {
    GgufOptions options;
    options.lie = change;
    Refuse(options, part);
  };
  lie([](ModelConfig& c) { c.hidden_size = 512; }, "token_embd.weight");
  lie([](ModelConfig& c) { c.intermediate_size = 512; }, "ffn_");
  lie([](ModelConfig& c) { c.num_layers = 3; }, "blk.2.");
  lie([](ModelConfig& c) { c.num_layers = 1; }, "blk.1.");  // A layer would be dropped in silence
  lie([](ModelConfig& c) { c.num_kv_heads = 4; }, "attn_k.weight");
  lie([](ModelConfig& c) { c.head_dim = 32; }, "attn_");
  lie([](ModelConfig& c) { c.num_kv_heads = 3; }, "num_kv_heads");
  lie([](ModelConfig& c) { c.num_kv_heads = 0; }, "num_kv_heads");
  lie([](ModelConfig& c) { c.norm_eps = std::numeric_limits<float>::quiet_NaN(); }, "norm_eps");
}

TEST_F(RefusedGgufTest, TensorsWithoutAPlace) {
  GgufOptions options;
  options.add = [](GgufWriter& writer) {
    writer.AddTensor("blk.0.attn_q.bias", GgmlType::kF32, {256}, Constant(0.5f, 256));
  };
  Refuse(options, "blk.0.attn_q.bias");
}

TEST_F(RefusedGgufTest, ScalesThatAreNone) {
  for (const float scale : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
    GgufOptions options;
    options.leave_out = {"blk.0.attn_q.scale"};
    options.add = [&](GgufWriter& writer) {
      writer.AddTensor("blk.0.attn_q.scale", GgmlType::kF32, {1}, Constant(scale, 1));
    };
    Refuse(options, "blk.0.attn_q.scale");
    options.add = [&](GgufWriter& writer) {
      writer.AddTensor("blk.0.attn_q.scale", GgmlType::kF32, {2}, Constant(1, 2));
    };
    Refuse(options, "blk.0.attn_q.scale");
  }
}

TEST_F(RefusedGgufTest, NumbersThatAreNone) {
  for (const char* name : {"model.embed_tokens.weight", "model.layers.1.input_layernorm.weight",
                           "model.norm.weight"}) {
    const TinyModel before = model_;
    model_.floats.at(name)[3] = std::numeric_limits<float>::quiet_NaN();
    Refuse({}, GgufName(name));
    model_ = before;
  }
}

TEST_F(RefusedGgufTest, WordsItDoesNotKnow) {
  GgufOptions options;
  options.activation = "int4_token";
  Refuse(options, "int4_token");
  options.activation = "int8_token";
  options.add = [](GgufWriter& writer) { writer.AddString("bitnet.rope.scaling.type", "yarn"); };
  Refuse(options, "rope.scaling.type");
  GgufWriter("gpt2").Write(path_);
  ExpectRefused(path_, "gpt2");
}

// Goal: a file cut short anywhere is refused, never read beyond its end.
TEST_F(RefusedGgufTest, FilesCutShort) {
  WriteGguf(model_, ArchName::kBitnet, path_);
  const auto size = std::filesystem::file_size(path_);
  for (const double part : {0.0, 0.00001, 0.001, 0.01, 0.3, 0.7, 0.999}) {
    WriteGguf(model_, ArchName::kBitnet, path_);
    std::filesystem::resize_file(path_, static_cast<uintmax_t>(part * static_cast<double>(size)));
    ExpectRefused(path_, "model.gguf");
  }
  ExpectRefused(folder_ / "nowhere.gguf", "nowhere.gguf");
}

class RefusedFolderTest : public ::testing::Test {
 protected:
  void Refuse(const HfOptions& options, const std::string& part) {
    const std::string folder = folder_ / StrCat("hf", ++folders_);
    WriteHfFolder(model_, folder, options);
    ExpectRefused(folder, part);
  }
  void RefuseConfig(const std::string& key, const nlohmann::json& value, const std::string& part) {
    HfOptions options;
    options.change_config = [&](nlohmann::json& config) {
      config[nlohmann::json::json_pointer(key)] = value;
    };
    Refuse(options, part);
  }

  TempFolder folder_;
  int folders_ = 0;
  TinyModel model_ = MakeTinyModel(TinyConfig(ArchName::kBitnet), 42);
};

TEST_F(RefusedFolderTest, TheUnchangedFolderIsTaken) {
  WriteHfFolder(model_, folder_ / "right");
  EXPECT_NO_THROW(engine::LoadModel(folder_ / "right"));
}

TEST_F(RefusedFolderTest, ConfigsThatMeanAnotherModel) {
  RefuseConfig("/model_type", "gpt2", "gpt2");
  RefuseConfig("/quantization_config/linear_class", "linear", "linear_class");
  RefuseConfig("/quantization_config/quant_method", "aqlm", "aqlm");
  RefuseConfig("/quantization_config/quantization_mode", "sometimes", "sometimes");
  // Latents are floats, and these are packed.
  RefuseConfig("/quantization_config/quantization_mode", "online", "q_proj.weight");
  RefuseConfig("/quantization_config/use_rms_norm", true, "use_rms_norm");
  RefuseConfig("/hidden_act", "gelu", "gelu");
  RefuseConfig("/attention_bias", true, "attention_bias");
  RefuseConfig("/rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}, "yarn");
}

TEST_F(RefusedFolderTest, ConfigsThatTheTensorsContradict) {
  RefuseConfig("/hidden_size", 512, "model.embed_tokens.weight");
  RefuseConfig("/vocab_size", 41, "model.embed_tokens.weight");
  RefuseConfig("/intermediate_size", 512, "mlp.");
  RefuseConfig("/num_hidden_layers", 3, "model.layers.2.");
  RefuseConfig("/num_hidden_layers", 1, "model.layers.1.");
  RefuseConfig("/tie_word_embeddings", false, "lm_head.weight");
}

TEST_F(RefusedFolderTest, ConfigsOfAnotherType) {
  RefuseConfig("/hidden_size", 256.5, "hidden_size");
  RefuseConfig("/hidden_size", "256", "hidden_size");
  RefuseConfig("/num_hidden_layers", -1, "num_layers");
  RefuseConfig("/tie_word_embeddings", 1, "tie_word_embeddings");
  HfOptions options;
  options.change_config = [](nlohmann::json& config) { config.erase("hidden_size"); };
  Refuse(options, "hidden_size");
  options.change_config = [](nlohmann::json& config) { config = nlohmann::json::array(); };
  Refuse(options, "config.json");
}

TEST_F(RefusedFolderTest, TensorsMissingOrWithoutAPlace) {
  HfOptions options;
  options.leave_out = {"model.layers.1.mlp.up_proj.weight"};
  Refuse(options, "model.layers.1.mlp.up_proj.weight");
  options = {};
  options.extra_bias = true;
  Refuse(options, "o_proj.bias");
}

TEST_F(RefusedFolderTest, FoldersWithoutAModel) {
  MakeFolders(folder_ / "empty");
  ExpectRefused(folder_ / "empty", "config.json");
  WriteHfFolder(model_, folder_ / "no-tensors");
  std::filesystem::remove((folder_ / "no-tensors") + "/model.safetensors");
  ExpectRefused(folder_ / "no-tensors", "no-tensors");
  WriteHfFolder(model_, folder_ / "bad-json");
  std::ofstream((folder_ / "bad-json") + "/config.json") << "{";
  ExpectRefused(folder_ / "bad-json", "config.json");
}

}  // namespace
}  // namespace tern::testing
