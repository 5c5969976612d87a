// See gguf_export.h. Metadata keys and tensor names are those that llama.cpp reads
// (docs/formats/gguf.md).
#include "transfer/gguf_export.h"

#include <algorithm>
#include <memory>

#include "arch/format_names.h"
#include "arch/gguf_names.h"
#include "base/error.h"
#include "engine/hf_tokenizer.h"
#include "engine/stop_tokens.h"
#include "formats/gguf.h"
#include "formats/i2_s.h"
#include "kernels/ternary_pack/t2.h"
#include "quant/ternary.h"

namespace tern::transfer {
namespace {

using formats::GgmlType;
using formats::GgufWriter;

// llama.cpp's numbers for the type most weights have (llama_ftype).
constexpr uint32_t kFileTypeF32 = 0, kFileTypeF16 = 1, kFileTypeQ4_0 = 2, kFileTypeQ8_0 = 7,
                   kFileTypeBf16 = 32, kFileTypeTq1 = 36, kFileTypeTq2 = 37,
                   kFileTypeI2s = 40;  // Of Microsoft's fork

GgmlType FloatType(const std::string& word) {
  if (word == "f32") return GgmlType::kF32;
  if (word == "bf16") return GgmlType::kBf16;
  TERN_CHECK(word == "f16", word);
  return GgmlType::kF16;
}

GgmlType LinearType(const std::string& format) {
  if (format == "gguf/tq2_0") return GgmlType::kTq2_0;
  if (format == "gguf/tq1_0") return GgmlType::kTq1_0;
  if (format == "gguf/i2_s") return GgmlType::kI2_S;
  // Of matrices without codes
  if (format == kPackedGguf || format == kModelFile) return GgmlType::kF32;
  return FloatType(format.substr(format.find('/') + 1));
}

uint32_t FileType(GgmlType linear) {
  switch (linear) {
    case GgmlType::kTq1_0:
      return kFileTypeTq1;
    case GgmlType::kTq2_0:
      return kFileTypeTq2;
    case GgmlType::kI2_S:
      return kFileTypeI2s;
    case GgmlType::kF32:
      return kFileTypeF32;
    case GgmlType::kBf16:
      return kFileTypeBf16;
    case GgmlType::kQ4_0:
      return kFileTypeQ4_0;
    case GgmlType::kQ8_0:
      return kFileTypeQ8_0;
    default:
      return kFileTypeF16;
  }
}

// The type that most matrices have; the larger one where they are as many.
GgmlType MostCommon(const LinearCodes& codes) {
  std::map<GgmlType, int> count;
  for (const auto& [name, w] : codes) ++count[*GgufTypeOf(w.format)];
  return count[GgmlType::kQ4_0] > count[GgmlType::kQ8_0] ? GgmlType::kQ4_0 : GgmlType::kQ8_0;
}

uint32_t U32(int64_t value) { return static_cast<uint32_t>(value); }

}  // namespace

GgmlType TableType(const ExportOptions& options, bool ternary) {
  if (options.embedding == "q8_0") return GgmlType::kQ8_0;
  if (!options.embedding.empty()) return FloatType(options.embedding);
  const bool low_bit = ternary || options.format == kPackedGguf;
  return low_bit ? GgmlType::kF16 : LinearType(options.format);
}

void AddGgufModelKeys(const ModelConfig& c, const std::string& name, uint32_t file_type,
                      GgufWriter* writer) {
  const std::string arch = GgufArchName(ChooseGgufArch(c).name);
  const auto key = [&](const char* name) { return StrCat(arch, ".", name); };
  writer->AddString("general.name", name);
  writer->AddU32("general.quantization_version", 2);
  writer->AddU32("general.file_type", file_type);
  writer->AddU32(key("context_length"), U32(c.context_length));
  writer->AddU32(key("embedding_length"), U32(c.hidden_size));
  writer->AddU32(key("block_count"), U32(c.num_layers));
  writer->AddU32(key("feed_forward_length"), U32(c.intermediate_size));
  writer->AddU32(key("attention.head_count"), U32(c.num_heads));
  writer->AddU32(key("attention.head_count_kv"), U32(c.num_kv_heads));
  writer->AddU32(key("attention.key_length"), U32(c.HeadDim()));
  writer->AddU32(key("attention.value_length"), U32(c.HeadDim()));
  writer->AddF32(key("attention.layer_norm_rms_epsilon"), c.norm_eps);
  writer->AddF32(key("rope.freq_base"), c.rope_theta);
  writer->AddU32(key("rope.dimension_count"), U32(c.HeadDim()));
  if (c.rope_scaling.kind == RopeScalingKind::kLinear) {
    writer->AddString(key("rope.scaling.type"), "linear");
    writer->AddF32(key("rope.scaling.factor"), static_cast<float>(c.rope_scaling.factor));
  }
  writer->AddU32(key("vocab_size"), U32(c.vocab_size));
  writer->AddString(kActivationKey, c.linear == LinearKind::kBitLinear ? "int8_token" : "none");
}

namespace {

std::vector<int32_t> Numbers(const std::vector<text::PieceType>& types) {
  std::vector<int32_t> numbers;
  for (const text::PieceType type : types) numbers.push_back(static_cast<int32_t>(type));
  return numbers;
}

// What tokenizer_config.json calls BOS, which texts need not begin with; -1: none.
int32_t NamedBos(const ExportText& text) {
  const auto file = text.files.find("tokenizer_config.json");
  if (text.tokenizer->bos_id() >= 0 || file == text.files.end()) return text.tokenizer->bos_id();
  const std::string name = engine::SpecialTokenText(file->second, "bos_token");
  return name.empty() ? -1 : text.tokenizer->IdOf(name).value_or(-1);
}

// `rows`: of the embedding. llama.cpp wants a token for each, and our reader drops the unused ones
// at the end again.
void AddByteLevel(const ExportText& text, int64_t rows, GgufWriter* writer) {
  const text::Tokenizer& tokenizer = *text.tokenizer;
  text::GgufBpe bpe = tokenizer.ToGgufBpe();
  for (auto id = std::ssize(bpe.tokens); id < rows; ++id) {
    bpe.tokens.push_back(StrCat("[PAD", id, "]"));
    bpe.types.push_back(text::PieceType::kUnused);
  }
  writer->AddString("tokenizer.ggml.model", "gpt2");
  writer->AddString("tokenizer.ggml.pre", bpe.pre);
  writer->AddStrings("tokenizer.ggml.tokens", bpe.tokens);
  writer->AddI32s("tokenizer.ggml.token_type", Numbers(bpe.types));
  writer->AddStrings("tokenizer.ggml.merges", bpe.merges);
  const int32_t bos = NamedBos(text);
  if (bos >= 0) writer->AddU32("tokenizer.ggml.bos_token_id", U32(bos));
  if (tokenizer.eos_id() >= 0)
    writer->AddU32("tokenizer.ggml.eos_token_id", U32(tokenizer.eos_id()));
  for (const int32_t id : engine::ReadHfStopTokens(text.files, "the model", tokenizer)) {
    if (id == tokenizer.eos_id()) continue;
    writer->AddU32("tokenizer.ggml.eot_token_id", U32(id));  // The one key for it
    break;
  }
  writer->AddBool("tokenizer.ggml.add_bos_token", tokenizer.bos_id() >= 0);
  writer->AddBool("tokenizer.ggml.add_eos_token", false);
}

}  // namespace

void AddGgufTokenizer(const ExportText& text, int64_t rows, GgufWriter* writer) {
  const text::PieceTable& table = text.tokenizer->table();
  if (table.kind == text::ModelKind::kJsonBpe) return AddByteLevel(text, rows, writer);
  const std::vector<int32_t> types = Numbers(table.types);
  writer->AddString("tokenizer.ggml.model", "llama");
  writer->AddString("tokenizer.ggml.pre", "default");
  writer->AddStrings("tokenizer.ggml.tokens", table.pieces);
  writer->AddF32s("tokenizer.ggml.scores", table.scores);
  writer->AddI32s("tokenizer.ggml.token_type", types);
  writer->AddU32("tokenizer.ggml.unknown_token_id", U32(table.unk_id));
  writer->AddU32("tokenizer.ggml.bos_token_id", U32(table.bos_id));
  writer->AddU32("tokenizer.ggml.eos_token_id", U32(table.eos_id));
  writer->AddBool("tokenizer.ggml.add_bos_token", true);
  writer->AddBool("tokenizer.ggml.add_eos_token", false);
  writer->AddBool("tokenizer.ggml.add_space_prefix", table.add_space_prefix);
  writer->AddBool("tokenizer.ggml.remove_extra_whitespaces", table.remove_extra_whitespaces);
}

// Llama 3.1's scaling, and any other that is a factor for each pair, is a tensor in GGUF.
void AddGgufRopeFactors(const ModelConfig& c, GgufWriter* writer) {
  const RopeScalingKind kind = c.rope_scaling.kind;
  if (kind != RopeScalingKind::kLlama3 && kind != RopeScalingKind::kFactors) return;
  const std::vector<double> factors = RopeFactors(c.rope_scaling, c.HeadDim(), c.rope_theta);
  const std::vector<float> row(factors.begin(), factors.end());
  const auto count = static_cast<int64_t>(row.size());
  writer->AddTensor("rope_freqs.weight", GgmlType::kF32, {count},
                    [row, count](int64_t, uint8_t* out) {
                      formats::EncodeRow(GgmlType::kF32, row.data(), count, out);
                    });
}

namespace {

// Rows of a float matrix in the wanted type; `permuted`: row r of the file is the model's row that
// PermutedRow sends there.
class RowOrder {
 public:
  RowOrder(int64_t rows, int64_t head_dim, bool permuted) : model_row_(static_cast<size_t>(rows)) {
    for (int64_t r = 0; r < rows; ++r) {
      model_row_[static_cast<size_t>(permuted ? PermutedRow(r, head_dim) : r)] = r;
    }
  }
  int64_t ModelRow(int64_t file_row) const { return model_row_[static_cast<size_t>(file_row)]; }

 private:
  std::vector<int64_t> model_row_;
};

void AddFloats(const std::string& name, GgmlType type, const at::Tensor& value,
               const RowOrder& order, GgufWriter* writer) {
  const int64_t k = value.size(-1);
  writer->AddTensor(name, type, value.sizes().vec(), [=](int64_t row, uint8_t* out) {
    formats::EncodeRow(type, value.const_data_ptr<float>() + order.ModelRow(row) * k, k, out);
  });
}

void AddI2s(const std::string& name, const at::Tensor& latent_NK, const RowOrder& order,
            GgufWriter* writer) {
  const quant::TernaryWeight w = quant::QuantizeTernary(latent_NK);
  const int64_t n = latent_NK.size(0);
  writer->AddTensor(
      name, GgmlType::kI2_S, latent_NK.sizes().vec(), [w, n, order](int64_t, uint8_t* out) {
        std::vector<int8_t> codes(static_cast<size_t>(n * w.k));
        for (int64_t row = 0; row < n; ++row) {
          kernels::UnpackT2Row(
              w.t2_NC.const_data_ptr<uint8_t>() + order.ModelRow(row) * w.t2_NC.size(1), w.k,
              codes.data() + row * w.k);
        }
        const std::vector<uint8_t> bytes = formats::PackI2s(codes, n, w.k, w.beta);
        std::copy(bytes.begin(), bytes.end(), out);
      });
}

void AddTernary(const std::string& name, GgmlType type, const at::Tensor& latent_NK,
                const RowOrder& order, GgufWriter* writer) {
  const quant::TernaryWeight w = quant::QuantizeTernary(latent_NK);
  writer->AddTensor(name, type, latent_NK.sizes().vec(),
                    [w, type, order](int64_t row, uint8_t* out) {
                      std::vector<int8_t> codes(static_cast<size_t>(w.k));
                      const uint8_t* t2 =
                          w.t2_NC.const_data_ptr<uint8_t>() + order.ModelRow(row) * w.t2_NC.size(1);
                      kernels::UnpackT2Row(t2, w.k, codes.data());
                      formats::EncodeTernaryRow(type, codes.data(), w.k, out);
                    });
  const float beta = w.beta;
  writer->AddTensor(ScaleName(name), GgmlType::kF32, {1}, [beta](int64_t, uint8_t* out) {
    formats::EncodeRow(GgmlType::kF32, &beta, 1, out);
  });
}

void AddCodes(const std::string& name, const quant::QuantizedWeight& w, const RowOrder& order,
              GgufWriter* writer) {
  const GgmlType type = *GgufTypeOf(w.format);
  const int64_t k = w.codes_NK.size(1), groups = w.scales.scale_RC.size(1);
  writer->AddTensor(name, type, w.codes_NK.sizes().vec(), [=](int64_t row, uint8_t* out) {
    const int64_t n = order.ModelRow(row);
    formats::EncodeCodes(type, w.codes_NK.const_data_ptr<int8_t>() + n * k,
                         w.scales.scale_RC.const_data_ptr<float>() + n * groups, k, out);
  });
}

}  // namespace

std::optional<GgmlType> GgufTypeOf(const quant::WeightFormat& format) {
  if (format == quant::GgufFormat(4)) return GgmlType::kQ4_0;
  if (format == quant::GgufFormat(8)) return GgmlType::kQ8_0;
  return std::nullopt;
}

void WriteGguf(const model::Decoder& decoder, const ExportText& text, const ExportOptions& options,
               const std::string& path, const LinearCodes& codes) {
  const ModelConfig& config = decoder.config();
  const ArchName arch = ChooseGgufArch(config).name;
  const bool ternary = config.linear == LinearKind::kBitLinear;
  GgufWriter writer(GgufArchName(arch));
  const GgmlType linear = LinearType(options.format), table = TableType(options, ternary);
  AddGgufModelKeys(config, options.name, FileType(codes.empty() ? linear : MostCommon(codes)),
                   &writer);
  if (text.tokenizer != nullptr) AddGgufTokenizer(text, config.vocab_size, &writer);
  const auto chat_template = text.files.find("chat_template.jinja");
  if (chat_template != text.files.end())
    writer.AddString("tokenizer.chat_template", chat_template->second);
  AddGgufRopeFactors(config, &writer);
  for (const model::Parameter& parameter : decoder.parameters()) {
    const std::string name = GgufName(parameter.spec.name);
    const at::Tensor value = parameter.value.detach();
    const int64_t rows = value.dim() == 2 ? value.size(0) : 1;
    const RowOrder order(rows, config.HeadDim(), IsPermuted(arch, parameter.spec.name));
    switch (parameter.spec.role) {
      case ParameterRole::kNorm:
      case ParameterRole::kBias:
        AddFloats(name, GgmlType::kF32, value, order, &writer);
        break;
      case ParameterRole::kEmbedding:
      case ParameterRole::kHead:
        AddFloats(name, table, value, order, &writer);
        break;
      case ParameterRole::kLinear:
        if (const auto found = codes.find(parameter.spec.name); found != codes.end()) {
          AddCodes(name, found->second, order, &writer);
        } else if (linear == GgmlType::kI2_S) {
          AddI2s(name, value, order, &writer);
        } else if (ternary) {
          AddTernary(name, linear, value, order, &writer);
        } else {
          AddFloats(name, linear, value, order, &writer);
        }
        break;
    }
  }
  writer.Write(path);
}

}  // namespace tern::transfer
