// Descriptions of files: sums, shapes, and text that is always valid UTF-8.
#include "formats/inspect.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "tests/testing/temp_folder.h"

namespace tern::formats {
namespace {

using tern::testing::TempFolder;

TEST(InspectTest, DescribesGguf) {
  const TempFolder folder;
  GgufWriter writer("bitnet");
  writer.AddStrings("tokens", {"a", "b", "c", "d", "e", "f"});
  writer.AddString("bytes", "\xFF");
  const auto none = [](int64_t, uint8_t* out) { out[0] = 0; };
  writer.AddTensor("w", GgmlType::kTq2_0, {4, 256}, none);
  writer.AddTensor("v", GgmlType::kTq2_0, {2, 512}, none);
  writer.AddTensor("w.scale", GgmlType::kF32, {1}, none);
  writer.Write(folder / "file.gguf");

  const nlohmann::json found = Inspect(folder / "file.gguf", {.max_items = 2});
  EXPECT_EQ(found["kind"], "GGUF");
  EXPECT_EQ(found["bytes"], std::filesystem::file_size(folder / "file.gguf"));
  EXPECT_EQ(found["metadata"]["general.architecture"], "bitnet");
  EXPECT_EQ(found["metadata"]["tokens"]["items"], 6);
  EXPECT_EQ(found["metadata"]["tokens"]["first"], (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(found["metadata"]["bytes"], "\uFFFD");
  ASSERT_EQ(found["tensors"].size(), 3u);
  EXPECT_EQ(
      found["tensors"][1],
      (nlohmann::json{{"name", "v"}, {"type", "TQ2_0"}, {"shape", {2, 512}}, {"bytes", 264}}));
  EXPECT_EQ(found["types"]["TQ2_0"],
            (nlohmann::json{{"tensors", 2}, {"elements", 2048}, {"bytes", 528}}));
  EXPECT_EQ(found["elements"], 2049);

  const std::string text = InspectText(found);
  for (const char* word : {"GGUF", "3 tensors", "TQ2_0", "2.062 bits each", "v TQ2_0 [2, 512]",
                           "tokens = 6 items: [\"a\",\"b\"]"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word << " is not in:\n" << text;
  }
  EXPECT_TRUE(text.ends_with("\n"));
}

TEST(InspectTest, DescribesSafetensorsAndFolders) {
  const TempFolder folder;
  const std::vector<float> data(6);
  SafetensorsWriter writer;
  writer.Add("w", "F32", {2, 3}, data.data());
  writer.Add("s", "F32", {}, data.data());
  writer.WriteFolder(folder.path());
  const nlohmann::json file = Inspect(folder / "model.safetensors");
  EXPECT_EQ(file["kind"], "safetensors");
  EXPECT_EQ(file["metadata"]["format"], "pt");
  EXPECT_EQ(file["elements"], 7);
  EXPECT_EQ(file["types"]["F32"]["bytes"], 28);
  EXPECT_NE(InspectText(file).find("s F32 []"), std::string::npos);

  WriteFileAtomically(folder / "config.json", R"({"model_type": "bitnet"})");
  EXPECT_EQ(Inspect(folder.path())["metadata"]["model_type"], "bitnet");
}

TEST(InspectTest, OtherFilesAreRefused) {
  const TempFolder folder;
  WriteFileAtomically(folder / "short", "GG");
  WriteFileAtomically(folder / "text", "hello, this is no model");
  EXPECT_THROW(Inspect(folder / "short"), FormatError);
  EXPECT_THROW(Inspect(folder / "text"), FormatError);
  EXPECT_THROW(Inspect(folder / "none"), InputError);
}

}  // namespace
}  // namespace tern::formats
