// GPTQ and AWQ folders, packed here bit by bit from their documented layouts: every weight equals
// its definition, inputs of a group need not be adjacent, and what is not read is refused by name.
// Against an unpacking in numpy: tests/peers/check_gptq.py.
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"
#include "formats/half.h"
#include "tests/engine/raw_folder.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

struct Kind {
  std::string name, method, version;  // version: checkpoint_format of GPTQ
  int bits = 4;
  bool scattered = false;  // Groups by g_idx that are not adjacent
};

const Kind kKinds[] = {
    {"v1_4", "gptq", "gptq", 4},    {"v1_3", "gptq", "gptq", 3},
    {"v1_8", "gptq", "gptq", 8},    {"v2_2", "gptq", "gptq_v2", 2},
    {"v2_4", "gptq", "gptq_v2", 4}, {"scattered", "gptq", "gptq", 4, true},
    {"awq", "awq", "", 4},
};
constexpr int64_t kGroup = 32;
constexpr const char* kUp = "model.layers.0.mlp.up_proj.";

ModelConfig Config() {
  ModelConfig c = TinyConfig(ArchName::kLlama, LinearKind::kDense);
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.num_heads = 2;
  c.num_kv_heads = 1;
  c.num_layers = 1;
  return c;
}

class PackedFolder {
 public:
  explicit PackedFolder(const Kind& kind)
      : model(MakeTinyModel(Config(), 21)), kind_(kind), random_(22, "codes") {
    folder.config = HfConfig(model.config, "");
    folder.config["quantization_config"] = {{"quant_method", kind.method},
                                            {"bits", kind.bits},
                                            {"group_size", kGroup},
                                            {"desc_act", kind.scattered}};
    if (!kind.version.empty())
      folder.config["quantization_config"]["checkpoint_format"] = kind.version;
    for (const ParameterSpec& spec : ParameterTable(model.config)) {
      if (spec.role == ParameterRole::kLinear) {
        AddLinear(spec);
      } else {
        folder.tensors[spec.name] = MakeRaw("F32", spec.shape, model.floats.at(spec.name));
      }
    }
  }

  TinyModel model;  // Linear layers: the decoded values
  RawFolder folder;

 private:
  using Words = std::vector<uint32_t>;

  // Bits of code `index` of a stream; the word before `stride` words further.
  void Put(Words* words, int64_t first, int64_t stride, int64_t index, int code) const {
    for (int bit = 0; bit < kind_.bits; ++bit) {
      const int64_t at = index * kind_.bits + bit;
      (*words)[static_cast<size_t>(first + at / 32 * stride)] |=
          static_cast<uint32_t>(code >> bit & 1) << (at % 32);
    }
  }

  // Place of an output in a row of outputs: AWQ's eights are 0 2 4 6 1 3 5 7.
  int64_t Place(int64_t row) const {
    constexpr int64_t kPlaces[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return kind_.method == "awq" ? row / 8 * 8 + kPlaces[row % 8] : row;
  }

  int Draw() { return static_cast<int>(random_.NextU64() % (uint64_t{1} << kind_.bits)); }

  void AddLinear(const ParameterSpec& spec) {
    const int64_t n = spec.shape[0], k = spec.shape[1], groups = k / kGroup;
    const int64_t across = n * kind_.bits / 32, down = k * kind_.bits / 32;
    const bool awq = kind_.method == "awq", v1 = kind_.version == "gptq";
    std::vector<uint16_t> scales;
    std::vector<int> zeros;
    Words zero_words(static_cast<size_t>(groups * across));
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t row = 0; row < n; ++row) {
        scales.push_back(formats::Fp32ToFp16(0.001f + 0.02f * random_.NextUniform()));
        zeros.push_back(Draw());
        const int stored = (zeros.back() - (v1 ? 1 : 0)) & ((1 << kind_.bits) - 1);
        Put(&zero_words, group * across, 1, Place(row), stored);
      }
    }
    Words words(static_cast<size_t>(awq ? k * across : down * n));
    std::vector<int32_t> index;
    std::vector<float>& values = model.floats.at(spec.name);
    for (int64_t i = 0; i < k; ++i) {
      const int64_t group = kind_.scattered ? i % groups : i / kGroup;
      index.push_back(static_cast<int32_t>(group));
      for (int64_t row = 0; row < n; ++row) {
        const int code = Draw();
        awq ? Put(&words, i * across, 1, Place(row), code) : Put(&words, row, n, i, code);
        const auto at = static_cast<size_t>(group * n + row);
        values[static_cast<size_t>(row * k + i)] =
            static_cast<float>(code - zeros[at]) * formats::Fp16ToFp32(scales[at]);
      }
    }
    const std::string base = spec.name.substr(0, spec.name.size() - 6);
    folder.tensors[base + "qweight"] = MakeRaw(
        "I32", awq ? std::vector<int64_t>{k, across} : std::vector<int64_t>{down, n}, words);
    folder.tensors[base + "qzeros"] = MakeRaw("I32", {groups, across}, zero_words);
    folder.tensors[base + "scales"] = MakeRaw("F16", {groups, n}, scales);
    if (!awq) folder.tensors[base + "g_idx"] = MakeRaw("I32", {k}, index);
  }

  Kind kind_;
  RandomStream random_;
};

class GptqKindTest : public ::testing::TestWithParam<Kind> {};

// A code less a zero point times an fp16 scale has one rounding in fp32: equality is the test.
TEST_P(GptqKindTest, EveryWeightIsItsDefinition) {
  const TempFolder temp;
  const PackedFolder packed(GetParam());
  packed.folder.Write(temp / "model");
  const engine::ModelWeights weights = engine::LoadModel(temp / "model");
  for (const ParameterSpec& spec : ParameterTable(packed.model.config)) {
    if (spec.role != ParameterRole::kLinear) continue;
    EXPECT_TRUE(engine::ValuesOf(engine::LinearOf(weights, spec.name)) ==
                packed.model.floats.at(spec.name))
        << spec.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GptqKindTest, ::testing::ValuesIn(kKinds),
                         [](const auto& info) { return info.param.name; });

TEST(GptqFolderTest, RefusesWhatIsNotRead) {
  const TempFolder temp;
  int count = 0;
  const auto refused = [&](const Kind& kind, const std::function<void(RawFolder&)>& change,
                           const std::string& words) {
    PackedFolder packed(kind);
    change(packed.folder);
    const std::string path = temp / StrCat("model", ++count);
    packed.folder.Write(path);
    try {
      engine::LoadModel(path);
      ADD_FAILURE() << "taken, though " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInput) << error.what();
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  const auto key = [](const char* name, const nlohmann::json& value) {
    return [=](RawFolder& f) { f.config["quantization_config"][name] = value; };
  };
  const Kind gptq = kKinds[0], awq = kKinds[6];
  refused(gptq, key("bits", 5), "bits is 5");
  refused(gptq, key("group_size", 0), "group_size is 0");
  refused(gptq, key("group_size", 40), "want a multiple of the group's 40");
  refused(gptq, key("checkpoint_format", "marlin"), "checkpoint_format is marlin");
  refused(gptq, key("pack_dtype", "int64"), "pack_dtype is int64");
  refused(awq, key("version", "gemv"), "in version gemv");
  refused(awq, key("zero_point", false), "zero_point is false");
  refused(gptq, key("bits", 8), "want I32 [16, 64]");
  const auto tensor = [](const std::string& part, const RawTensor& raw) {
    return [=](RawFolder& f) { f.tensors[kUp + part] = raw; };
  };
  std::vector<int32_t> index(64, 2);
  refused(gptq, tensor("g_idx", MakeRaw("I32", {64}, index)), "g_idx holds 2 at 0; want 0 to 1");
  index[0] = -1;
  refused(gptq, tensor("g_idx", MakeRaw("I32", {64}, index)), "g_idx holds -1");
  const std::vector<uint16_t> infinite(2 * 96, 0x7c00);
  refused(gptq, tensor("scales", MakeRaw("F16", {2, 96}, infinite)), "up_proj.weight");
  refused(gptq, tensor("scales", MakeRaw<float>("F32", {1, 1}, {1})), "want F16 or BF16");
  refused(
      gptq, [](RawFolder& f) { f.tensors.erase(std::string(kUp) + "qzeros"); }, "up_proj.qzeros");
  refused(gptq, tensor("extra", MakeRaw<float>("F32", {1}, {1})), "has no place");
}

}  // namespace
}  // namespace tern::testing
