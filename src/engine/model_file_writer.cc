// WriteModelFile of model_file.h. A tensor goes in slices of a few MB: its values are looked at, it
// is written, and it is hashed on a thread that may be some slices behind (hash_queue.h), which
// then gives the source's pages back. So each page is read from the source once, and what takes
// longest, the hash, never stands still.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "arch/model_config_json.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash_queue.h"
#include "engine/model_file.h"
#include "engine/model_file_names.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kSliceBytes = 2 << 20;  // About what a second-level cache holds
constexpr size_t kWaitingBytes = 32 << 20;
constexpr int64_t kWritebackBytes = 8 << 20;  // Fewer at once would make many small requests

class Writer {
 public:
  explicit Writer(const std::string& path)
      : file_(h5::File::Create(path, kTensorAlignment)), hashes_(kWaitingBytes) {
    file_.SetAttribute("/", "format", std::string(kModelFileFormat));
    file_.SetAttribute("/", "version", kModelFileVersion);
  }

  void Bytes(const std::string& name, std::string_view bytes) {
    file_.Write(name, h5::Type::kU8, {static_cast<int64_t>(bytes.size())}, bytes.data());
  }

  void Vector(const std::string& name, std::vector<float> values) {
    const auto kept = std::make_shared<const std::vector<float>>(std::move(values));
    Rows(name, "F32", h5::Type::kF32, {static_cast<int64_t>(kept->size())},
         std::as_bytes(std::span(*kept)), [kept](Span) {});
  }
  void Matrix(const std::string& name, const DenseMatrix& m) {
    Rows(name, "F32", h5::Type::kF32, {m.n, m.k}, std::as_bytes(std::span(m.values)));
  }
  void Matrix(const std::string& name, const TernaryMatrix& m) {
    Rows(name, kTernaryType, h5::Type::kU8, {m.n, kernels::T2RowBytes(m.k)},
         std::as_bytes(std::span(m.t2)));
    file_.SetAttribute(Path(name), kColumnsAttribute, m.k);
    Vector(name + kScaleSuffix, {m.scale});
  }
  void Matrix(const std::string& name, const BlockMatrix& m);
  void Matrix(const std::string& name, const ScaledMatrix& m);
  // Nothing where inputs stay as they are.
  void Inputs(const std::string& name, const InputRounding& inputs);
  void Matrix(const std::string& name, const Int4Matrix&) {
    throw BugError(name + " is repacked, which no source stores");
  }

  int64_t tensors() const { return static_cast<int64_t>(tensors_.size()); }
  // REQUIRES: nothing is written after.
  void Close();

 private:
  using Span = std::span<const std::byte>;
  // What becomes of bytes that are written and hashed; called on the hash's thread.
  using Done = std::function<void(Span)>;
  struct Slice {
    Span bytes;
    std::function<void()> done;
  };
  struct Tensor {
    std::string path;
    std::future<std::string> sha256;
  };

  static std::string Path(const std::string& name) { return kTensorGroup + name; }

  // `bytes`: all rows of a tensor of that shape, in order. done(bytes up to the end of what is
  // hashed); without it the bytes need not live longer than the call.
  void Rows(const std::string& name, std::string_view type, h5::Type element,
            const std::vector<int64_t>& shape, Span bytes, const Done& done = nullptr);
  // slice(first, count): `count` rows from `first` on.
  void Slices(const std::string& name, std::string_view type, h5::Type element,
              const std::vector<int64_t>& shape, int64_t row_bytes,
              const std::function<Slice(int64_t first, int64_t count)>& slice);

  h5::File file_;
  std::vector<Tensor> tensors_;
  int64_t unwritten_bytes_ = 0;  // Since the system was asked to begin writing
  HashQueue hashes_;             // Last: its thread ends first
};

void Writer::Slices(const std::string& name, std::string_view type, h5::Type element,
                    const std::vector<int64_t>& shape, int64_t row_bytes,
                    const std::function<Slice(int64_t first, int64_t count)>& slice) {
  const std::string path = Path(name);
  file_.CreateContiguous(path, element, shape);
  const int64_t step = std::max<int64_t>(1, kSliceBytes / std::max<int64_t>(1, row_bytes));
  for (int64_t first = 0; first < shape[0]; first += step) {
    const int64_t count = std::min(step, shape[0] - first);
    Slice part = slice(first, count);
    const auto size = static_cast<int64_t>(part.bytes.size());
    TERN_CHECK(size == count * row_bytes, name, ": ", size, " bytes");
    file_.WriteRows(path, element, first, count, part.bytes.data());
    hashes_.Add(part.bytes, std::move(part.done));
    unwritten_bytes_ += size;
    if (unwritten_bytes_ < kWritebackBytes) continue;
    file_.StartWriteback();
    unwritten_bytes_ = 0;
  }
  file_.SetAttribute(path, kTypeAttribute, std::string(type));
  tensors_.push_back({path, hashes_.End()});
}

void Writer::Close() {
  for (Tensor& tensor : tensors_)
    file_.SetAttribute(tensor.path, kSha256Attribute, tensor.sha256.get());
  file_.Close();
}

void Writer::Rows(const std::string& name, std::string_view type, h5::Type element,
                  const std::vector<int64_t>& shape, Span bytes, const Done& done) {
  // Bytes that are the caller's are hashed when this returns, also by an exception.
  auto wait = [](HashQueue* queue) { queue->Wait(); };
  const std::unique_ptr<HashQueue, decltype(wait)> hashed(done ? nullptr : &hashes_, wait);
  const int64_t row_bytes = static_cast<int64_t>(bytes.size()) / shape[0];
  Slices(name, type, element, shape, row_bytes, [&](int64_t first, int64_t count) {
    const Span part = bytes.subspan(static_cast<size_t>(first * row_bytes),
                                    static_cast<size_t>(count * row_bytes));
    if (!done) return Slice{part, nullptr};
    return Slice{part, [done, seen = bytes.first(static_cast<size_t>((first + count) *
                                                                     row_bytes))] { done(seen); }};
  });
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
  // The model's order of rows, whatever the source's is
  const bool copied = m.paired_head_dim != 0;
  Slices(name, info.name, element, shape, row_bytes, [&](int64_t first, int64_t count) {
    if (!m.unchecked.empty()) CheckFiniteRows(m, first, count, m.unchecked);
    const auto size = static_cast<size_t>(count * row_bytes);
    if (!copied) {
      const auto begin = static_cast<size_t>(first * row_bytes);
      return Slice{m.bytes.subspan(begin, size),
                   [seen = m.bytes.first(begin + size), owner = m.owner, mapped = m.mapped] {
                     if (mapped) DropMappedPages(seen);
                   }};
    }
    const auto rows = std::make_shared<std::vector<std::byte>>(size);
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(rows->data() + i * row_bytes, m.Row(first + i), static_cast<size_t>(row_bytes));
    return Slice{*rows, [rows] {}};
  });
  if (copied && m.mapped) DropMappedPages(m.bytes);
  if (element == h5::Type::kU8) file_.SetAttribute(Path(name), kColumnsAttribute, m.k);
}

void Writer::Inputs(const std::string& name, const InputRounding& inputs) {
  for (const InputCodeName& known : kInputCodes) {
    if (known.code != inputs.code) continue;
    char scale[32];
    const auto end = std::to_chars(scale, std::end(scale), inputs.scale).ptr;
    file_.SetAttribute(Path(name), kInputsAttribute, std::string(known.name));
    file_.SetAttribute(Path(name), kInputGroupAttribute, inputs.group);
    file_.SetAttribute(Path(name), kInputScaleAttribute, std::string(scale, end));
  }
}

void Writer::Matrix(const std::string& name, const ScaledMatrix& m) {
  const auto type = std::find_if(std::begin(kScaledTypes), std::end(kScaledTypes),
                                 [&](const ScaledTypeName& t) { return t.code == m.code; });
  const auto scale = std::find_if(std::begin(kFloatTypes), std::end(kFloatTypes),
                                  [&](const FloatTypeName& t) { return t.scale == m.scale_type; });
  const auto rows = [&](const std::string& of, std::string_view type_name, h5::Type element,
                        const std::vector<int64_t>& shape, Span bytes) {
    Rows(of, type_name, element, shape, bytes,
         [owner = m.owner](Span seen) { DropMappedPages(seen); });
  };
  rows(name, type->name, h5::Type::kU8, {m.n, m.CodeRowBytes()}, m.codes);
  file_.SetAttribute(Path(name), kColumnsAttribute, m.k);
  file_.SetAttribute(Path(name), kBlockRowsAttribute, m.block_n);
  file_.SetAttribute(Path(name), kBlockColumnsAttribute, m.block_k);
  Inputs(name, m.input);
  const int64_t count = static_cast<int64_t>(m.scales.size()) / h5::SizeOf(scale->h5);
  rows(name + kScaleSuffix, scale->name, scale->h5, {count}, m.scales);
  if (m.zero_points.empty()) return;
  rows(name + kZeroPointSuffix, "INT4", h5::Type::kU8, {static_cast<int64_t>(m.zero_points.size())},
       m.zero_points);
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
  source.LeaveUnchecked();
  Writer writer(path);
  const nlohmann::json json = {
      {"config", ToJson(source.config())},
      {"activation", source.activation() == ActivationRule::kInt8Token ? "int8_token" : "none"},
      {"source", fs::path(source.path()).filename().string()},
      {"decisions", source.decisions()}};
  writer.Bytes(kModelJson, json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  // Making a tokenizer.json of a GGUF's vocabulary takes as long as 100 MB of tensors. Files that
  // are read are read here: those of a model file by HDF5, which is one thread's at a time.
  std::future<ModelFiles> files =
      std::async(source.MakesFiles() ? std::launch::async : std::launch::deferred,
                 [&source] { return source.Files(); });
  const std::vector<ParameterSpec> table = ParameterTable(source.config());
  for (size_t i = 0; i < table.size(); ++i) {
    WriteTensor(source, table[i], &writer);
    if (progress) progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(table.size()));
  }
  source.CheckAllUsed();
  for (const auto& [name, bytes] : files.get()) writer.Bytes(kFileGroup + name, bytes);
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
