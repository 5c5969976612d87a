// See model_file_export.h.
#include "transfer/model_file_export.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "engine/model_file.h"
#include "quant/ternary.h"
#include "transfer/gguf_export.h"
#include "transfer/hf_export.h"

namespace tern::transfer {
namespace {

std::vector<float> ValuesOf(const at::Tensor& value) {
  const at::Tensor flat = value.detach().contiguous();
  const float* begin = flat.const_data_ptr<float>();
  return {begin, begin + flat.numel()};
}

engine::TernaryMatrix Codes(const at::Tensor& latent_NK) {
  const quant::TernaryWeight w = quant::QuantizeTernary(latent_NK.detach());
  engine::TernaryMatrix matrix;
  matrix.scale = w.beta;
  matrix.n = latent_NK.size(0);
  matrix.k = latent_NK.size(1);
  matrix.t2.resize(static_cast<size_t>(w.t2_NC.numel()));
  std::memcpy(matrix.t2.data(), w.t2_NC.const_data_ptr<uint8_t>(), matrix.t2.size());
  return matrix;
}

engine::TableMatrix Encoded(const at::Tensor& value_NK, formats::GgmlType type) {
  const at::Tensor value = value_NK.detach();
  const int64_t n = value.size(0), k = value.size(1), row_bytes = formats::RowBytes(type, k);
  if (type == formats::GgmlType::kF32) return engine::DenseMatrix{ValuesOf(value), n, k};
  auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(n * row_bytes));
  for (int64_t row = 0; row < n; ++row) {
    formats::EncodeRow(type, value.const_data_ptr<float>() + row * k, k,
                       reinterpret_cast<uint8_t*>(bytes->data()) + row * row_bytes);
  }
  return engine::BlockMatrix{type, *bytes, bytes, n, k};
}

// The decoder as if it had been read from a file.
class DecoderSource : public engine::ModelSource {
 public:
  DecoderSource(const model::Decoder& decoder, const ExportText& text, const ExportOptions& options)
      : decoder_(decoder),
        files_(CompanionFiles(text, decoder.config().context_length)),
        table_(TableType(options, decoder.config().linear == LinearKind::kBitLinear)) {
    config_ = decoder.config();
    path_ = options.name;
  }

  std::vector<float> Vector(const ParameterSpec& spec) override {
    return ValuesOf(decoder_.Get(spec.name));
  }
  engine::TableMatrix Table(const ParameterSpec& spec) override {
    return Encoded(decoder_.Get(spec.name), table_);
  }
  engine::LinearMatrix Linear(const ParameterSpec& spec) override {
    const at::Tensor& value = decoder_.Get(spec.name);
    if (config_.linear == LinearKind::kBitLinear) return Codes(value);
    return engine::DenseMatrix{ValuesOf(value), value.size(0), value.size(1)};
  }
  void DropPages() const override {}
  void CheckAllUsed() const override {}

  // Of a source that is written, none of these is asked for but its files.
  std::optional<text::Tokenizer> Tokenizer() const override { return std::nullopt; }
  std::optional<text::ChatTemplate> ChatTemplate() const override { return std::nullopt; }
  std::vector<int32_t> StopTokens(const text::Tokenizer&) const override { return {}; }
  engine::ModelFiles Files() const override { return files_; }

 private:
  const model::Decoder& decoder_;
  engine::ModelFiles files_;
  formats::GgmlType table_;
};

}  // namespace

void WriteDecoder(const model::Decoder& decoder, const ExportText& text,
                  const ExportOptions& options, const std::string& path) {
  DecoderSource source(decoder, text, options);
  engine::WriteModelFile(source, path);
}

}  // namespace tern::transfer
