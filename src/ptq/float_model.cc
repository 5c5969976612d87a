// See float_model.h.
#include "ptq/float_model.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones_like.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"
#include "engine/linear.h"
#include "engine/weight_table.h"
#include "formats/strict_json.h"
#include "transfer/import.h"

namespace tern::ptq {
namespace {

// The tensor keeps the numbers; they are not copied.
at::Tensor TensorOf(std::vector<float> values, const std::vector<int64_t>& shape) {
  const auto owner = std::make_shared<std::vector<float>>(std::move(values));
  const at::Tensor out = at::from_blob(
      owner->data(), shape, [owner](void*) {}, at::TensorOptions(at::kFloat));
  TERN_CHECK(static_cast<int64_t>(owner->size()) == out.numel(), owner->size(), " values");
  return out;
}

// `matrix`: LinearMatrix or TableMatrix.
template <class Matrix>
at::Tensor TensorOfMatrix(Matrix matrix, const std::vector<int64_t>& shape) {
  if (auto* dense = std::get_if<engine::DenseMatrix>(&matrix))
    return TensorOf(std::move(dense->values), shape);
  return TensorOf(engine::ValuesOf(matrix), shape);
}

bool IsFloat(formats::GgmlType type) {
  return type == formats::GgmlType::kF32 || type == formats::GgmlType::kF16 ||
         type == formats::GgmlType::kBf16;
}

}  // namespace

FloatModel::FloatModel(const std::string& path, const std::string& tokenizer, bool allow_requantize)
    : path_(path), allow_requantize_(allow_requantize) {
  if (transfer::IsCheckpoint(path)) {
    transfer::OpenedModel opened = transfer::OpenDecoder(path, tokenizer);
    transfer::CheckPlainInputs(opened.decoder, path + ": the output");
    config_ = opened.decoder.config();
    tokenizer_ = std::move(opened.tokenizer);
    files_ = std::move(opened.files);
    decoder_ = std::make_unique<model::Decoder>(std::move(opened.decoder));
  } else {
    source_ = engine::OpenModel(path);
    config_ = transfer::ConfigWithoutWindows(*source_);
    tokenizer_ = source_->Tokenizer();
    files_ = source_->Files();
    RefuseQuantizedFolder();
    if (!tokenizer.empty()) tokenizer_ = text::Tokenizer::FromFile(tokenizer);
  }
  if (config_.HasInputNorms()) {
    throw InputError(StrCat(path, " has a norm before each linear layer (",
                            ToString(config_.sub_norms),
                            "), which no format that tern quantize writes holds"));
  }
  if (config_.linear == LinearKind::kBitLinear) {
    throw InputError(StrCat(path,
                            " is a ternary model already; tern export writes it as it was "
                            "trained (gguf/tq2_0, hf/bitnet)"));
  }
}

void FloatModel::TakeCompanions(const std::string& model) {
  transfer::ModelInfo info = transfer::ReadModelInfo(model);
  tokenizer_ = std::move(info.tokenizer);
  files_ = std::move(info.files);
}

void FloatModel::RefuseQuantized(const std::string& name, const std::string& how) const {
  if (allow_requantize_) return;
  throw InputError(StrCat(path_, ": ", name, " is quantized already (", how,
                          "); give the 16-bit model, or --allow-requantize to quantize the rounded "
                          "weights once more"));
}

// Some kinds of folders are decoded to floats when they are read, which their matrices then hide.
void FloatModel::RefuseQuantizedFolder() const {
  const auto file = files_.find("config.json");
  if (file == files_.end() || config_.linear == LinearKind::kBitLinear) return;
  const nlohmann::json json = formats::ParseStrictJson(file->second, path_ + "/config.json");
  if (json.contains("quantization_config") && json["quantization_config"].is_object())
    RefuseQuantized("the folder", json["quantization_config"].value("quant_method", "config.json"));
}

at::Tensor FloatModel::ReadLinear(const ParameterSpec& spec) {
  engine::LinearMatrix matrix = source_->Linear(spec);
  if (const auto* blocks = std::get_if<engine::BlockMatrix>(&matrix)) {
    if (!IsFloat(blocks->type))
      RefuseQuantized(spec.name, std::string(formats::InfoOf(blocks->type).name));
  } else if (std::holds_alternative<engine::ScaledMatrix>(matrix) ||
             std::holds_alternative<engine::Int4Matrix>(matrix)) {
    RefuseQuantized(spec.name, "integers or FP8 with scales");
  }
  return TensorOfMatrix(std::move(matrix), spec.shape);
}

void FloatModel::Rotate() {
  rotation_.emplace(config_);
  was_tied_ = config_.tied_head;
  config_ = ModelRotation::ConfigOf(config_);
}

at::Tensor FloatModel::Gain(const std::string& norm) {
  at::Tensor& gain = gains_[norm];
  for (const ParameterSpec& spec : ParameterTable(config_))
    if (!gain.defined() && spec.name == norm) gain = ReadStored(spec);
  TERN_CHECK(gain.defined(), norm);
  return gain;
}

at::Tensor FloatModel::Read(const ParameterSpec& spec) {
  if (!rotation_) return ReadStored(spec);
  if (rotation_->IsFolded(spec.name)) return at::ones_like(Gain(spec.name));
  const std::string norm = rotation_->GainOf(spec.name);
  const bool tied = spec.role == ParameterRole::kHead && was_tied_;
  return rotation_->Rotate(spec.name, ReadStored(tied ? ParameterTable(config_).front() : spec),
                           norm.empty() ? at::Tensor() : Gain(norm));
}

at::Tensor FloatModel::ReadStored(const ParameterSpec& spec) {
  if (decoder_) return decoder_->Get(spec.name).detach();
  switch (spec.role) {
    case ParameterRole::kLinear:
      return ReadLinear(spec);
    case ParameterRole::kEmbedding:
    case ParameterRole::kHead:
      return TensorOfMatrix(source_->Table(spec), spec.shape);
    case ParameterRole::kNorm:
    case ParameterRole::kBias:
      return TensorOf(source_->Vector(spec), spec.shape);
  }
  throw BugError("no such role");
}

void FloatModel::ReadRows(const ParameterSpec& spec, int64_t bytes,
                          const std::function<void(const at::Tensor& rows_RK)>& see) {
  const int64_t n = spec.shape[0], k = spec.Count() / n;
  const int64_t rows = std::max<int64_t>(1, bytes / (k * int64_t{sizeof(float)}));
  const bool table = spec.role == ParameterRole::kEmbedding || spec.role == ParameterRole::kHead;
  std::optional<engine::TableMatrix> stored;
  if (table && source_ && !rotation_) stored = source_->Table(spec);
  at::Tensor whole;
  if (!stored) {
    whole = Read(spec).contiguous();
  } else if (std::holds_alternative<engine::DenseMatrix>(*stored)) {
    whole = TensorOfMatrix(*std::exchange(stored, std::nullopt), spec.shape);
  }
  for (int64_t begin = 0; begin < n; begin += rows) {
    const int64_t count = std::min(rows, n - begin);
    if (whole.defined()) {
      see(whole.slice(0, begin, begin + count));
      continue;
    }
    const at::Tensor rows_RK = at::empty({count, k}, at::kFloat);
    for (int64_t i = 0; i < count; ++i)
      engine::CopyRow(*stored, begin + i, rows_RK.mutable_data_ptr<float>() + i * k);
    source_->DropPages();
    see(rows_RK);
  }
}

void FloatModel::Skip(const ParameterSpec& spec) {
  if (!source_) return;
  if (spec.role == ParameterRole::kLinear) {
    source_->Linear(spec);  // Maps it, decodes nothing.
  } else {
    source_->Vector(spec);
  }
}

void FloatModel::Embed(const at::Tensor& tokens_BT, const at::Tensor& x_BTD,
                       const std::function<void(at::Tensor x_TD)>& done) {
  std::optional<engine::TableMatrix> table;
  if (source_) table = source_->Table(ParameterTable(config_).front());
  const int64_t t = tokens_BT.size(1), d = config_.hidden_size;
  for (int64_t b = 0; b < tokens_BT.size(0); ++b) {
    at::Tensor x_TD = x_BTD[b];
    const int64_t* ids = tokens_BT[b].const_data_ptr<int64_t>();
    if (decoder_) x_TD.copy_(at::embedding(decoder_->parameters().front().value, tokens_BT[b]));
    for (int64_t i = 0; table && i < t; ++i)
      engine::CopyRow(*table, ids[i], x_TD.mutable_data_ptr<float>() + i * d);
    if (rotation_) x_TD.copy_(rotation_->RotateStream(x_TD));
    if (done) done(x_TD);
  }
}

bool FloatModel::DecodesTables() {
  if (!source_ || rotation_) return true;
  const ParameterSpec spec = ParameterTable(config_).front();
  return std::holds_alternative<engine::DenseMatrix>(source_->Table(spec));
}

void FloatModel::DropPages() const {
  if (source_) source_->DropPages();
}

void FloatModel::CheckAllUsed() const {
  if (source_) source_->CheckAllUsed();
}

}  // namespace tern::ptq
