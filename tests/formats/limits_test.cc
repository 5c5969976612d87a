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

}  // namespace
}  // namespace tern::formats
