// GPTQ, AWQ and blockwise FP8 folders: words as their documented layouts have them, values that the
// engine's reader gives back, and what they cannot hold.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/weight_table.h"
#include "formats/half.h"
#include "formats/safetensors.h"
#include "ptq/ledger.h"
#include "ptq/pack_gptq.h"
#include "ptq/quantize_model.h"
#include "ptq/verify.h"
#include "tests/engine/tiny_files.h"
#include "tests/ptq/tiny_source.h"
#include "tests/testing/temp_folder.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

// Code of output `row`, input `i`: (row + 3 i) mod 2^bits, less the half.
quant::QuantizedWeight Pattern(int bits, int64_t n, int64_t k, bool symmetric) {
  quant::QuantizedWeight w;
  w.format = quant::IntFormat(bits, k / 2, symmetric, quant::ScaleDtype::kF16);
  w.codes_NK = at::empty({n, k}, at::kChar);
  const int64_t half = int64_t{1} << (bits - 1);
  for (int64_t row = 0; row < n; ++row)
    for (int64_t i = 0; i < k; ++i)
      w.codes_NK.mutable_data_ptr<int8_t>()[row * k + i] =
          static_cast<int8_t>((row + 3 * i) % (2 * half) - half);
  w.scales.scale_RC = at::full({n, 2}, 0.5, at::kFloat);
  w.scales.scale_RC.mutable_data_ptr<float>()[2 * 1 + 1] = 0.25f;  // Output 1, group 1
  if (!symmetric) {
    w.scales.zero_RC = at::full({n, 2}, -3.0, at::kFloat);
    w.scales.zero_RC.mutable_data_ptr<float>()[2 * 1] = 2.0f;  // Output 1, group 0
  }
  return w;
}

uint32_t Word(const NamedTensor& tensor, int64_t row, int64_t column) {
  uint32_t word;
  std::memcpy(&word, tensor.bytes.data() + 4 * (row * tensor.shape[1] + column), 4);
  return word;
}

// 8 inputs in a word, lowest first; zero points over the outputs, less one in v1.
TEST(PackGptqTest, FourBits) {
  const auto w = Pattern(4, 8, 16, true);
  const std::vector<NamedTensor> v1 = PackGptq("m.", w, true), v2 = PackGptq("m.", w, false);
  EXPECT_EQ(v1[0].name, "m.qweight");
  EXPECT_EQ(v1[0].shape, (std::vector<int64_t>{2, 8}));
  EXPECT_EQ(Word(v1[0], 0, 0), 0x52fc9630u);  // Inputs 0 to 7: 0, 3, 6, 9, 12, 15, 2, 5
  EXPECT_EQ(Word(v1[0], 0, 1), 0x630da741u);  // Output 1: one more
  EXPECT_EQ(Word(v1[0], 1, 0), 0xda741eb8u);  // Inputs 8 to 15: 8, 11, 14, 1, 4, 7, 10, 13
  EXPECT_EQ(v1[1].shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(Word(v1[1], 0, 0), 0x77777777u);
  EXPECT_EQ(Word(v2[1], 1, 0), 0x88888888u);
  EXPECT_EQ(v1[2].shape, (std::vector<int64_t>{2, 8}));
  uint16_t bits;
  std::memcpy(&bits, v1[2].bytes.data() + 2 * (8 + 1), 2);
  EXPECT_EQ(formats::Fp16ToFp32(bits), 0.25f);
  EXPECT_EQ(v1[3].shape, (std::vector<int64_t>{16}));
  int32_t groups[16];
  std::memcpy(groups, v1[3].bytes.data(), sizeof groups);
  EXPECT_EQ(groups[7], 0);
  EXPECT_EQ(groups[8], 1);
  const auto asymmetric = PackGptq("m.", Pattern(4, 8, 16, false), false);
  EXPECT_EQ(Word(asymmetric[1], 0, 0), 0x555555a5u);  // -3 + 8, and 2 + 8 of output 1
}

// 32 inputs in three words; the 11th and the 22nd straddle them.
TEST(PackGptqTest, ThreeBits) {
  const auto packed = PackGptq("m.", Pattern(3, 32, 32, true), true);
  EXPECT_EQ(packed[0].shape, (std::vector<int64_t>{3, 32}));
  uint32_t want[3] = {};
  for (int i = 0; i < 32; ++i) {
    const auto code = static_cast<uint32_t>(3 * i % 8);
    for (int bit = 0; bit < 3; ++bit) {
      const int at = 3 * i + bit;
      want[at / 32] |= (code >> bit & 1u) << (at % 32);
    }
  }
  for (int word = 0; word < 3; ++word) EXPECT_EQ(Word(packed[0], word, 0), want[word]);
}

// Outputs in the order 0, 2, 4, 6, 1, 3, 5, 7 of each eight.
TEST(PackAwqTest, OrderOfOutputs) {
  const auto packed = PackAwq("m.", Pattern(4, 8, 16, false));
  EXPECT_EQ(packed[0].shape, (std::vector<int64_t>{16, 1}));
  EXPECT_EQ(Word(packed[0], 0, 0), 0x75316420u);
  EXPECT_EQ(Word(packed[0], 1, 0), 0xa8649753u);
  EXPECT_EQ(Word(packed[1], 0, 0), 0x555a5555u);  // Output 1 lies in the fifth place.
  EXPECT_EQ(packed.size(), 3u);
}

class ContainersTest : public ::testing::Test {
 protected:
  ContainersTest() {
    WriteTinySource(folder_);
    options_ = TinyOptions(folder_, "int4", "out");
    options_.min_max = true;
  }
  TempFolder folder_;
  QuantizeOptions options_;
};

// QuantizeModel itself holds that the reader's values are the quantizer's; verify holds the rest.
TEST_F(ContainersTest, AreReadAgainAsTheyWereMade) {
  struct Case {
    const char *to, *container;
  };
  for (const Case& c : {Case{"int4", "gptq"},
                        {"int4", "gptq_v2"},
                        {"int4_asym", "gptq_v2"},
                        {"w8", "gptq"},
                        {"w3", "gptq"},
                        {"w2", "gptq_v2"},
                        {"int4", "awq"},
                        {"int4_asym", "awq"},
                        {"fp8_block", "fp8"},
                        {"fp8_static", ""},
                        {"w8", ""}}) {
    options_.to = c.to;
    options_.container = c.container;
    options_.output = folder_ / StrCat(c.to, c.container);
    options_.calibration = folder_ / "text.idx";
    const QuantizeReport report = QuantizeModel(options_);
    EXPECT_EQ(report.matrices, 14) << c.to << c.container;
    EXPECT_LE(report.error, report.error_rtn) << c.to << c.container;
    VerifyOptions verify;
    verify.output = options_.output;
    verify.source = options_.source;
    verify.threads = 1;
    verify.max_kl = 10;  // 2 bits of random weights are another model.
    const VerifyReport verified = VerifyQuantized(verify);
    EXPECT_EQ(verified.compared, 14) << c.to << c.container;
    // Only symmetric zero points tell the version.
    const bool symmetric = std::string(c.to) != "int4_asym";
    EXPECT_EQ(verified.traps, std::string(c.container).starts_with("gptq") && symmetric) << c.to;
  }
}

// Every float of a GPTQ or AWQ folder is fp16, and the configuration says so.
TEST_F(ContainersTest, FloatsOfGptqAreHalf) {
  options_.container = "gptq";
  QuantizeModel(options_);
  const formats::SafetensorsReader reader(options_.output);
  for (const auto& [name, tensor] : reader.tensors())
    EXPECT_TRUE(tensor.dtype == "F16" || tensor.dtype == "I32") << name << " " << tensor.dtype;
  const auto config = nlohmann::json::parse(ReadFile(options_.output + "/config.json"));
  EXPECT_EQ(config["dtype"], "float16");
  EXPECT_EQ(config["quantization_config"]["checkpoint_format"], "gptq");
  EXPECT_EQ(nlohmann::json::parse(ReadFile(options_.output + "/quantize_config.json")),
            config["quantization_config"]);
}

// The trap of two versions: keys of one with the zero points of the other load without a word.
TEST_F(ContainersTest, ZeroPointsOfTheOtherVersionAreRefused) {
  options_.container = "gptq";
  QuantizeModel(options_);
  const std::string path = options_.output + "/config.json";
  std::string text = ReadFile(path);
  text.replace(text.find("\"gptq\"", text.find("checkpoint_format")), 6, "\"gptq_v2\"");
  WriteFileAtomically(path, text);
  fs::remove(LedgerPath(options_.output));
  VerifyOptions verify;
  verify.output = options_.output;
  verify.source = options_.source;
  verify.threads = 1;
  try {
    VerifyQuantized(verify);
    FAIL() << "zero points of v1 pass for v2";
  } catch (const NumericError& error) {
    EXPECT_NE(std::string(error.what()).find("_proj.qzeros"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("checkpoint_format"), std::string::npos);
  }
}

// Activation order of other programs: g_idx gives the group of each input.
TEST_F(ContainersTest, GroupsOfInputsAreRead) {
  options_.container = "gptq";
  options_.group = 128;
  QuantizeModel(options_);
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  const auto before = engine::ValuesOf(engine::LinearOf(engine::LoadModel(options_.output), name));
  const std::string file = options_.output + "/model.safetensors";
  std::string bytes = ReadFile(file);
  {
    const formats::SafetensorsReader reader(file);
    const std::byte* end = nullptr;
    for (const auto& [other, tensor] : reader.tensors())
      end = std::max(end, tensor.bytes.data() + tensor.bytes.size());
    const std::byte* at = reader.Get("model.layers.0.mlp.down_proj.g_idx").bytes.data();
    const size_t offset = bytes.size() - static_cast<size_t>(end - at);
    ASSERT_EQ(bytes[offset], 0);
    bytes[offset] = 1;  // Input 0 is now of group 1.
  }
  std::ofstream(file, std::ios::binary) << bytes;
  const auto after = engine::ValuesOf(engine::LinearOf(engine::LoadModel(options_.output), name));
  int changed = 0;
  for (size_t i = 0; i < after.size(); ++i) {
    if (i % 256 == 0) {
      changed += after[i] != before[i];
    } else {
      ASSERT_EQ(after[i], before[i]);
    }
  }
  EXPECT_GT(changed, 200);  // Of 256 outputs, but for equal scales and zeros
}

TEST_F(ContainersTest, RefuseWhatTheyCannotHold) {
  const auto refused = [&](const char* to, const char* container, const std::string& words) {
    QuantizeOptions changed = options_;
    changed.to = to;
    changed.container = container;
    try {
      QuantizeModel(changed);
      ADD_FAILURE() << "not refused: " << to << " in " << container;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(changed.output));
  };
  refused("int4_asym", "gptq", "no place for 0");
  refused("fp8", "gptq", "it holds int4");
  refused("w3", "awq", "it holds int4 and int4_asym");
  refused("int4", "fp8", "it holds fp8_block");
  refused("int4", "gguf", "want one of compressed-tensors, gptq");
  refused("q4_0", "gptq", "is a GGUF file");
  refused("fp8_static", "", "needs --calibration");
  ModelConfig narrow = testing::TinyConfig(ArchName::kLlama, LinearKind::kDense);
  narrow.num_kv_heads = 1;
  narrow.head_dim = 20;
  EXPECT_THROW(SchemeByName("w3", 64, narrow, "gptq"), InputError);
  QuantizeOptions once = options_;
  once.container = "awq";
  QuantizeModel(once);
  options_.source = once.output;
  options_.output = folder_ / "twice";
  refused("int4", "", "--allow-requantize");
}

}  // namespace
}  // namespace tern::ptq
