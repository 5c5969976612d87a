// Files for a comparison with the reference programs by hand (tests/peers/check_formats.py): with
// TERN_FORMAT_SAMPLES=FOLDER, writes samples into FOLDER and reads there what the script wrote.
// Without it, the same files make a round trip in a temporary folder. The values are a formula that
// the script repeats, so nothing but the files is shared.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "formats/gguf.h"
#include "formats/half.h"
#include "formats/hf_bitnet.h"
#include "formats/i2_s.h"
#include "formats/safetensors.h"
#include "tests/testing/temp_folder.h"

namespace tern::formats {
namespace {

constexpr int64_t kRows = 12, kColumns = 512;
constexpr float kScale = 0.0421f;

float ValueAt(int64_t i) { return static_cast<float>((i * 37 + 11) % 101 - 50) / 8; }
int8_t CodeAt(int64_t i) { return static_cast<int8_t>((i * i + i / 3) % 3 - 1); }

std::vector<float> Values() {
  std::vector<float> values;
  for (int64_t i = 0; i < kRows * kColumns; ++i) values.push_back(ValueAt(i));
  return values;
}
std::vector<int8_t> Codes() {
  std::vector<int8_t> codes;
  for (int64_t i = 0; i < kRows * kColumns; ++i) codes.push_back(CodeAt(i));
  return codes;
}

class PeerSamplesTest : public ::testing::Test {
 protected:
  PeerSamplesTest() {
    const char* given = std::getenv("TERN_FORMAT_SAMPLES");
    folder_ = given != nullptr ? given : temporary_.path();
    from_peer_ = given != nullptr;
  }
  // The file the script wrote, or, without a script, our own.
  std::string ToRead(const std::string& ours, const std::string& theirs) const {
    return folder_ + "/" + (from_peer_ ? theirs : ours);
  }

  tern::testing::TempFolder temporary_;
  std::string folder_;
  bool from_peer_ = false;
};

void WriteGgufSample(const std::string& path) {
  const auto values = Values();
  const auto codes = Codes();
  GgufWriter writer("llama");
  writer.AddStrings("tokenizer.ggml.tokens", {"<unk>", "\u2581the", ""});
  writer.AddF32s("tokenizer.ggml.scores", {0.0f, -1.5f, 0.25f});
  writer.AddI32s("tokenizer.ggml.token_type", {2, 1, -6});
  writer.AddU32("llama.block_count", 3);
  writer.AddBool("flag", true);
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16, GgmlType::kBf16, GgmlType::kQ8_0}) {
    writer.AddTensor(std::string(InfoOf(type).name), type, {kRows, kColumns},
                     [&values, type](int64_t row, uint8_t* out) {
                       EncodeRow(type, values.data() + row * kColumns, kColumns, out);
                     });
  }
  for (const GgmlType type : {GgmlType::kTq1_0, GgmlType::kTq2_0}) {
    writer.AddTensor(std::string(InfoOf(type).name), type, {kRows, kColumns},
                     [&codes, type](int64_t row, uint8_t* out) {
                       EncodeTernaryRow(type, codes.data() + row * kColumns, kColumns, out);
                     });
  }
  writer.AddTensor("scale", GgmlType::kF32, {1},
                   [](int64_t, uint8_t* out) { EncodeRow(GgmlType::kF32, &kScale, 1, out); });
  writer.Write(path);
}

TEST_F(PeerSamplesTest, Gguf) {
  WriteGgufSample(folder_ + "/tern.gguf");
  const GgufReader file(ToRead("tern.gguf", "peer.gguf"));
  EXPECT_EQ(file.Strings("tokenizer.ggml.tokens"),
            (std::vector<std::string>{"<unk>", "\u2581the", ""}));
  EXPECT_EQ(file.Numbers("tokenizer.ggml.scores"), (std::vector<double>{0, -1.5, 0.25}));
  EXPECT_EQ(file.Int("llama.block_count"), 3);
  const auto values = Values();
  const auto codes = Codes();
  std::vector<uint8_t> want(static_cast<size_t>(kColumns * 4));
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name == "scale") continue;
    ASSERT_EQ(tensor.shape, (std::vector<int64_t>{kRows, kColumns})) << tensor.name;
    EXPECT_EQ(tensor.name, InfoOf(tensor.type).name);
    const bool ternary = tensor.name.starts_with("TQ");
    const int64_t row_bytes = RowBytes(tensor.type, kColumns);
    for (int64_t row = 0; row < kRows; ++row) {
      if (ternary) {
        EncodeTernaryRow(tensor.type, codes.data() + row * kColumns, kColumns, want.data());
      } else {
        EncodeRow(tensor.type, values.data() + row * kColumns, kColumns, want.data());
      }
      EXPECT_EQ(std::memcmp(tensor.row(row), want.data(), static_cast<size_t>(row_bytes)), 0)
          << tensor.name << " row " << row;
    }
  }
  EXPECT_EQ(file.tensors().size(), 7u);
}

TEST_F(PeerSamplesTest, Safetensors) {
  const auto values = Values();
  const auto packed = PackHfBitnet(Codes(), kRows, kColumns);
  const auto i2s = PackI2s(Codes(), kRows, kColumns, kScale);
  std::vector<uint16_t> halves;
  for (const float value : values) halves.push_back(Fp32ToBf16(value));
  SafetensorsWriter writer;
  writer.Add("packed", "U8", {kRows / 4, kColumns}, packed.data());
  writer.Add("packed_scale", "F32", {1}, &kScale);
  writer.Add("values", "F32", {kRows, kColumns}, values.data());
  writer.Add("halves", "BF16", {kRows, kColumns}, halves.data());
  writer.Add("i2_s", "U8", {static_cast<int64_t>(i2s.size())}, i2s.data());
  writer.Write(folder_ + "/tern.safetensors");
  const std::string shards = folder_ + "/shards";
  std::filesystem::remove_all(shards);
  std::filesystem::create_directory(shards);
  writer.WriteFolder(shards, 10'000);

  for (const std::string& path : {ToRead("tern.safetensors", "peer.safetensors"), shards}) {
    const SafetensorsReader file(path);
    const SafetensorsTensor& found = file.Get("values");
    ASSERT_EQ(found.shape, (std::vector<int64_t>{kRows, kColumns}));
    EXPECT_EQ(std::memcmp(found.bytes.data(), values.data(), found.bytes.size()), 0);
    EXPECT_EQ(std::memcmp(file.Get("halves").bytes.data(), halves.data(), halves.size() * 2), 0);
    const auto* bytes = reinterpret_cast<const uint8_t*>(file.Get("packed").bytes.data());
    EXPECT_EQ(UnpackHfBitnet(bytes, kRows, kColumns), Codes());
  }
}

}  // namespace
}  // namespace tern::formats
