// See hf_model.h.
#include "engine/hf_model.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/gptq_tensors.h"
#include "engine/hf_config.h"
#include "engine/hf_quantization.h"
#include "engine/json_fields.h"
#include "engine/name_errors.h"
#include "engine/packed_floats.h"
#include "engine/scaled_tensors.h"
#include "engine/stop_tokens.h"
#include "engine/weight_table.h"
#include "formats/half.h"
#include "formats/hf_bitnet.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

using formats::GgmlType;
using formats::SafetensorsTensor;

// The first repositories of 1.58-bit models (1bitLLM) have the sub-norms under names of their own,
// and latents that are quantized when they run.
constexpr const char* kFirstSubNorm = "model.layers.0.self_attn.attn_sub_norm.weight";
constexpr const char* kFirstInnerNorm = "model.layers.0.self_attn.inner_attn_ln.weight";
struct NamePair {
  std::string_view ours, theirs;
};
constexpr NamePair kInnerNorms[] = {{"self_attn.attn_sub_norm", "self_attn.inner_attn_ln"},
                                    {"mlp.ffn_sub_norm", "mlp.ffn_layernorm"}};

// Files that a folder may have beside its tensors and that belong to the model.
constexpr const char* kModelFiles[] = {
    "config.json",           "tokenizer.json",          "tokenizer.model",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja",   "generation_config.json"};
constexpr uintmax_t kMaxModelFileBytes = 64 << 20;

class HfSource : public ModelSource {
 public:
  explicit HfSource(const std::string& folder) : tensors_(folder) {
    path_ = folder;
    const std::string path = folder + "/config.json";
    const nlohmann::json json = formats::ParseStrictJson(ReadFile(path), path);
    quantization_ = ReadHfQuantization(json, path);
    inner_norms_ = tensors_.tensors().contains(kFirstInnerNorm);
    if (inner_norms_) ReadInnerNorms(JsonFields(json, path));
    if (quantization_.IsTernary()) Decide(quantization_.reason);
    config_ = ReadHfConfig(
        json, path,
        {quantization_.IsTernary() ? LinearKind::kBitLinear : LinearKind::kDense, SubNormsOf()});
    const float own_eps = quantization_.own_norm_eps;
    TERN_CHECK_FORMAT(own_eps == 0 || own_eps == config_.norm_eps, path,
                      ": rms_norm_eps of quantization_config is ", own_eps, ", that of the model ",
                      config_.norm_eps, "; this version runs one for all norms");
  }

  std::vector<float> Vector(const ParameterSpec& spec) override {
    return Floats(FileName(spec.name), spec.shape);
  }

  TableMatrix Table(const ParameterSpec& spec) override { return FloatMatrix(spec); }

  LinearMatrix Linear(const ParameterSpec& spec) override {
    if (quantization_.IsPacked()) return Ternary(spec);
    if (quantization_.kind == HfQuantization::Kind::kScaled) {
      if (auto matrix = ReadGptqMatrix(tensors_, quantization_, spec, path_, &used_))
        return *std::move(matrix);
      if (auto matrix = ReadPackedFloats(tensors_, quantization_, spec, path_, &used_))
        return *std::move(matrix);
      if (auto matrix = ReadScaledMatrix(tensors_, quantization_, spec, path_, &used_))
        return *std::move(matrix);
    }
    return std::visit([](auto matrix) { return LinearMatrix(std::move(matrix)); },
                      FloatMatrix(spec));
  }

  void DropPages() const override { tensors_.DropPages(); }

  // A bias that is read by nobody would make another model of this one. transformers, too, skips
  // the copy of a tied head and the buffers of old rotary embeddings.
  void CheckAllUsed() const override {
    for (const auto& [name, tensor] : tensors_.tensors()) {
      const bool skipped =
          (config_.tied_head && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq");
      TERN_CHECK_FORMAT(skipped || used_.contains(name), path_, ": the tensor ", name,
                        " has no place in the model that config.json describes");
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
    for (const char* name : kModelFiles) {
      const std::string path = StrCat(path_, "/", name);
      if (!std::filesystem::exists(path)) continue;
      const uintmax_t size = std::filesystem::file_size(path);
      TERN_CHECK_FORMAT(size <= kMaxModelFileBytes, path, " has ", size, " bytes; want at most ",
                        kMaxModelFileBytes);
      files[name] = ReadFile(path);
    }
    return files;
  }

 private:
  const SafetensorsTensor& Take(const std::string& name) {
    used_.insert(name);
    return tensors_.Get(name);
  }
  std::string Where(const std::string& name) const { return StrCat(path_, ": ", name); }

  SubNorms SubNormsOf() const {
    if (quantization_.own_norm_eps > 0) return SubNorms::kEveryLinear;
    return inner_norms_ || tensors_.tensors().contains(kFirstSubNorm) ? SubNorms::kOutputs
                                                                      : SubNorms::kNone;
  }

  void ReadInnerNorms(const JsonFields& config) {
    const int64_t weight_bits = config.GetOr<int64_t>("weight_bits", 1),
                  input_bits = config.GetOr<int64_t>("input_bits", 8);
    TERN_CHECK_FORMAT(weight_bits == 1 && input_bits == 8, config.where(), ": weight_bits is ",
                      weight_bits, " and input_bits ", input_bits,
                      "; this version runs 1 (ternary) and 8");
    TERN_CHECK_FORMAT(quantization_.kind == HfQuantization::Kind::kNone, config.where(),
                      ": quantization_config beside norms named inner_attn_ln, whose repositories "
                      "hold latents; which of both holds cannot be told");
    quantization_.kind = HfQuantization::Kind::kBitnetLatents;
    quantization_.reason =
        "ternary with sub-norms, stored as latents that are quantized when they run: norms are "
        "named inner_attn_ln and ffn_layernorm";
  }

  std::string FileName(std::string name) const {
    if (!inner_norms_) return name;
    for (const NamePair& pair : kInnerNorms) {
      const size_t at = name.find(pair.ours);
      if (at != std::string::npos) return name.replace(at, pair.ours.size(), pair.theirs);
    }
    return name;
  }

  const SafetensorsTensor& TakeFloats(const std::string& name, const std::vector<int64_t>& shape) {
    const SafetensorsTensor& tensor = Take(name);
    TERN_CHECK_FORMAT(tensor.shape == shape, Where(name),
                      " has another shape than config.json says");
    TERN_CHECK_FORMAT(tensor.dtype == "F16" || tensor.dtype == "BF16" || tensor.dtype == "F32",
                      Where(name), " is ", tensor.dtype, "; want F32, F16 or BF16");
    return tensor;
  }

  std::vector<float> Floats(const std::string& name, const std::vector<int64_t>& shape) {
    const SafetensorsTensor& tensor = TakeFloats(name, shape);
    std::vector<float> values(tensor.bytes.size() /
                              static_cast<size_t>(formats::SafetensorsElementBytes(tensor.dtype)));
    if (tensor.dtype == "F32") {
      CopyMapped(tensor.bytes, values.data());
    } else {
      for (size_t i = 0; i < values.size(); ++i) {
        uint16_t bits;
        std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof bits);
        values[i] = tensor.dtype == "F16" ? formats::Fp16ToFp32(bits) : formats::Bf16ToFp32(bits);
      }
    }
    CheckFinite(values, Where(name));
    DropMappedPages(tensor.bytes);  // Copied: not read again
    return values;
  }

  // 16-bit matrices stay in the file.
  TableMatrix FloatMatrix(const ParameterSpec& spec) {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    const SafetensorsTensor& tensor = TakeFloats(spec.name, spec.shape);
    if (tensor.dtype == "F32") return DenseMatrix{Floats(spec.name, spec.shape), n, k};
    BlockMatrix matrix{tensor.dtype == "F16" ? GgmlType::kF16 : GgmlType::kBf16, tensor.bytes,
                       tensors_.mapping(), n, k};
    matrix.mapped = true;
    AlignHalves(&matrix);
    Check(&matrix, Where(spec.name));
    return matrix;
  }

  TernaryMatrix Ternary(const ParameterSpec& spec) {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    const SafetensorsTensor& tensor = Take(spec.name);
    TERN_CHECK_FORMAT(
        n % 4 == 0 && tensor.dtype == "U8" && tensor.shape == (std::vector<int64_t>{n / 4, k}),
        Where(spec.name), " is no packed U8 [", n / 4, ", ", k, "]");
    const auto codes = NameErrors(Where(spec.name), [&] {
      return formats::UnpackHfBitnet(reinterpret_cast<const uint8_t*>(tensor.bytes.data()), n, k);
    });
    TernaryMatrix matrix;
    matrix.n = n;
    matrix.k = k;
    matrix.t2.resize(static_cast<size_t>(n * kernels::T2RowBytes(k)));
    for (int64_t row = 0; row < n; ++row) {
      kernels::PackT2Row(codes.data() + row * k, k,
                         matrix.t2.data() + row * kernels::T2RowBytes(k));
    }
    const float stored = Floats(spec.name + "_scale", {1}).at(0);
    TERN_CHECK_FORMAT(stored > 0, Where(spec.name), "_scale is ", stored,
                      "; want a number above 0");
    const bool divide = quantization_.kind == HfQuantization::Kind::kBitnetDivide;
    matrix.scale = divide ? 1.0f / stored : stored;
    DropMappedPages(tensor.bytes);  // Repacked: not read again
    return matrix;
  }

  formats::SafetensorsReader tensors_;
  HfQuantization quantization_;
  bool inner_norms_ = false;
  std::set<std::string> used_;  // Tensors that have found their place
};

}  // namespace

std::unique_ptr<ModelSource> OpenHfFolder(const std::string& folder) {
  return std::make_unique<HfSource>(folder);
}

}  // namespace tern::engine
