// OpenModelFile of model_file.h. Metadata through HDF5, tensors through a mapping of the file.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "arch/model_config_json.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/model_file.h"
#include "engine/model_file_names.h"
#include "engine/stop_tokens.h"
#include "engine/weight_table.h"
#include "formats/strict_json.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

constexpr size_t kSliceBytes = 8 << 20;

class ModelFileSource : public ModelSource {
 public:
  explicit ModelFileSource(const std::string& path)
      : file_(h5::File::OpenForReading(path)), mapping_(std::make_shared<MappedFile>(path)) {
    path_ = path;
    TERN_CHECK_FORMAT(file_.HasAttribute("/", "format") &&
                          file_.StringAttribute("/", "format") == kModelFileFormat,
                      path, " is HDF5 and no model file; want one that tern import wrote");
    const int64_t version = file_.IntAttribute("/", "version");
    TERN_CHECK_FORMAT(version == kModelFileVersion, path, " has version ", version, "; want ",
                      kModelFileVersion);
    ReadJson();
  }

  std::vector<float> Vector(const ParameterSpec& spec) override {
    std::vector<float> values = Floats(spec.name, spec.shape);
    CheckFinite(values, Where(spec.name));
    return values;
  }

  TableMatrix Table(const ParameterSpec& spec) override {
    LinearMatrix matrix = Linear(spec);
    if (auto* dense = std::get_if<DenseMatrix>(&matrix)) return std::move(*dense);
    auto* blocks = std::get_if<BlockMatrix>(&matrix);
    TERN_CHECK_FORMAT(blocks != nullptr, Where(spec.name), " is ", TypeOf(spec.name),
                      ", which no embedding and no head is");
    return std::move(*blocks);
  }

  LinearMatrix Linear(const ParameterSpec& spec) override {
    const std::string type = TypeOf(spec.name);
    if (type == "F32") return DenseMatrix{Vector(spec), spec.shape[0], spec.shape[1]};
    if (type == kTernaryType) return Ternary(spec);
    for (const ScaledTypeName& known : kScaledTypes) {
      if (known.name == type) return Scaled(spec, known.code);
    }
    return Blocks(spec, type);
  }

  void DropPages() const override { DropMappedPages(mapping_->bytes()); }

  void CheckAllUsed() const override {
    for (const std::string& name : file_.ListDatasets("/model")) {
      TERN_CHECK_FORMAT(used_.contains(name), path_, ": the tensor ", name,
                        " has no place in the model that its config describes");
    }
  }

  std::optional<text::Tokenizer> Tokenizer() const override {
    return ReadHfTokenizer(Files(), path_, config_.vocab_size);
  }
  std::vector<int32_t> StopTokens(const text::Tokenizer& tokenizer) const override {
    return ReadHfStopTokens(Files(), path_, tokenizer);
  }
  std::optional<text::ChatTemplate> ChatTemplate() const override {
    return ReadHfChatTemplate(Files(), path_);
  }

  ModelFiles Files() const override {
    ModelFiles files;
    if (!file_.Has("/files")) return files;
    for (const std::string& name : file_.ListDatasets("/files"))
      files[name.substr(std::strlen(kFileGroup))] = ReadBytes(name);
    return files;
  }

 private:
  std::string Where(const std::string& name) const { return StrCat(path_, ": ", name); }

  std::string ReadBytes(const std::string& name) const {
    const h5::DatasetInfo info = file_.Info(name);
    TERN_CHECK_FORMAT(info.type == h5::Type::kU8 && info.shape.size() == 1, path_, ": ", name,
                      " is no list of bytes");
    std::string bytes(static_cast<size_t>(info.shape[0]), '\0');
    file_.Read(name, h5::Type::kU8, bytes.data(), info.shape[0]);
    return bytes;
  }

  void ReadJson() {
    const std::string where = path_ + kModelJson;
    const nlohmann::json json = formats::ParseStrictJson(ReadBytes(kModelJson), where);
    TERN_CHECK_FORMAT(json.is_object() && json.contains("config") && json.contains("activation"),
                      where, " has no config and activation");
    const nlohmann::json& rule = json["activation"];
    TERN_CHECK_FORMAT(rule == "int8_token" || rule == "none", where, ": activation is ",
                      rule.dump(), "; want int8_token or none");
    activation_ = rule == "none" ? ActivationRule::kNone : ActivationRule::kInt8Token;
    config_ = ModelConfigFromJson(json["config"]);
    try {
      ValidateModelConfig(config_);
    } catch (const RecipeError& error) {
      throw FormatError(StrCat(where, ": ", error.what()));
    }
  }

  std::string TypeOf(const std::string& name) const {
    const std::string object = kTensorGroup + name;
    TERN_CHECK_FORMAT(file_.Has(object), path_, ": the tensor ", name, " is missing");
    return file_.StringAttribute(object, kTypeAttribute);
  }

  // The bytes of a tensor, whose SHA-256 holds.
  std::span<const std::byte> Mapped(const std::string& name, h5::Type element,
                                    const std::vector<int64_t>& shape) {
    const std::string object = kTensorGroup + name;
    TERN_CHECK_FORMAT(file_.Has(object), path_, ": the tensor ", name, " is missing");
    const h5::DatasetInfo info = file_.Info(object);
    TERN_CHECK_FORMAT(info.type == element && info.shape == shape, Where(name),
                      " has another shape or element type than the config and its type ask for");
    int64_t size = h5::SizeOf(element);
    for (const int64_t extent : shape) size *= extent;
    const int64_t offset = file_.ContiguousOffset(object);
    TERN_CHECK_FORMAT(offset + size <= static_cast<int64_t>(mapping_->bytes().size()), Where(name),
                      " reaches beyond the end of the file");
    const auto bytes =
        mapping_->bytes().subspan(static_cast<size_t>(offset), static_cast<size_t>(size));
    CheckHash(object, bytes);
    used_.insert(object);
    return bytes;
  }

  void CheckHash(const std::string& object, std::span<const std::byte> bytes) const {
    Sha256 hash;
    for (size_t at = 0; at < bytes.size(); at += kSliceBytes) {
      const auto slice = bytes.subspan(at, std::min(kSliceBytes, bytes.size() - at));
      hash.Update(slice.data(), slice.size());
      DropMappedPages(slice);
    }
    const std::string found = hash.HexDigest(),
                      want = file_.StringAttribute(object, kSha256Attribute);
    TERN_CHECK_FORMAT(found == want, path_, ": ", object, " has the SHA-256 ", found, "; want ",
                      want, ". The file is damaged: import it again");
  }

  std::vector<float> Floats(const std::string& name, const std::vector<int64_t>& shape) {
    const auto bytes = Mapped(name, h5::Type::kF32, shape);
    std::vector<float> values(bytes.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  int64_t Columns(const ParameterSpec& spec) const {
    const int64_t k = file_.IntAttribute(kTensorGroup + spec.name, kColumnsAttribute);
    TERN_CHECK_FORMAT(k == spec.shape[1], Where(spec.name), " has ", k, " columns; want ",
                      spec.shape[1]);
    return k;
  }

  TernaryMatrix Ternary(const ParameterSpec& spec) {
    TernaryMatrix matrix;
    matrix.n = spec.shape[0];
    matrix.k = Columns(spec);
    const auto bytes = Mapped(spec.name, h5::Type::kU8, {matrix.n, kernels::T2RowBytes(matrix.k)});
    const auto* codes = reinterpret_cast<const uint8_t*>(bytes.data());
    for (size_t i = 0; i < bytes.size(); ++i) {
      TERN_CHECK_FORMAT((codes[i] & codes[i] >> 1 & 0x55) == 0, Where(spec.name),
                        " holds the byte ", int{codes[i]}, " at ", i,
                        ", a code that is none of -1, 0 and 1");
    }
    matrix.t2.assign(codes, codes + bytes.size());
    matrix.scale = Floats(spec.name + kScaleSuffix, {1}).at(0);
    TERN_CHECK_FORMAT(std::isfinite(matrix.scale) && matrix.scale >= 0, Where(spec.name),
                      " has the scale ", matrix.scale, "; want a number from 0 on");
    return matrix;
  }

  BlockMatrix Blocks(const ParameterSpec& spec, const std::string& type) {
    for (const FloatTypeName& known : kFloatTypes) {
      if (known.name == type) return MappedBlocks(spec, known.ggml, known.h5, spec.shape[1]);
    }
    for (uint32_t number = 0; number < 64; ++number) {
      const auto known = formats::FindGgmlType(number);
      if (!known || known->name != type || !formats::IsReadAsFloats(known->type)) continue;
      const int64_t row_bytes = formats::RowBytes(known->type, Columns(spec));
      return MappedBlocks(spec, known->type, h5::Type::kU8, row_bytes);
    }
    throw FormatError(
        StrCat(Where(spec.name), " is of the type ", type, ", which this version does not know"));
  }

  BlockMatrix MappedBlocks(const ParameterSpec& spec, formats::GgmlType type, h5::Type element,
                           int64_t row_elements) {
    BlockMatrix matrix{type, Mapped(spec.name, element, {spec.shape[0], row_elements}), mapping_,
                       spec.shape[0], spec.shape[1]};
    matrix.mapped = true;
    AlignHalves(&matrix);
    CheckFinite(matrix, Where(spec.name));
    return matrix;
  }

  InputRounding Inputs(const std::string& name) const {
    const std::string object = kTensorGroup + name;
    if (!file_.HasAttribute(object, kInputsAttribute)) return {};
    InputRounding inputs;
    const std::string word = file_.StringAttribute(object, kInputsAttribute);
    for (const InputCodeName& known : kInputCodes)
      if (known.name == word) inputs.code = known.code;
    inputs.group = file_.IntAttribute(object, kInputGroupAttribute);
    const std::string scale = file_.StringAttribute(object, kInputScaleAttribute);
    const auto end = std::from_chars(scale.data(), scale.data() + scale.size(), inputs.scale).ptr;
    const bool number = !scale.empty() && end == scale.data() + scale.size();
    TERN_CHECK_FORMAT(inputs.code != InputRounding::Code::kNone && inputs.group >= 0 && number &&
                          inputs.scale >= 0 && std::isfinite(inputs.scale),
                      Where(name), " has inputs ", word, " in groups of ", inputs.group,
                      " with the scale ", scale,
                      "; want INT8, F8_E4M3 or other, a group of 0 or more, a scale of 0 or more");
    return inputs;
  }

  ScaledMatrix Scaled(const ParameterSpec& spec, ScaledCode code) {
    const std::string object = kTensorGroup + spec.name, scale_name = spec.name + kScaleSuffix;
    ScaledMatrix matrix;
    matrix.code = code;
    matrix.n = spec.shape[0];
    matrix.k = Columns(spec);
    matrix.owner = mapping_;
    matrix.block_n = file_.IntAttribute(object, kBlockRowsAttribute);
    matrix.block_k = file_.IntAttribute(object, kBlockColumnsAttribute);
    TERN_CHECK_FORMAT(matrix.block_n >= 1 && matrix.block_k >= 1, Where(spec.name),
                      " has blocks of ", matrix.block_n, " x ", matrix.block_k,
                      "; want 1 x 1 or more");
    matrix.input = Inputs(spec.name);
    matrix.codes = Mapped(spec.name, h5::Type::kU8, {matrix.n, matrix.CodeRowBytes()});
    const std::string scale_type = TypeOf(scale_name);
    for (const FloatTypeName& known : kFloatTypes) {
      if (known.name != scale_type) continue;
      matrix.scale_type = known.scale;
      const int64_t count = matrix.ScaleBytes() / h5::SizeOf(known.h5);
      matrix.scales = Mapped(scale_name, known.h5, {count});
    }
    TERN_CHECK_FORMAT(!matrix.scales.empty(), Where(scale_name), " is ", scale_type,
                      "; want F32, F16 or BF16");
    const std::string zero_points = spec.name + kZeroPointSuffix;
    if (file_.Has(kTensorGroup + zero_points)) {
      TERN_CHECK_FORMAT(code == ScaledCode::kInt4 && matrix.block_n == 1, Where(zero_points),
                        " stands beside a matrix that has none");
      matrix.zero_points = Mapped(zero_points, h5::Type::kU8, {matrix.ZeroPointBytes()});
    }
    CheckFinite(matrix, Where(spec.name));
    return matrix;
  }

  h5::File file_;
  std::shared_ptr<MappedFile> mapping_;
  std::set<std::string> used_;  // Datasets that have found their place
};

}  // namespace

std::unique_ptr<ModelSource> OpenModelFile(const std::string& path) {
  return std::make_unique<ModelFileSource>(path);
}

bool IsHdf5(const std::string& path) {
  constexpr char kSignature[] = {'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
  char head[sizeof kSignature] = {};
  std::ifstream file(path, std::ios::binary);
  TERN_CHECK_INPUT(file.good(), "cannot open ", path);
  file.read(head, sizeof head);
  return std::memcmp(head, kSignature, sizeof head) == 0;
}

}  // namespace tern::engine
