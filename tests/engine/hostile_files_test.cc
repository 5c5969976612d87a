// Model files changed byte by byte: keys taken out or made to say something else, blocks of one
// matrix with different scales, and random damage. The readers give a model that runs or an error
// of the input (exit code 3), never another exception, a crash or a read beyond the file.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::ModelWeights;
using formats::GgmlType;
using formats::GgufWriter;

void ExpectRefused(const std::string& path, const std::string& part) {
  try {
    engine::LoadModel(path);
    ADD_FAILURE() << "taken; want an error that says " << part;
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  }
}

class HostileGgufTest : public ::testing::Test {
 protected:
  std::string Bytes(const GgufOptions& options = {}) {
    WriteGguf(model_, ArchName::kBitnet, path_, options);
    return ReadFile(path_);
  }
  // Refuses the file with `from`, which is there once, replaced by as many other bytes.
  void Refuse(std::string bytes, const std::string& from, const std::string& to,
              const std::string& part) {
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    ASSERT_EQ(bytes.find(from, at + 1), std::string::npos) << from;
    ASSERT_EQ(from.size(), to.size());
    WriteFileAtomically(path_, bytes.replace(at, from.size(), to));
    SCOPED_TRACE(from);
    ExpectRefused(path_, part);
  }
  void RefuseWith(const std::function<void(GgufWriter&)>& add, const std::string& part) {
    GgufOptions options;
    options.add = add;
    Bytes(options);
    ExpectRefused(path_, part);
  }

  TempFolder folder_;
  std::string path_ = folder_ / "model.gguf";
  TinyModel model_ = MakeTinyModel(TinyConfig(ArchName::kBitnet), 71);
};

TEST_F(HostileGgufTest, KeysThatMustBeThere) {
  const std::string bytes = Bytes();
  for (const char* name : {"context_length", "embedding_length", "feed_forward_length",
                           "block_count", "attention.layer_norm_rms_epsilon"}) {
    const std::string key = std::string("bitnet.") + name;
    std::string other = key;
    other.back() = '?';
    Refuse(bytes, key, other, "the key " + key + " is missing");
  }
  Refuse(bytes, "general.architecture", "general.architectur?", "general.architecture is missing");
}

TEST_F(HostileGgufTest, KeysThatTheTensorsContradict) {
  const auto u32 = [](const char* key, uint32_t value) {
    return [=](GgufWriter& writer) { writer.AddU32(key, value); };
  };
  RefuseWith(u32("bitnet.vocab_size", 41), "bitnet.vocab_size is 41; want 40");
  RefuseWith(u32("bitnet.rope.dimension_count", 32), "bitnet.rope.dimension_count is 32; want 64");
  RefuseWith([](GgufWriter& writer) { writer.AddString("bitnet.vocab_size", "40"); },
             "bitnet.vocab_size");
}

TEST_F(HostileGgufTest, RopeFactorsAndScalesOfDenseTensors) {
  RefuseWith(
      [](GgufWriter& writer) {
        writer.AddTensor("rope_freqs.weight", GgmlType::kF32, {32},
                         [](int64_t, uint8_t* out) { std::memset(out, 0, 128); });
      },
      "rope_freqs.weight");
  RefuseWith(
      [](GgufWriter& writer) {
        writer.AddTensor("token_embd.scale", GgmlType::kF32, {1},
                         [](int64_t, uint8_t* out) { std::memset(out, 0, 4); });
      },
      "token_embd.scale");
}

// Type 16 is IQ2_XXS. The number stands after the name, the count of axes and two axes of 8 bytes.
TEST_F(HostileGgufTest, TypesItDoesNotReadAreNamed) {
  std::string bytes = Bytes();
  const std::string name = "blk.0.attn_q.weight";
  const size_t at = bytes.find(name) + name.size() + 4 + 16;
  ASSERT_EQ(bytes[at], 35);  // TQ2_0
  bytes[at] = 16;
  WriteFileAtomically(path_, bytes);
  ExpectRefused(path_, "blk.0.attn_q.weight has the type 16");
}

// d of one block, at byte 64 of the 66, is 2.0 instead of 1.0: in the first row, or in the last.
TEST_F(HostileGgufTest, BlocksOfOneMatrixHaveOneScale) {
  const std::string bytes = Bytes();
  for (const int64_t row : {0, 255}) {
    const std::vector<int8_t>& codes =
        model_.ternary.at("model.layers.1.mlp.down_proj.weight").codes;
    std::string block(66, '\0');
    formats::EncodeTernaryRow(GgmlType::kTq2_0, codes.data() + row * 256, 256,
                              reinterpret_cast<uint8_t*>(block.data()));
    std::string other = block;
    other[65] = 0x40;
    Refuse(bytes, block, other, "blk.1.ffn_down.weight");
    other = block;
    other[0] = '\xff';
    Refuse(bytes, block, other, "blk.1.ffn_down.weight: block 0 of a ternary row holds a code");
    other = block;
    other[64] = '\x01', other[65] = '\x7c';  // A NaN
    Refuse(bytes, block, other, "blk.1.ffn_down.weight");
  }
}

TEST_F(HostileGgufTest, TheOtherSpellingOfAScaleIsRead) {
  GgufOptions options;
  options.leave_out = {"blk.1.attn_q.scale"};
  const float beta = model_.ternary.at("model.layers.1.self_attn.q_proj.weight").beta;
  options.add = [&](GgufWriter& writer) {
    writer.AddTensor("blk.1.attn_q.weight.scale", GgmlType::kF32, {1},
                     [&](int64_t, uint8_t* out) { std::memcpy(out, &beta, 4); });
  };
  Bytes(options);
  const ModelWeights weights = engine::LoadModel(path_);
  EXPECT_EQ(std::get<engine::TernaryMatrix>(weights.layers[1].q).scale, beta);
}

TEST_F(HostileGgufTest, NoScalingIsNoReasonToRefuse) {
  GgufOptions options;
  options.add = [](GgufWriter& writer) {
    writer.AddString("bitnet.rope.scaling.type", "none");
    writer.AddU32("bitnet.rope.dimension_count", 64);
    writer.AddU32("bitnet.vocab_size", 40);
  };
  Bytes(options);
  EXPECT_NO_THROW(engine::LoadModel(path_));
}

TEST(GgufTokenizerTest, AFileMayWantNoBos) {
  const TempFolder folder;
  const text::PieceTable table = ByteVocabulary();
  ModelConfig config = TinyConfig(ArchName::kLlama);
  config.vocab_size = static_cast<int64_t>(table.pieces.size());
  const TinyModel model = MakeTinyModel(config, 72);
  for (const bool add_bos : {true, false}) {
    GgufOptions options;
    options.tokenizer = &table;
    options.add = [=](GgufWriter& writer) {
      writer.AddBool("tokenizer.ggml.add_bos_token", add_bos);
    };
    WriteGguf(model, ArchName::kLlama, folder / "model.gguf", options);
    EXPECT_EQ(engine::LoadModel(folder / "model.gguf").tokenizer->bos_id(), add_bos ? 1 : -1);
  }
}

// Rounded through a type once, the values are exact in it: then the type changes no bit.
// Goal: a tokenizer that is damaged is refused by the key that shows it, before any text is
// encoded.
TEST(GgufTokenizerTest, DamagedTokenizersAreRefused) {
  const TempFolder folder;
  const std::string path = folder / "model.gguf";
  ModelConfig config = TinyConfig(ArchName::kLlama);
  const text::PieceTable good = ByteVocabulary();
  config.vocab_size = static_cast<int64_t>(good.pieces.size());
  const TinyModel model = MakeTinyModel(config, 76);
  const auto refused = [&](const std::function<void(formats::GgufWriter&)>& add,
                           const std::string& part) {
    GgufOptions options;
    options.add = add;
    WriteGguf(model, ArchName::kLlama, path, options);
    ExpectRefused(path, part);
  };
  const auto table = [&](formats::GgufWriter& w, size_t tokens, size_t scores, int32_t type) {
    w.AddString("tokenizer.ggml.model", "llama");
    w.AddStrings("tokenizer.ggml.tokens", std::vector<std::string>(tokens, "x"));
    w.AddF32s("tokenizer.ggml.scores", std::vector<float>(scores));
    w.AddI32s("tokenizer.ggml.token_type", std::vector<int32_t>(tokens, type));
  };
  refused([](auto& w) { w.AddString("tokenizer.ggml.model", "llama"); }, "tokenizer.ggml.tokens");
  refused([](auto& w) { w.AddU32("tokenizer.ggml.model", 3); }, "tokenizer.ggml.model");
  refused([&](auto& w) { table(w, 5, 4, 1); }, "4 scores");
  refused([&](auto& w) { table(w, 5, 5, 7); }, "token_type has 7 at 0");
  refused([&](auto& w) { table(w, 5, 5, -1); }, "token_type");
  refused([&](auto& w) { table(w, 1000, 1000, 1); }, "1000 pieces");
  refused([&](auto& w) { table(w, 5, 5, 1); }, "twice");
  refused(
      [](auto& w) {
        w.AddString("tokenizer.ggml.model", "llama");
        w.AddStrings("tokenizer.ggml.tokens", {"x"});
        w.AddF32s("tokenizer.ggml.scores", {std::nanf("")});
        w.AddI32s("tokenizer.ggml.token_type", {1});
      },
      "the score of piece 0 is nan");
  refused(
      [](auto& w) {
        w.AddString("tokenizer.ggml.model", "gpt2");
        w.AddStrings("tokenizer.ggml.tokens", {"a", "b"});
      },
      "tokenizer.ggml.token_type");
  for (const char* key : {"bos", "eos", "unknown"}) {
    const std::string name = StrCat("tokenizer.ggml.", key, "_token_id");
    refused(
        [&](auto& w) {
          AddGgufTokenizer(good, &w);
          w.AddU32(name, 4'000'000'000u);
        },
        name);
  }
}

TEST(TableTypesTest, Bf16AndQ8TablesAreTheRoundedOnes) {
  const TempFolder folder;
  for (const GgmlType type : {GgmlType::kBf16, GgmlType::kQ8_0}) {
    TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 73);
    GgufOptions options;
    options.table = options.linear = type;
    WriteGguf(model, ArchName::kLlama, folder / "typed.gguf", options);
    for (const ParameterSpec& spec : ParameterTable(model.config)) {
      if (spec.role == ParameterRole::kNorm) continue;
      const int64_t k = spec.shape[1];
      std::vector<uint8_t> row(static_cast<size_t>(formats::RowBytes(type, k)));
      for (int64_t n = 0; n < spec.shape[0]; ++n) {
        float* values = model.floats.at(spec.name).data() + n * k;
        formats::EncodeRow(type, values, k, row.data());
        formats::DecodeRow(type, row.data(), k, values);
      }
    }
    options.table = options.linear = GgmlType::kF32;
    WriteGguf(model, ArchName::kLlama, folder / "floats.gguf", options);
    const ModelWeights typed = engine::LoadModel(folder / "typed.gguf"),
                       floats = engine::LoadModel(folder / "floats.gguf");
    for (const ParameterSpec& spec : ParameterTable(model.config)) {
      if (spec.role != ParameterRole::kLinear) continue;
      EXPECT_EQ(engine::ValuesOf(engine::LinearOf(typed, spec.name)),
                engine::ValuesOf(engine::LinearOf(floats, spec.name)))
          << spec.name << " as " << formats::InfoOf(type).name;
    }
    EXPECT_EQ(engine::ValuesOf(typed.embedding), engine::ValuesOf(floats.embedding));
    EXPECT_EQ(engine::ValuesOf(*typed.head), engine::ValuesOf(*floats.head));
  }
}

// The scales of a folder, each damaged in another way.
TEST(HostileFolderTest, ScalesThatAreNone) {
  const TempFolder folder;
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kBitnet), 74);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  HfOptions options;
  options.linear_class = "autobitlinear";
  int count = 0;
  for (const float beta : {0.0f, -1.0f, INFINITY, NAN}) {
    model.ternary.at(name).beta = beta;
    const std::string path = folder / StrCat("hf", ++count);
    WriteHfFolder(model, path, options);
    ExpectRefused(path, name + "_scale");
  }
}

TEST(HostileFolderTest, ACodeThatIsNoWeightIsNamed) {
  const TempFolder folder;
  const std::string path = folder / "hf", name = "model.layers.0.mlp.up_proj.weight";
  WriteHfFolder(MakeTinyModel(TinyConfig(ArchName::kBitnet), 74), path, {});
  const formats::SafetensorsReader reader(path);
  const std::byte* codes = reader.tensors().at(name).bytes.data();
  const std::string file = path + "/model.safetensors";
  std::string bytes = ReadFile(file);
  const auto* first = reinterpret_cast<const char*>(codes);
  bytes[bytes.find(std::string(first, 64))] = '\xff';
  WriteFileAtomically(file, bytes);
  ExpectRefused(path, name + ": byte 0 of a packed ternary matrix holds the code 3");
}

TEST(HostileFolderTest, RopeParametersAreReadAndUnknownScalingsRefused) {
  const TempFolder folder;
  const TinyModel model = MakeTinyModel(TinyConfig(ArchName::kQwen3), 75);
  HfOptions options;
  options.change_config = [](nlohmann::json& config) {
    config.erase("rope_theta");
    config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 12345.0}};
  };
  WriteHfFolder(model, folder / "new", options);
  EXPECT_EQ(engine::LoadModel(folder / "new").config.rope_theta, 12345.0f);
  options.change_config = [](nlohmann::json& config) {
    config["rope_parameters"] = {{"rope_type", "yarn"}, {"rope_theta", 12345.0}};
  };
  WriteHfFolder(model, folder / "scaled", options);
  ExpectRefused(folder / "scaled", "yarn");
  options.change_config = [](nlohmann::json& config) {
    config["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};  // As older writers said it
  };
  WriteHfFolder(model, folder / "older", options);
  ExpectRefused(folder / "older", "dynamic");
  options.change_config = [](nlohmann::json& config) { config.erase("rope_theta"); };
  WriteHfFolder(model, folder / "none", options);
  ExpectRefused(folder / "none", "rope_theta");
}

// Loads what is at `path`; when it is taken, it also runs.
void LoadAndRun(const std::string& path, int* taken) {
  try {
    const engine::Engine engine(engine::LoadModel(path), 1);
    engine::Session(engine, 2).Append(std::vector<int32_t>{1, 0});
    ++*taken;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInput) << error.what();
  }
}

// One to four bytes of the file are replaced: half of the time in its head, where the keys and the
// tensors' places are.
TEST(EngineFuzzTest, DamagedGgufIsRefusedOrRuns) {
  const TempFolder folder;
  const std::string path = folder / "model.gguf";
  const text::PieceTable table = ByteVocabulary();
  ModelConfig config = TinyConfig(ArchName::kLlama);
  config.num_layers = 1;
  config.vocab_size = static_cast<int64_t>(table.pieces.size());
  const TinyModel model = MakeTinyModel(config, 76);
  GgufOptions options;
  options.tokenizer = &table;
  options.table = GgmlType::kQ8_0;
  WriteGguf(model, ArchName::kLlama, path, options);
  const std::string bytes = ReadFile(path);
  const size_t head = bytes.find("tokenizer.ggml.model");
  ASSERT_NE(head, std::string::npos);
  RandomStream random(77, "damage");
  int taken = 0;
  for (int round = 0; round < 300; ++round) {
    std::string damaged = bytes;
    for (uint64_t i = 0; i <= random.NextU64() % 4; ++i) {
      const size_t end = round % 2 == 0 ? head : bytes.size();
      damaged[random.NextU64() % end] = static_cast<char>(random.NextU64());
    }
    WriteFileAtomically(path, damaged);
    LoadAndRun(path, &taken);
  }
  EXPECT_GT(taken, 10);  // Damage of weights is no damage of the format
  EXPECT_LT(taken, 290);
}

TEST(EngineFuzzTest, DamagedConfigIsRefusedOrRuns) {
  const TempFolder folder;
  ModelConfig config = TinyConfig(ArchName::kBitnet);
  config.num_layers = 1;
  WriteHfFolder(MakeTinyModel(config, 78), folder / "hf");
  const std::string path = (folder / "hf") + "/config.json", text = ReadFile(path);
  RandomStream random(79, "damage");
  int taken = 0;
  constexpr std::string_view kLetters = "0123456789-+.eE\"{}[],: nulltruefalse\\";
  for (int round = 0; round < 500; ++round) {
    std::string damaged = text;
    for (uint64_t i = 0; i <= random.NextU64() % 3; ++i)
      damaged[random.NextU64() % text.size()] = kLetters[random.NextU64() % kLetters.size()];
    WriteFileAtomically(path, damaged);
    LoadAndRun(folder / "hf", &taken);
  }
  EXPECT_GT(taken, 10);
  EXPECT_LT(taken, 490);
}

}  // namespace
}  // namespace tern::testing
