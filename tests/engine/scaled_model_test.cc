// Hugging Face folders of 16-bit floats, compressed-tensors and blockwise FP8: every weight equals
// its definition, bit for bit; matrices stay in the files; what is not read is refused by name.
// Against the compressed-tensors package: tests/peers/make_ct_models.py.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <span>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/linear.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "kernels/fp8/fp8.h"
#include "tests/engine/reference.h"
#include "tests/engine/scaled_folder.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::BlockMatrix;
using engine::Int4Matrix;
using engine::ScaledMatrix;
using engine::ScaleType;
using nlohmann::json;

const ScaledKind kKinds[] = {
    {"int4_group", "int4", "group", 1, 4},
    {"int4_group_f16", "int4", "group", 1, 4, false, "F16"},
    {"int4_group_asymmetric", "int4", "group", 1, 4, true, "BF16"},
    {"int4_channel", "int4", "channel"},
    {"int4_channel_asymmetric", "int4", "channel", 1, 0, true},
    {"int8_channel", "int8", "channel", 1, 0, false, "BF16"},
    {"int8_tensor", "int8", "tensor", 0, 0},
    {"fp8_tensor", "fp8", "tensor", 0, 0},
    {"fp8_channel", "fp8", "channel"},
    {"fp8_block", "fp8", "block", 16, 32},
    {"fp8_blockwise", "fp8", "block", 16, 32, false, "F32", "fp8"},
    {"int4_channel_f16", "int4", "channel", 1, 0, false, "F16"},
    {"int4_channel_asymmetric_bf16", "int4", "channel", 1, 0, true, "BF16"},
    {"fp8_block_beyond", "fp8", "block", int64_t{1} << 32, int64_t{1} << 40},
};

void ExpectRefused(const std::string& path, const std::string& part) {
  try {
    engine::LoadModel(path);
    ADD_FAILURE() << "taken, though " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInput) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

class ScaledKindTest : public ::testing::TestWithParam<ScaledKind> {};

// One rounding, of the product of two fp32 numbers that are exact in fp64: equality is the test.
TEST_P(ScaledKindTest, EveryWeightIsItsDefinition) {
  const TempFolder temp;
  const ScaledFolder scaled(GetParam());
  scaled.folder.Write(temp / "hf");
  const engine::ModelWeights weights = engine::LoadModel(temp / "hf");
  for (const ParameterSpec& spec : ParameterTable(scaled.model.config)) {
    if (spec.role != ParameterRole::kLinear) continue;
    const engine::LinearMatrix& found = engine::LinearOf(weights, spec.name);
    // Rows here are shorter than a group of 128.
    const bool repacked =
        GetParam().code == "int4" && GetParam().strategy == "channel" && GetParam().scales != "F32";
    ASSERT_EQ(std::holds_alternative<Int4Matrix>(found), repacked) << spec.name;
    ASSERT_EQ(std::holds_alternative<ScaledMatrix>(found), !repacked) << spec.name;
    EXPECT_EQ(engine::ValuesOf(found), scaled.model.floats.at(spec.name)) << spec.name;
  }
}

// The bound is the one of forward_test.cc, which has more and longer sums. The files have no name
// any more when they are used: the weights come from the mapping.
TEST_P(ScaledKindTest, RunsAsItsWeights) {
  const TempFolder temp;
  const ScaledFolder scaled(GetParam());
  scaled.folder.Write(temp / "hf", /*max_shard_bytes=*/20000);
  // config.json, the index and two shards at least.
  ASSERT_GE(std::distance(std::filesystem::directory_iterator(temp / "hf"), {}), 4);
  const engine::Engine engine(engine::LoadModel(temp / "hf"), 1);
  std::filesystem::remove_all(temp / "hf");
  const std::vector<int32_t> tokens = RandomTokens(6, scaled.model.config.vocab_size, 103);
  const ReferenceRun want = Reference(scaled.model, engine::ActivationRule::kNone).Run(tokens);
  const auto found = engine::Session(engine).Append(tokens, engine::LogitsOf::kAll);
  ASSERT_EQ(found.size(), want.logits.size());
  for (size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found[i], want.logits[i], 7.4e-6 * want.magnitude[i]) << i;
}

INSTANTIATE_TEST_SUITE_P(Kinds, ScaledKindTest, ::testing::ValuesIn(kKinds),
                         [](const auto& info) { return info.param.name; });

// Goal: the repacked matrix has the file's weights, whatever its groups; what the product cannot
// take stays as it is.
TEST(RepackInt4Test, KeepsEveryWeight) {
  RandomStream random(104, "int4");
  const auto bytes = [&](int64_t count) {
    std::vector<uint8_t> out(static_cast<size_t>(count));
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(random.NextU64());
    return out;
  };
  struct Case {
    int64_t n, k, block_k;
    bool repacked;
  };
  for (const Case& c : {Case{3, 8, 8, true}, Case{9, 100, 100, true}, Case{9, 384, 128, true},
                        Case{17, 512, 256, true}, Case{5, 384, 384, true}, Case{9, 128, 64, false},
                        Case{9, 192, 192, true}, Case{9, 192, 96, false}}) {
    for (const ScaleType type : {ScaleType::kF32, ScaleType::kF16, ScaleType::kBf16}) {
      for (const bool asymmetric : {false, true}) {
        ScaledMatrix matrix;
        matrix.code = engine::ScaledCode::kInt4;
        matrix.scale_type = type;
        matrix.n = c.n;
        matrix.k = c.k;
        matrix.block_k = c.block_k;
        const std::vector<uint8_t> codes = bytes(c.n * matrix.CodeRowBytes());
        std::vector<uint8_t> scales = bytes(matrix.ScaleBytes());
        for (size_t i = 1; i < scales.size(); i += 2) scales[i] &= 0x3B;  // Finite
        const std::vector<uint8_t> zeros = bytes(matrix.ZeroPointBytes());
        matrix.codes = std::as_bytes(std::span(codes));
        matrix.scales = std::as_bytes(std::span(scales));
        if (asymmetric) matrix.zero_points = std::as_bytes(std::span(zeros));
        const auto found = engine::RepackInt4(matrix);
        ASSERT_EQ(found.has_value(), c.repacked && type != ScaleType::kF32) << c.k;
        if (!found) continue;
        std::vector<float> want(static_cast<size_t>(c.k)), values(want.size());
        for (int64_t row = 0; row < c.n; ++row) {
          matrix.Decode(row, want.data());
          found->Decode(row, values.data());
          ASSERT_EQ(values, want) << c.k << " row " << row;
        }
      }
    }
  }
}

TEST(Fp8Test, EveryCodeIsItsDefinition) {
  for (int code = 0; code < 256; ++code) {
    const float found = kernels::E4M3ToFp32Ref(static_cast<uint8_t>(code));
    if (code % 128 == 127) {
      EXPECT_TRUE(std::isnan(found)) << code;
    } else {
      EXPECT_EQ(found, static_cast<float>(Fp8Value(code))) << code;
    }
  }
  EXPECT_EQ(kernels::E4M3ToFp32Ref(0x7E), 448.0f);
  EXPECT_EQ(kernels::E4M3ToFp32Ref(0x38), 1.0f);
  EXPECT_EQ(kernels::E4M3ToFp32Ref(0x81), -0x1p-9f);
}

// Goal: 16-bit matrices are neither expanded nor copied, and give the values of their bits.
TEST(HalfFolderTest, MatricesStayInTheFile) {
  for (const bool f16 : {true, false}) {
    const TempFolder temp;
    TinyModel model = MakeTinyModel(ScaledConfig(), 104);
    RawFolder folder;
    folder.config = HfConfig(model.config, "");
    for (const ParameterSpec& spec : ParameterTable(model.config)) {
      std::vector<uint16_t> bits;
      for (float& value : model.floats.at(spec.name)) {
        bits.push_back(f16 ? formats::Fp32ToFp16(value) : formats::Fp32ToBf16(value));
        value = f16 ? formats::Fp16ToFp32(bits.back()) : formats::Bf16ToFp32(bits.back());
      }
      folder.tensors[spec.name] = MakeRaw(f16 ? "F16" : "BF16", spec.shape, bits);
    }
    folder.Write(temp / "hf");
    const engine::ModelWeights weights = engine::LoadModel(temp / "hf");
    std::filesystem::remove_all(temp / "hf");
    EXPECT_EQ(std::get<BlockMatrix>(weights.embedding).bytes.size(), 2u * 40 * 60);
    for (const ParameterSpec& spec : ParameterTable(model.config)) {
      if (spec.role != ParameterRole::kLinear) continue;
      const engine::LinearMatrix& found = engine::LinearOf(weights, spec.name);
      ASSERT_NE(std::get_if<BlockMatrix>(&found), nullptr) << spec.name;
      EXPECT_EQ(engine::ValuesOf(found), model.floats.at(spec.name)) << spec.name;
    }
    EXPECT_EQ(engine::ValuesOf(*weights.head), model.floats.at("lm_head.weight"));
    std::vector<uint8_t>& bytes = folder.tensors.at("model.embed_tokens.weight").bytes;
    bytes[6] = 0xFF;
    bytes[7] = 0x7F;  // NaN in both
    folder.Write(temp / "nan");
    ExpectRefused(temp / "nan", "model.embed_tokens.weight");
  }
}

class RefusedScaledTest : public ::testing::Test {
 protected:
  void Refuse(const std::function<void(RawFolder&)>& spoil, const std::string& part,
              size_t kind = 0) {
    RawFolder folder = ScaledFolder(kKinds[kind]).folder;
    spoil(folder);
    const std::string path = temp_ / StrCat("hf", ++folders_);
    folder.Write(path);
    ExpectRefused(path, part);
  }
  void RefuseConfig(const std::string& pointer, const json& value, const std::string& part,
                    size_t kind = 0) {
    Refuse(
        [&](RawFolder& folder) {
          folder.config["quantization_config"][json::json_pointer(pointer)] = value;
        },
        part, kind);
  }

  TempFolder temp_;
  int folders_ = 0;
  const std::string q_ = "model.layers.0.self_attn.q_proj.";
};

TEST_F(RefusedScaledTest, TensorsThatAreNoneOfTheFormat) {
  Refuse(
      [&](auto& f) {
        f.tensors.at(q_ + "weight_shape") = MakeRaw<int64_t>("I64", {2}, {24, 61});
      },
      "weight_shape");
  Refuse([&](auto& f) { f.tensors.at(q_ + "weight_packed").shape = {8, 24}; }, "weight_packed");
  Refuse([&](auto& f) { f.tensors.at(q_ + "weight_packed").dtype = "U32"; }, "weight_packed");
  Refuse([&](auto& f) { f.tensors.erase(q_ + "weight_shape"); }, "weight_shape");
  Refuse([&](auto& f) { f.tensors.erase(q_ + "weight_scale"); }, "weight_scale");
  Refuse([&](auto& f) { f.tensors.erase(q_ + "weight_packed"); }, "weight");
  Refuse([&](auto& f) { f.tensors.at(q_ + "weight_scale").shape = {15, 24}; }, "scales [15, 24]");
  Refuse([&](auto& f) { f.tensors.at(q_ + "weight_scale").dtype = "I32"; }, "weight_scale is I32");
  Refuse([&](auto& f) { f.tensors[q_ + "weight_g_idx"] = MakeRaw<int32_t>("I32", {1}, {0}); },
         "weight_g_idx");
  Refuse([&](auto& f) { f.tensors.erase(q_ + "weight_zero_point"); }, "zero points", 2);
  Refuse(
      [&](auto& f) {
        f.tensors.at(q_ + "weight_zero_point").shape = {15, 3};
      },
      "weight_zero_point", 2);
  Refuse([&](auto& f) { f.tensors[q_ + "weight_zero_point"] = MakeRaw<int32_t>("I32", {1}, {0}); },
         "zero points");
  // A number without a shape, where the last axis is looked at.
  Refuse(
      [&](auto& f) {
        f.config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] = 3;
        f.tensors.at(q_ + "weight_packed") = MakeRaw<int32_t>("I32", {}, {0});
      },
      "weight");
  Refuse([&](auto& f) { f.config.erase("quantization_config"); }, "weight");
  Refuse([&](auto& f) { f.config.erase("quantization_config"); }, "is I8", 5);
}

TEST_F(RefusedScaledTest, NumbersThatAreNone) {
  for (const float bad : {NAN, INFINITY, -3e38f}) {
    Refuse(
        [&](auto& f) { std::memcpy(f.tensors.at(q_ + "weight_scale").bytes.data() + 8, &bad, 4); },
        "scale 2");
  }
  for (const uint8_t bad : {0x7F, 0xFF}) {
    Refuse([&](auto& f) { f.tensors.at(q_ + "weight").bytes[70] = bad; }, "row 1, holds", 8);
  }
}

TEST_F(RefusedScaledTest, ConfigsThatAskForAnotherFormat) {
  RefuseConfig("/format", "nvfp4-pack-quantized", "nvfp4");  // Of floats; these are integers
  RefuseConfig("/quant_method", "aqlm", "aqlm");
  RefuseConfig("/quantization_status", "calibration", "quantization_status");
  RefuseConfig("/kv_cache_scheme", {{"num_bits", 8}}, "kv_cache_scheme");
  RefuseConfig("/transform_config", {{"config_groups", {{"u", 1}}}}, "transform_config");
  RefuseConfig("/config_groups", json::object(), "config_groups");
  RefuseConfig("/config_groups", 3, "config_groups");
  const std::string weights = "/config_groups/group_0/weights";
  RefuseConfig(weights, nullptr, "group_0");
  RefuseConfig(weights + "/num_bits", 9, "num_bits 9");
  RefuseConfig(weights + "/num_bits", 8, "no group of quantization_config");
  RefuseConfig(weights + "/num_bits", "4", "num_bits");
  RefuseConfig(weights + "/strategy", "tensor_group", "tensor_group");
  RefuseConfig(weights + "/strategy", "tensor", "strategy");
  RefuseConfig(weights + "/group_size", 0, "group_size");
  RefuseConfig(weights + "/group_size", 7, "scales");  // 15 scales a row are no groups of 7
  RefuseConfig(weights + "/actorder", "group", "actorder");
  RefuseConfig(weights + "/symmetric", false, "symmetric", 5);
  RefuseConfig(weights + "/block_structure", {0, 4}, "block_structure", 9);
  RefuseConfig(weights + "/block_structure", {16}, "block_structure", 9);
  RefuseConfig("/weight_block_size", nullptr, "weight_block_size", 10);
  RefuseConfig("/fmt", "e5m2", "e5m2", 10);
}

// A matrix of ones on the diagonal gives its inputs back, rounded.
std::vector<float> Rounded(const engine::InputRounding& rounding, const std::vector<float>& x,
                           int64_t k, engine::CodeActivations activations) {
  std::vector<int8_t> codes(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) codes[static_cast<size_t>(i * k + i)] = 1;
  const float one = 1.0f;
  engine::ScaledMatrix matrix;
  matrix.codes = std::as_bytes(std::span(codes));
  matrix.scales = std::as_bytes(std::span(&one, 1));
  matrix.input = rounding;
  matrix.n = matrix.block_n = matrix.k = matrix.block_k = k;
  const ParallelFor parallel(SerialFor);
  engine::LinearInput input(parallel, activations);
  input.Set(x.data(), std::ssize(x) / k, k);
  std::vector<float> y(x.size());
  Multiply(input, engine::LinearMatrix(matrix), engine::ActivationRule::kNone, y.data(), parallel);
  return y;
}

TEST(InputRoundingTest, IsDoneWhenTheFolderIsAsked) {
  using Code = engine::InputRounding::Code;
  using engine::CodeActivations;
  RandomStream random(6, "inputs");
  std::vector<float> x(3 * 48);
  for (float& value : x) value = 2.0f * random.NextNormal();
  std::fill(x.begin() + 48, x.begin() + 96, 0.0f);  // A token of zeros
  EXPECT_EQ(Rounded({Code::kInt8, 0, 0}, x, 48, CodeActivations::kInt16), x);
  EXPECT_EQ(Rounded({Code::kNone, 0, 0}, x, 48, CodeActivations::kFolder), x);
  for (const engine::InputRounding rounding :
       {engine::InputRounding{Code::kInt8, 0, 0}, engine::InputRounding{Code::kFp8E4m3, 0, 0},
        engine::InputRounding{Code::kFp8E4m3, 16, 0},
        engine::InputRounding{Code::kFp8E4m3, 0, 0.01f},
        engine::InputRounding{Code::kInt8, 0, 0.02f},
        engine::InputRounding{Code::kFp8E4m3, int64_t{1} << 50, 0}}) {
    const std::vector<float> y = Rounded(rounding, x, 48, CodeActivations::kFolder);
    const size_t group = rounding.group == 16 ? 16 : 48;
    for (size_t i = 0; i < x.size(); ++i) {
      double amax = 0;
      for (size_t j = i / group * group; j < (i / group + 1) * group; ++j)
        amax = std::max(amax, std::fabs(static_cast<double>(x[j])));
      const bool int8 = rounding.code == Code::kInt8;
      const double scale = rounding.scale > 0 ? rounding.scale : amax / (int8 ? 127.5 : 448);
      // Half a step: of int8 the scale (a whole one at the end, where 127.5 becomes 127), of FP8 a
      // sixteenth of the number or half of 2^-9; beyond the range the end of it.
      const double end = (!int8      ? 448
                          : x[i] < 0 ? 128
                                     : 127) *
                         scale,
                   size = std::fabs(static_cast<double>(x[i]));
      const double want = std::copysign(std::min(size, end), static_cast<double>(x[i]));
      const double step = int8 ? scale / 2 : std::max(size / 16, scale * 0x1p-10);
      EXPECT_NEAR(y[i], want, 1.001 * step) << i;
      if (int8 && scale > 0) {
        EXPECT_NEAR(std::remainder(y[i], scale), 0, 1e-5 * amax);
      }
    }
    EXPECT_NE(y, x);
  }
}

// Two groups of layers whose weights are alike: which one a layer is of is not known.
TEST(InputRoundingTest, IsRefusedWhereGroupsDifferInIt) {
  for (const bool differ : {false, true}) {
    TempFolder temp;
    ScaledFolder scaled(ScaledKind{"", "int8", "channel", 1, 0});
    nlohmann::json& groups = scaled.folder.config["quantization_config"]["config_groups"];
    groups["group_0"]["input_activations"] = {
        {"num_bits", 8}, {"type", "int"}, {"strategy", "token"}, {"dynamic", true}};
    groups["group_1"] = groups["group_0"];
    if (differ) groups["group_1"]["input_activations"] = nullptr;
    scaled.folder.Write(temp / "hf");
    engine::ModelWeights weights = engine::LoadModel(temp / "hf");
    const auto ask = [&] { engine::SetActivations(engine::CodeActivations::kFolder, &weights); };
    if (differ) {
      EXPECT_THROW(ask(), InputError);
    } else {
      EXPECT_NO_THROW(ask());
    }
  }
}

TEST(InputRoundingTest, IsReadAndRefused) {
  const auto load = [](const nlohmann::json& activations, const std::string& code) {
    TempFolder temp;
    ScaledFolder scaled(ScaledKind{"", code, "channel", 1, 0});
    nlohmann::json& group = scaled.folder.config["quantization_config"]["config_groups"]["group_0"];
    group["input_activations"] = activations;
    scaled.folder.Write(temp / "hf");
    engine::ModelWeights weights = engine::LoadModel(temp / "hf");
    engine::SetActivations(engine::CodeActivations::kFolder, &weights);
    return std::get<engine::ScaledMatrix>(weights.layers[0].up).input;
  };
  using Code = engine::InputRounding::Code;
  const nlohmann::json token = {{"num_bits", 8},
                                {"type", "int"},
                                {"symmetric", true},
                                {"strategy", "token"},
                                {"dynamic", true}};
  EXPECT_EQ(load(token, "int8"), (engine::InputRounding{Code::kInt8, 0, 0}));
  nlohmann::json group = token;
  group["strategy"] = "group";
  group["group_size"] = 16;
  group["type"] = "float";
  EXPECT_EQ(load(group, "fp8"), (engine::InputRounding{Code::kFp8E4m3, 16, 0}));
  group["group_size"] = int64_t{1} << 50;  // A group is a row at most
  EXPECT_EQ(load(group, "fp8").group, int64_t{1} << 50);
  EXPECT_THROW(load(nullptr, "int8"), InputError);  // Asks for nothing
  nlohmann::json fixed = token;
  fixed["strategy"] = "tensor";
  fixed["dynamic"] = false;
  EXPECT_THROW(load(fixed, "int8"), InputError);  // There is no input_scale
  for (const auto& [key, value] : std::vector<std::pair<const char*, nlohmann::json>>{
           {"num_bits", 4}, {"symmetric", false}, {"strategy", "channel"}, {"dynamic", "local"}}) {
    nlohmann::json other = token;
    other[key] = value;
    EXPECT_THROW(load(other, "int8"), InputError) << key;
  }
}

}  // namespace
}  // namespace tern::testing
