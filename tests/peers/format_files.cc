// Helper of check_formats.py: writes with tern's writers files that other programs shall read, and
// dumps what tern's readers find in files of others.
//
//   format_files write FOLDER   ours.gguf, ours.safetensors, packed.safetensors, values.bin
//   (float32
//                               of every GGUF tensor as tern decodes it, in the file's order)
//   format_files read FOLDER    reads theirs.gguf and theirs.safetensors; writes gguf.json,
//                               gguf.bin (float32 of every tensor), safetensors.json,
//                               safetensors.bin (raw bytes in the order of names)
//
// Values come from a fixed seed. Exit 0, or the exit code of tern's error with its message.
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "formats/gguf.h"
#include "formats/half.h"
#include "formats/hf_bitnet.h"
#include "formats/safetensors.h"

namespace tern::formats {
namespace {

using nlohmann::json;

std::vector<float> Normals(int64_t count, uint64_t seed) {
  RandomStream random(seed, "normals");
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = random.NextNormal();
  return x;
}

std::vector<int8_t> Codes(int64_t count, uint64_t seed) {
  RandomStream random(seed, "codes");
  std::vector<int8_t> codes(static_cast<size_t>(count));
  for (int8_t& code : codes) code = static_cast<int8_t>(static_cast<int>(random.NextU64() % 3) - 1);
  return codes;
}

void AppendValues(const GgufReader& file, std::string* out) {
  for (const GgufTensor& tensor : file.tensors()) {
    std::vector<float> row(static_cast<size_t>(tensor.row_elements()));
    for (int64_t r = 0; r < tensor.rows(); ++r) {
      DecodeRow(tensor.type, tensor.row(r), tensor.row_elements(), row.data());
      out->append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
    }
  }
}

void WriteGguf(const std::string& folder) {
  GgufWriter writer("bitnet");
  writer.AddString("text", "\u2581the \U0001f600");
  writer.AddU32("u32", 4'000'000'000u);
  writer.AddF32("f32", 1e-5f);
  writer.AddBool("bool", true);
  writer.AddStrings("texts", {"<unk>", "", "\u00e9"});
  writer.AddF32s("f32s", {0.0f, -1.5f, 1e30f});
  writer.AddI32s("i32s", {-2'000'000'000, 0, 6});
  const int64_t n = 3, k = 512;
  const auto x = Normals(n * k, 1);
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16, GgmlType::kBf16, GgmlType::kQ8_0,
                              GgmlType::kTq1_0, GgmlType::kTq2_0}) {
    const std::string name(InfoOf(type).name);
    writer.AddTensor("float." + name, type, {n, k}, [&x, type, k](int64_t row, uint8_t* out) {
      EncodeRow(type, x.data() + row * k, k, out);
    });
  }
  const auto codes = Codes(2 * n * k, 2);
  for (const GgmlType type : {GgmlType::kTq1_0, GgmlType::kTq2_0}) {
    const std::string name(InfoOf(type).name);
    writer.AddTensor("codes." + name, type, {2, n, k},
                     [&codes, type, k](int64_t row, uint8_t* out) {
                       EncodeTernaryRow(type, codes.data() + row * k, k, out);
                     });
  }
  writer.AddTensor("one", GgmlType::kF32, {1},
                   [&x](int64_t, uint8_t* out) { EncodeRow(GgmlType::kF32, x.data(), 1, out); });
  writer.Write(folder + "/ours.gguf");
  std::string values;
  AppendValues(GgufReader(folder + "/ours.gguf"), &values);
  WriteFileAtomically(folder + "/values.bin", values);
}

void WriteSafetensors(const std::string& folder) {
  const auto x = Normals(15, 3);
  const std::vector<uint16_t> halves = {0, Fp32ToFp16(1.5f), Fp32ToFp16(-65504.0f)};
  const std::vector<int64_t> integers = {-1, int64_t{1} << 40};
  SafetensorsWriter writer;
  writer.Add("bytes", "U8", {5}, x.data());  // Narrow first: the writer reorders
  writer.Add("half", "F16", {3, 1}, halves.data());
  writer.Add("float", "F32", {3, 5}, x.data());
  writer.Add("integers", "I64", {2}, integers.data());
  writer.Add("number", "F32", {}, x.data());
  writer.Add("empty", "F32", {0, 4}, x.data());
  writer.Write(folder + "/ours.safetensors");

  const int64_t n = 24, k = 40;
  const auto codes = Codes(n * k, 4);
  const auto packed = PackHfBitnet(codes, n, k);
  SafetensorsWriter packing;
  packing.Add("codes", "I8", {n, k}, codes.data());
  packing.Add("packed", "U8", {n / 4, k}, packed.data());
  packing.Write(folder + "/packed.safetensors");
}

void ReadGguf(const std::string& folder) {
  const GgufReader file(folder + "/theirs.gguf");
  json tensors = json::array();
  for (const GgufTensor& tensor : file.tensors()) {
    tensors.push_back({tensor.name, InfoOf(tensor.type).name, tensor.shape});
  }
  const json found = {{"metadata", file.Metadata(1000)}, {"tensors", tensors}};
  WriteFileAtomically(folder + "/gguf.json", found.dump());
  std::string values;
  AppendValues(file, &values);
  WriteFileAtomically(folder + "/gguf.bin", values);
}

void ReadSafetensors(const std::string& folder) {
  const SafetensorsReader file(folder + "/theirs.safetensors");
  json tensors = json::array();
  std::string values;
  for (const auto& [name, tensor] : file.tensors()) {
    tensors.push_back({name, tensor.dtype, tensor.shape});
    values.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  const json found = {{"metadata", file.metadata()}, {"tensors", tensors}};
  WriteFileAtomically(folder + "/safetensors.json", found.dump());
  WriteFileAtomically(folder + "/safetensors.bin", values);
}

int Run(int argc, char** argv) {
  const std::string verb = argc == 3 ? argv[1] : "";
  if (verb == "write") {
    WriteGguf(argv[2]);
    WriteSafetensors(argv[2]);
  } else if (verb == "read") {
    ReadGguf(argv[2]);
    ReadSafetensors(argv[2]);
  } else {
    std::fprintf(stderr, "usage: format_files write|read FOLDER\n");
    return static_cast<int>(ExitCode::kUsage);
  }
  return 0;
}

}  // namespace
}  // namespace tern::formats

int main(int argc, char** argv) {
  try {
    return tern::formats::Run(argc, argv);
  } catch (const tern::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  }
}
