// Hostile files: every truncation, every flipped bit of the header, and random damage. A reader
// must parse or throw FormatError or InputError; it may not crash, hang, or allocate more than 64
// MiB for a file of a few kilobytes. What it accepts is read to the last byte, so that a sanitizer
// sees any view that leaves the file. Seeds are fixed.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "allocation_limit.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "formats/gguf.h"
#include "formats/hf_bitnet.h"
#include "formats/i2_s.h"
#include "formats/inspect.h"
#include "formats/safetensors.h"
#include "golden.h"
#include "tests/testing/temp_folder.h"

namespace tern::formats {
namespace {

using tern::testing::TempFolder;
using testing::AllocationLimit;
using testing::FromHex;
using testing::Golden;

constexpr size_t kLimitBytes = 64 << 20;

struct Outcome {
  int64_t accepted = 0, refused = 0;
};

uint64_t Sum(std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (const std::byte byte : bytes) sum = sum * 31 + std::to_integer<uint64_t>(byte);
  return sum;
}

// Decodes every tensor, as the engine would.
void UseGguf(const std::string& path) {
  const GgufReader file(path);
  volatile uint64_t sink = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    sink = sink + Sum(tensor.bytes);
    std::vector<float> row(static_cast<size_t>(tensor.row_elements()));
    std::vector<int8_t> codes(row.size());
    for (int64_t r = 0; r < tensor.rows(); ++r) {
      try {
        DecodeRow(tensor.type, tensor.row(r), tensor.row_elements(), row.data());
        if (tensor.type == GgmlType::kTq1_0 || tensor.type == GgmlType::kTq2_0) {
          DecodeTernaryRow(tensor.type, tensor.row(r), tensor.row_elements(), codes.data());
        }
      } catch (const FormatError&) {
        break;  // A type that is not read as floats, or codes that are none
      }
    }
  }
  (void)InspectText(Inspect(path));
}

void UseSafetensors(const std::string& path) {
  const SafetensorsReader file(path);
  volatile uint64_t sink = 0;
  for (const auto& [name, tensor] : file.tensors()) sink = sink + Sum(tensor.bytes);
  (void)InspectText(Inspect(path));
}

// Thousands of files: without fsync, and under a new inode, because ext4 flushes a file that is
// truncated and written again.
void WriteQuickly(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

class Attack {
 public:
  Attack(std::string damaged_path, std::function<void()> use)
      : path_(std::move(damaged_path)), use_(std::move(use)) {}

  void Try(const std::string& bytes) {
    WriteQuickly(path_, bytes);
    const AllocationLimit limit(kLimitBytes);
    try {
      use_();
      ++outcome_.accepted;
    } catch (const FormatError&) {
      ++outcome_.refused;
    } catch (const InputError&) {
      ++outcome_.refused;
    }
  }

  void EveryTruncation(const std::string& bytes) {
    for (size_t size = 0; size < bytes.size(); ++size) Try(bytes.substr(0, size));
  }
  // All bits of the first `count` bytes, one at a time.
  void EveryBit(const std::string& bytes, size_t count) {
    for (size_t i = 0; i < std::min(count, bytes.size()) * 8; ++i) {
      std::string damaged = bytes;
      damaged[i / 8] = static_cast<char>(damaged[i / 8] ^ 1 << (i % 8));
      Try(damaged);
    }
  }
  // Numbers that break arithmetic, written over every place a 4- or 8-byte number could be.
  void HostileNumbers(const std::string& bytes, size_t count) {
    const uint64_t numbers[] = {0,
                                1,
                                0x7F,
                                0xFFFF,
                                uint64_t{1} << 20,
                                uint64_t{1} << 31,
                                0xFFFFFFFF,
                                uint64_t{1} << 32,
                                (uint64_t{1} << 40) - 1,
                                uint64_t{1} << 62,
                                uint64_t{1} << 63,
                                ~uint64_t{0} - 31,
                                ~uint64_t{0}};
    for (size_t at = 0; at + 8 <= std::min(count, bytes.size()); ++at) {
      for (const uint64_t number : numbers) {
        std::string damaged = bytes;
        std::memcpy(damaged.data() + at, &number, at % 2 == 0 ? 8 : 4);
        Try(damaged);
      }
    }
  }
  // Several bytes at once; pieces moved, repeated or cut out.
  void RandomDamage(const std::string& bytes, int rounds, uint64_t seed) {
    RandomStream random(seed, "fuzz");
    const auto below = [&](size_t limit) { return static_cast<size_t>(random.NextU64() % limit); };
    for (int round = 0; round < rounds; ++round) {
      std::string damaged = bytes;
      for (size_t change = 0; change <= below(4); ++change) {
        const size_t at = below(damaged.size()), size = 1 + below(16);
        const size_t from = below(damaged.size());
        switch (below(4)) {
          case 0:
            damaged[at] = static_cast<char>(random.NextU64());
            break;
          case 1:
            damaged.insert(at, damaged.substr(from, size));
            break;
          case 2:
            damaged.erase(at, size);
            break;
          default:
            damaged.replace(at, size, damaged.substr(from, size));
        }
        if (damaged.empty()) damaged = "x";
      }
      Try(damaged);
    }
  }
  const Outcome& outcome() const { return outcome_; }

 private:
  std::string path_;
  std::function<void()> use_;
  Outcome outcome_;
};

// The golden file of gguf-py without most of its data: header of about 900 bytes, all value types.
std::string SmallGguf(const TempFolder& folder) {
  GgufWriter writer("llama");
  writer.AddU32("llama.block_count", 2);
  writer.AddF32("eps", 1e-5f);
  writer.AddBool("bos", true);
  writer.AddStrings("tokens", {"<unk>", "a", "b"});
  writer.AddF32s("scores", {0, -1, -2});
  writer.AddI32s("types", {2, 1, 1});
  const auto bytes = [](int64_t row, uint8_t* out) { out[0] = static_cast<uint8_t>(row); };
  writer.AddTensor("dense", GgmlType::kF32, {2, 3}, bytes);
  writer.AddTensor("q8", GgmlType::kQ8_0, {1, 32}, bytes);
  writer.AddTensor("tq", GgmlType::kTq2_0, {1, 256}, bytes);
  writer.AddTensor("tq1", GgmlType::kTq1_0, {1, 256}, bytes);
  writer.Write(folder / "small.gguf");
  return ReadFile(folder / "small.gguf");
}

TEST(GgufFuzz, DamagedFilesAreParsedOrRefused) {
  const TempFolder folder;
  const std::string path = folder / "damaged.gguf", good = SmallGguf(folder);
  ASSERT_LT(good.size(), 2000u);
  Attack attack(path, [&] { UseGguf(path); });
  attack.Try(good);
  ASSERT_EQ(attack.outcome().accepted, 1);
  attack.EveryTruncation(good);
  // The last tensor ends 10 bytes before the padded end: only that many cuts can be harmless.
  EXPECT_LE(attack.outcome().accepted, 1 + 31);
  attack.EveryBit(good, 640);
  attack.HostileNumbers(good, 640);
  attack.RandomDamage(good, 6000, 1);
  EXPECT_GT(attack.outcome().accepted, 1000);  // Damage of names and weights cannot be seen
  EXPECT_GT(attack.outcome().refused, 5000);
}

TEST(GgufFuzz, RandomBytesBehindAGoodHead) {
  const TempFolder folder;
  const std::string path = folder / "damaged.gguf";
  Attack attack(path, [&] { UseGguf(path); });
  RandomStream random(2, "bytes");
  for (int round = 0; round < 2000; ++round) {
    std::string bytes("GGUF\3\0\0\0", 8);
    for (const uint64_t count : {random.NextU64() % 4, random.NextU64() % 4}) {
      bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
    }
    for (uint64_t i = random.NextU64() % 300; i > 0; --i) {
      // Small numbers are likely: they are lengths, types and counts that could be believed.
      const uint64_t value = random.NextU64();
      bytes += static_cast<char>(value % 4 == 0 ? value >> 32 : value >> 32 & 15);
    }
    attack.Try(bytes);
  }
  EXPECT_GT(attack.outcome().refused, 1000);
}

// Counts at the very limit that a small file cannot fill.
TEST(GgufFuzz, ClaimsOfTheLargestBelievedCountsAllocateNothing) {
  const TempFolder folder;
  const std::string path = folder / "damaged.gguf";
  Attack attack(path, [&] { UseGguf(path); });
  for (uint32_t type = 0; type < 14; ++type) {
    std::string bytes("GGUF\3\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 24);
    bytes += std::string("\1\0\0\0\0\0\0\0k\x9\0\0\0", 13);
    bytes.append(reinterpret_cast<const char*>(&type), sizeof type);
    const uint64_t count = 1 << 22;
    bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
    attack.Try(bytes);
  }
  std::string tensors("GGUF\3\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
  attack.Try(tensors);
  EXPECT_EQ(attack.outcome().refused, 15);
}

TEST(SafetensorsFuzz, DamagedFilesAreParsedOrRefused) {
  const TempFolder folder;
  const std::string path = folder / "damaged.safetensors";
  const auto raw = FromHex(Golden()["safetensors"]["bytes"]);
  const std::string good(raw.begin(), raw.end());
  Attack attack(path, [&] { UseSafetensors(path); });
  attack.Try(good);
  ASSERT_EQ(attack.outcome().accepted, 1);
  attack.EveryTruncation(good);
  EXPECT_EQ(attack.outcome().accepted, 1);  // No cut is harmless: the data part must be covered
  attack.EveryBit(good, good.size());
  attack.HostileNumbers(good, 64);
  attack.RandomDamage(good, 6000, 3);
  EXPECT_GT(attack.outcome().accepted, 100);
  EXPECT_GT(attack.outcome().refused, 5000);
}

// Digits of shapes and offsets replaced: the arithmetic of sizes.
TEST(SafetensorsFuzz, NumbersOfTheHeader) {
  const TempFolder folder;
  const std::string path = folder / "damaged.safetensors";
  const char* numbers[] = {"0",
                           "1",
                           "-1",
                           "4",
                           "1e3",
                           "1.5",
                           "4294967296",
                           "9223372036854775807",
                           "9223372036854775808",
                           "18446744073709551615",
                           "18446744073709551616",
                           "1e400",
                           "\"1\"",
                           "null",
                           "[]",
                           "{}",
                           "true"};
  Attack attack(path, [&] { UseSafetensors(path); });
  for (const char* size : numbers) {
    for (const char* begin : numbers) {
      for (const char* end : numbers) {
        const std::string header = StrCat(R"({"t":{"dtype":"F32","shape":[)", size, ",", size,
                                          R"(],"data_offsets":[)", begin, ",", end, "]}}");
        const uint64_t header_size = header.size();
        std::string bytes(reinterpret_cast<const char*>(&header_size), sizeof header_size);
        attack.Try(bytes + header + std::string(4, '\0'));
      }
    }
  }
  // [1, 1] at 0 to 4 is the only one that covers the data.
  EXPECT_EQ(attack.outcome().accepted, 1);
}

TEST(SafetensorsFuzz, DamagedIndexesAreParsedOrRefused) {
  const TempFolder folder;
  const std::vector<uint8_t> data(16);
  SafetensorsWriter writer;
  writer.Add("a", "U8", {16}, data.data());
  writer.Add("b", "F32", {4}, data.data());
  writer.WriteFolder(folder.path(), 16);
  const std::string path = folder / "model.safetensors.index.json", good = ReadFile(path);
  Attack attack(path, [&] { UseSafetensors(folder.path()); });
  attack.Try(good);
  ASSERT_EQ(attack.outcome().accepted, 1);
  attack.EveryTruncation(good);
  attack.EveryBit(good, good.size());
  attack.RandomDamage(good, 2000, 4);
  EXPECT_GT(attack.outcome().refused, 2000);
}

TEST(PackingFuzz, RandomBytesAreCodesOrRefused) {
  RandomStream random(5, "packing");
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint8_t> bytes(static_cast<size_t>(I2sBytes(1, 128)));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.NextU64());
    // Every other round has no code 3, so that both ways are taken.
    if (round % 2 == 0) {
      for (size_t i = 0; i < 32; ++i) bytes[i] &= static_cast<uint8_t>(~(bytes[i] << 1 & 0xAA));
    }
    for (const bool i2s : {true, false}) {
      try {
        const auto codes =
            i2s ? UnpackI2s(bytes, 1, 128).codes : UnpackHfBitnet(bytes.data(), 4, 32);
        for (const int8_t code : codes) ASSERT_TRUE(code >= -1 && code <= 1);
        ++accepted;
      } catch (const FormatError&) {
      }
    }
  }
  EXPECT_GT(accepted, 1500);
}

}  // namespace
}  // namespace tern::formats
