// WriteModelFile of model_file.h. A tensor is written in slices of a few MB: hashed and, beside
// that, written, and the source's pages given back.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "arch/model_config_json.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/model_file.h"
#include "engine/model_file_names.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kSliceBytes = 8 << 20;

class Writer {
 public:
  explicit Writer(const std::string& path) : file_(h5::File::Create(path, kTensorAlignment)) {
    file_.SetAttribute("/", "format", std::string(kModelFileFormat));
    file_.SetAttribute("/", "version", kModelFileVersion);
  }

  void Bytes(const std::string& name, std::string_view bytes) {
    file_.Write(name, h5::Type::kU8, {static_cast<int64_t>(bytes.size())}, bytes.data());
  }

  void Vector(const std::string& name, const std::vector<float>& values) {
    Rows(name, "F32", h5::Type::kF32, {static_cast<int64_t>(values.size())},
         std::as_bytes(std::span(values)), /*mapped=*/false);
  }
  void Matrix(const std::string& name, const DenseMatrix& m) {
    Rows(name, "F32", h5::Type::kF32, {m.n, m.k}, std::as_bytes(std::span(m.values)), false);
  }
  void Matrix(const std::string& name, const TernaryMatrix& m) {
    Rows(name, kTernaryType, h5::Type::kU8, {m.n, kernels::T2RowBytes(m.k)},
         std::as_bytes(std::span(m.t2)), false);
    file_.SetAttribute(Path(name), kColumnsAttribute, m.k);
    Vector(name + kScaleSuffix, {m.scale});
  }
  void Matrix(const std::string& name, const BlockMatrix& m);
  void Matrix(const std::string& name, const ScaledMatrix& m);
  void Matrix(const std::string& name, const Int4Matrix&) {
    throw BugError(name + " is repacked, which no source stores");
  }

  int64_t tensors() const { return tensors_; }
  void Close() { file_.Close(); }

 private:
  static std::string Path(const std::string& name) { return kTensorGroup + name; }

  // `bytes`: all rows of a tensor of that shape, in order.
  void Rows(const std::string& name, std::string_view type, h5::Type element,
            const std::vector<int64_t>& shape, std::span<const std::byte> bytes, bool mapped);
  // row(first, count, out): bytes of `count` rows from `first` on.
  using Slice = std::function<std::span<const std::byte>(int64_t first, int64_t count)>;
  void Slices(const std::string& name, std::string_view type, h5::Type element,
              const std::vector<int64_t>& shape, int64_t row_bytes, const Slice& slice);

  h5::File file_;
  int64_t tensors_ = 0;
};

void Writer::Slices(const std::string& name, std::string_view type, h5::Type element,
                    const std::vector<int64_t>& shape, int64_t row_bytes, const Slice& slice) {
  const std::string path = Path(name);
  file_.CreateContiguous(path, element, shape);
  Sha256 hash;
  const int64_t step = std::max<int64_t>(1, kSliceBytes / std::max<int64_t>(1, row_bytes));
  for (int64_t first = 0; first < shape[0]; first += step) {
    const int64_t count = std::min(step, shape[0] - first);
    const std::span<const std::byte> bytes = slice(first, count);
    TERN_CHECK(static_cast<int64_t>(bytes.size()) == count * row_bytes, name, ": ", bytes.size(),
               " bytes");
    const auto hashed =
        std::async(std::launch::async, [&] { hash.Update(bytes.data(), bytes.size()); });
    file_.WriteRows(path, element, first, count, bytes.data());
    file_.StartWriteback();
  }
  file_.SetAttribute(path, kTypeAttribute, std::string(type));
  file_.SetAttribute(path, kSha256Attribute, hash.HexDigest());
  ++tensors_;
}

void Writer::Rows(const std::string& name, std::string_view type, h5::Type element,
                  const std::vector<int64_t>& shape, std::span<const std::byte> bytes,
                  bool mapped) {
  const int64_t row_bytes = static_cast<int64_t>(bytes.size()) / shape[0];
  std::span<const std::byte> written;
  Slices(name, type, element, shape, row_bytes, [&](int64_t first, int64_t count) {
    if (mapped) DropMappedPages(written);
    written = bytes.subspan(static_cast<size_t>(first * row_bytes),
                            static_cast<size_t>(count * row_bytes));
    return written;
  });
  if (mapped) DropMappedPages(bytes);
}

void Writer::Matrix(const std::string& name, const BlockMatrix& m) {
  const formats::GgmlTypeInfo& info = formats::InfoOf(m.type);
  const int64_t row_bytes = formats::RowBytes(m.type, m.k);
  h5::Type element = h5::Type::kU8;
  std::vector<int64_t> shape = {m.n, row_bytes};
  for (const FloatTypeName& known : kFloatTypes) {
    if (known.ggml != m.type) continue;
    element = known.h5;
    shape[1] = m.k;
  }
  if (m.paired_head_dim == 0) {
    Rows(name, info.name, element, shape, m.bytes, m.mapped);
  } else {  // The model's order of rows, whatever the source's is
    std::vector<std::byte> rows;
    Slices(name, info.name, element, shape, row_bytes, [&](int64_t first, int64_t count) {
      rows.resize(static_cast<size_t>(count * row_bytes));
      for (int64_t i = 0; i < count; ++i)
        std::memcpy(rows.data() + i * row_bytes, m.Row(first + i), static_cast<size_t>(row_bytes));
      return std::span<const std::byte>(rows);
    });
    if (m.mapped) DropMappedPages(m.bytes);
  }
  if (element == h5::Type::kU8) file_.SetAttribute(Path(name), kColumnsAttribute, m.k);
}

void Writer::Matrix(const std::string& name, const ScaledMatrix& m) {
  const auto type = std::find_if(std::begin(kScaledTypes), std::end(kScaledTypes),
                                 [&](const ScaledTypeName& t) { return t.code == m.code; });
  const auto scale = std::find_if(std::begin(kFloatTypes), std::end(kFloatTypes),
                                  [&](const FloatTypeName& t) { return t.scale == m.scale_type; });
  Rows(name, type->name, h5::Type::kU8, {m.n, m.CodeRowBytes()}, m.codes, /*mapped=*/true);
  file_.SetAttribute(Path(name), kColumnsAttribute, m.k);
  file_.SetAttribute(Path(name), kBlockRowsAttribute, m.block_n);
  file_.SetAttribute(Path(name), kBlockColumnsAttribute, m.block_k);
  const int64_t count = static_cast<int64_t>(m.scales.size()) / h5::SizeOf(scale->h5);
  Rows(name + kScaleSuffix, scale->name, scale->h5, {count}, m.scales, true);
  if (m.zero_points.empty()) return;
  Rows(name + kZeroPointSuffix, "INT4", h5::Type::kU8, {static_cast<int64_t>(m.zero_points.size())},
       m.zero_points, true);
}

void WriteTensor(ModelSource& source, const ParameterSpec& spec, Writer* writer) {
  const auto matrix = [&](const auto& m) { writer->Matrix(spec.name, m); };
  switch (spec.role) {
    case ParameterRole::kEmbedding:
    case ParameterRole::kHead:
      std::visit(matrix, source.Table(spec));
      break;
    case ParameterRole::kLinear:
      std::visit(matrix, source.Linear(spec));
      break;
    case ParameterRole::kNorm:
    case ParameterRole::kBias:
      writer->Vector(spec.name, source.Vector(spec));
      break;
  }
}

int64_t WriteAll(ModelSource& source, const std::string& path,
                 const std::function<void(int64_t, int64_t)>& progress) {
  Writer writer(path);
  const nlohmann::json json = {
      {"config", ToJson(source.config())},
      {"activation", source.activation() == ActivationRule::kInt8Token ? "int8_token" : "none"},
      {"source", fs::path(source.path()).filename().string()},
      {"decisions", source.decisions()}};
  writer.Bytes(kModelJson, json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  for (const auto& [name, bytes] : source.Files()) writer.Bytes(kFileGroup + name, bytes);
  const std::vector<ParameterSpec> table = ParameterTable(source.config());
  for (size_t i = 0; i < table.size(); ++i) {
    WriteTensor(source, table[i], &writer);
    if (progress) progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(table.size()));
  }
  source.CheckAllUsed();
  writer.Close();
  return writer.tensors();
}

}  // namespace

ModelFileReport WriteModelFile(ModelSource& source, const std::string& path,
                               const std::function<void(int64_t, int64_t)>& progress) {
  const std::string beside = StrCat(path, ".tmp.", ::getpid());
  ModelFileReport report;
  try {
    report.tensors = WriteAll(source, beside, progress);
    SyncPath(beside);
    report.size_bytes = static_cast<int64_t>(fs::file_size(beside));
    fs::rename(beside, path);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove(beside, ignored);
    throw ResourceError(StrCat("cannot put ", path, " in place: ", error.what()));
  } catch (...) {
    std::error_code ignored;
    fs::remove(beside, ignored);
    throw;
  }
  const std::string folder = fs::path(path).parent_path().string();
  SyncPath(folder.empty() ? "." : folder);
  return report;
}

}  // namespace tern::engine
