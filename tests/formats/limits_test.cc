// Claims of a file that arithmetic could lose: products of axes beyond 128 bits, numbers at the
// very limits of the parsers, control characters meant for a terminal. Files are built byte by
// byte.
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "formats/gguf.h"
#include "formats/inspect.h"
#include "formats/safetensors.h"
#include "tests/testing/temp_folder.h"

namespace tern::formats {
namespace {

using tern::testing::TempFolder;

template <class T>
void Put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void PutText(std::string* out, const std::string& text) {
  Put(out, static_cast<uint64_t>(text.size()));
  *out += text;
}

// One tensor of the given axes (as in the file: innermost first) at offset 0, and 64 bytes of data.
std::string OneTensor(const std::string& name, const std::vector<int64_t>& ne, GgmlType type) {
  std::string out("GGUF\3\0\0\0", 8);
  Put(&out, uint64_t{1});
  Put(&out, uint64_t{0});
  PutText(&out, name);
  Put(&out, static_cast<uint32_t>(ne.size()));
  for (const int64_t size : ne) Put(&out, size);
  Put(&out, static_cast<uint32_t>(type));
  Put(&out, uint64_t{0});
  out.resize((out.size() + 31) / 32 * 32 + 64);
  return out;
}

// The products are 2^128, which is 0 in 128 bits: such a tensor would seem to fit into any file.
TEST(GgufLimitsTest, SizesThatWrapAroundAreRefused) {
  const TempFolder folder;
  const int64_t large = int64_t{1} << 40;
  const std::vector<std::pair<GgmlType, int64_t>> cases = {
      {GgmlType::kF32, 64}, {GgmlType::kF16, 128}, {GgmlType::kI8, 256}, {GgmlType::kF64, 32}};
  for (const auto& [type, inner] : cases) {
    WriteFileAtomically(folder / "f.gguf", OneTensor("t", {inner, large, large, large}, type));
    try {
      const GgufReader file(folder / "f.gguf");
      ADD_FAILURE() << InfoOf(type).name << ": accepted with " << file.Get("t").bytes.size()
                    << " bytes";
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("larger than the file"), std::string::npos)
          << error.what();
    }
  }
}

// Paths that the system will not even look at are the user's input, like those that are not there.
TEST(PathLimitsTest, ImpossiblePathsAreInputErrors) {
  const TempFolder folder;
  WriteFileAtomically(folder / "file", "text");
  for (const std::string& path : {folder / std::string(300, 'n'), folder / "file/inside",
                                  folder / "none/inside.json", folder / "none.safetensors"}) {
    EXPECT_THROW(Inspect(path), InputError) << path;
    EXPECT_THROW(SafetensorsReader{path}, InputError) << path;
    EXPECT_THROW(GgufReader{path}, InputError) << path;
  }
  EXPECT_THROW(Inspect(folder.path()), InputError);
  EXPECT_THROW(GgufReader{folder.path()}, InputError);
}

// Names come from the file; the text for people may not steer their terminal or fake a line.
TEST(InspectLimitsTest, ControlCharactersAreNotPrinted) {
  const TempFolder folder;
  const std::string name = "w\x1B[2J\nfake F32 [1]\x7F\r\u009B1m \u00E9";
  WriteFileAtomically(folder / "f.gguf", OneTensor(name, {8}, GgmlType::kF32));
  const nlohmann::json found = Inspect(folder / "f.gguf");
  EXPECT_EQ(found["tensors"][0]["name"], name);
  const std::string text = InspectText(found);
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F)) << int{c};
  }
  EXPECT_NE(text.find("  w\\x1B[2J\\x0Afake F32 [1]\\x7F\\x0D\\x9B1m \u00E9 F32 [8]\n"),
            std::string::npos)
      << text;
  EXPECT_EQ(text.find("\nfake"), std::string::npos) << text;
}

// Arrays of GGUF metadata are shown as {"items", "first"}; a config.json may hold such keys itself.
TEST(InspectLimitsTest, ForeignObjectsOfAConfigAreShownAsTheyAre) {
  const TempFolder folder;
  SafetensorsWriter().WriteFolder(folder.path());
  for (const char* value : {R"({"items":3})", R"({"items":"a","first":[]})", R"({"first":[1]})",
                            R"({"items":null,"first":null})"}) {
    WriteFileAtomically(folder / "config.json", StrCat(R"({"key": )", value, "}"));
    const std::string text = InspectText(Inspect(folder.path()));
    EXPECT_NE(text.find(nlohmann::json::parse(value).dump()), std::string::npos) << text;
  }
  for (const char* config : {"[1, 2]", "3", "\"a\"", "null", "{}"}) {
    WriteFileAtomically(folder / "config.json", config);
    EXPECT_NO_THROW(InspectText(Inspect(folder.path()))) << config;
  }
  WriteFileAtomically(folder / "config.json", "{");
  EXPECT_THROW(Inspect(folder.path()), FormatError);
}

}  // namespace
}  // namespace tern::formats
