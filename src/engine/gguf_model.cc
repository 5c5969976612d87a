// See gguf_model.h.
#include "engine/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "arch/gguf_names.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "engine/gguf_config.h"
#include "engine/gguf_tokenizer.h"
#include "engine/name_errors.h"
#include "engine/stop_tokens.h"
#include "engine/weight_table.h"
#include "formats/gguf.h"
#include "formats/i2_s.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

using formats::GgmlType;
using formats::GgufReader;
using formats::GgufTensor;

bool IsTernary(GgmlType type) {
  return type == GgmlType::kTq1_0 || type == GgmlType::kTq2_0 || type == GgmlType::kI2_S;
}

class GgufSource : public ModelSource {
 public:
  explicit GgufSource(const std::string& path)
      : file_(path), arch_name_(file_.String("general.architecture")) {
    path_ = path;
    arch_ = ArchFromGgufName(arch_name_);
    TERN_CHECK_FORMAT(arch_ != ArchName::kNone, path, ": the architecture is ", arch_name_,
                      "; this version runs llama, qwen2, qwen3, bitnet and bitnet-b1.58");
    const bool ternary =
        std::any_of(file_.tensors().begin(), file_.tensors().end(),
                    [](const GgufTensor& tensor) { return IsTernary(tensor.type); });
    config_ = ReadGgufConfig(file_, arch_, ternary ? LinearKind::kBitLinear : LinearKind::kDense);
    ReadRopeFactors();
    activation_ = Rule();
  }

  std::vector<float> Vector(const ParameterSpec& spec) override { return Floats(Checked(spec)); }

  TableMatrix Table(const ParameterSpec& spec) override {
    const GgufTensor& tensor = Checked(spec);
    BlockMatrix blocks{tensor.type, tensor.bytes, file_.mapping(), spec.shape[0], spec.shape[1]};
    blocks.mapped = true;
    if (IsPermuted(arch_, spec.name)) blocks.paired_head_dim = config_.HeadDim();
    if (tensor.type != GgmlType::kF32) {
      Check(&blocks, Where(tensor));
      return blocks;
    }
    CheckFinite(blocks, Where(tensor));
    DenseMatrix dense{{}, blocks.n, blocks.k};
    dense.values.resize(static_cast<size_t>(blocks.n * blocks.k));
    for (int64_t row = 0, kept = 0; row < blocks.n; ++row) {
      blocks.Decode(row, dense.values.data() + row * blocks.k);
      kept += blocks.k * int64_t{sizeof(float)};
      if (kept < kMappedPiece && row + 1 < blocks.n) continue;
      DropMappedPages(tensor.bytes);  // Copied: not read again
      kept = 0;
    }
    return dense;
  }

  LinearMatrix Linear(const ParameterSpec& spec) override {
    const GgufTensor& tensor = Find(spec);
    if (tensor.type == GgmlType::kI2_S) return I2sLinear(spec, Checked(spec));
    if (IsTernary(tensor.type)) return Ternary(spec, Checked(spec));
    return std::visit([](auto matrix) { return LinearMatrix(std::move(matrix)); }, Table(spec));
  }

  void DropPages() const override { file_.DropPages(); }

  // A bias or a RoPE factor that is read by nobody would make another model of this one.
  void CheckAllUsed() const override {
    for (const GgufTensor& tensor : file_.tensors()) {
      TERN_CHECK_FORMAT(used_.contains(tensor.name), file_.path(), ": the tensor ",
                        EscapeControls(tensor.name), " has no place in a ", arch_name_,
                        " model as this version runs it");
    }
  }

  std::optional<text::Tokenizer> Tokenizer() const override {
    return ReadGgufTokenizer(file_, config_.vocab_size);
  }

  std::vector<int32_t> StopTokens(const text::Tokenizer& tokenizer) const override {
    return ReadGgufStopTokens(file_, tokenizer);
  }
  std::optional<text::ChatTemplate> ChatTemplate() const override {
    return ReadGgufChatTemplate(file_);
  }

  bool MakesFiles() const override { return true; }
  ModelFiles Files() const override {
    ModelFiles files;
    if (const auto tokenizer = Tokenizer()) {
      const bool json = tokenizer->table().kind == text::ModelKind::kJsonBpe;
      files[json ? "tokenizer.json" : "tokenizer.model"] = tokenizer->serialized();
      nlohmann::json ends = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
      // Templates may write a BOS that texts do not begin with.
      for (const auto& [name, key] : {std::pair("bos_token", "tokenizer.ggml.bos_token_id"),
                                      {"eos_token", "tokenizer.ggml.eos_token_id"}}) {
        const int64_t id = file_.Has(key) ? file_.Int(key) : -1;
        if (id >= 0 && id < tokenizer->vocab_size())
          ends[name] = tokenizer->piece(static_cast<int32_t>(id));
      }
      if (json) files["tokenizer_config.json"] = ends.dump(2);
      const std::vector<int32_t> stops = StopTokens(*tokenizer);
      if (stops.size() > 1)
        files["generation_config.json"] = nlohmann::json({{"eos_token_id", stops}}).dump(2);
    }
    constexpr const char* kTemplate = "tokenizer.chat_template";
    if (file_.Has(kTemplate)) files["chat_template.jinja"] = file_.String(kTemplate);
    return files;
  }

 private:
  ActivationRule Rule() {
    if (file_.Has(kActivationKey)) {
      const std::string rule = file_.String(kActivationKey);
      if (rule == "int8_token") return ActivationRule::kInt8Token;
      TERN_CHECK_FORMAT(rule == "none", file_.path(), ": ", kActivationKey, " is ", rule,
                        "; want int8_token or none");
      return ActivationRule::kNone;
    }
    if (config_.linear == LinearKind::kDense) return ActivationRule::kNone;
    const bool i2s = std::any_of(file_.tensors().begin(), file_.tensors().end(),
                                 [](const GgufTensor& t) { return t.type == GgmlType::kI2_S; });
    if (i2s) return ActivationRule::kInt8Token;  // The one way in which its program runs it
    Decide(StrCat("activations stay floats: the file does not say how they are quantized (",
                  kActivationKey, ")"));
    return ActivationRule::kNone;
  }

  const GgufTensor& Find(const ParameterSpec& spec) const { return file_.Get(GgufName(spec.name)); }
  const GgufTensor& Checked(const ParameterSpec& spec) {
    return Checked(spec, GgufName(spec.name));
  }
  const GgufTensor& Checked(const ParameterSpec& spec, const std::string& name) {
    const GgufTensor& tensor = file_.Get(name);
    used_.insert(tensor.name);
    const auto shown = [](const std::vector<int64_t>& shape) {
      std::string text;
      for (const int64_t size : shape) text += StrCat(text.empty() ? "" : ", ", size);
      return StrCat("[", text, "]");
    };
    TERN_CHECK_FORMAT(tensor.shape == spec.shape, file_.path(), ": ", tensor.name, " is ",
                      shown(tensor.shape), "; want ", shown(spec.shape));
    return tensor;
  }

  std::string Where(const GgufTensor& tensor) const {
    return StrCat(file_.path(), ": ", tensor.name);
  }

  std::vector<float> Floats(const GgufTensor& tensor) const {
    std::vector<float> values(static_cast<size_t>(tensor.row_elements()));
    formats::DecodeRow(tensor.type, tensor.row(0), tensor.row_elements(), values.data());
    CheckFinite(values, Where(tensor));
    return values;
  }

  // Llama 3.1's own scaling comes as a tensor, beside the one of the keys.
  void ReadRopeFactors() {
    constexpr const char* kName = "rope_freqs.weight";
    if (arch_ != ArchName::kLlama || file_.Find(kName) == nullptr) return;
    const GgufTensor& tensor =
        Checked({kName, {config_.HeadDim() / 2}, ParameterRole::kNorm}, kName);
    const std::vector<float> values = Floats(tensor);
    std::vector<double> factors(values.begin(), values.end());
    for (size_t i = 0; i < factors.size(); ++i) {
      TERN_CHECK_FORMAT(factors[i] > 0, Where(tensor), " holds ", factors[i], " at ", i,
                        "; want numbers above 0");
      factors[i] *= config_.rope_scaling.factor;  // 1 without a scaling by keys
    }
    config_.rope_scaling = ScalingOfFactors(std::move(factors), config_.rope_theta);
    if (config_.rope_scaling.kind == RopeScalingKind::kLlama3) {
      Decide(StrCat("RoPE is scaled as Llama 3.1 by ", config_.rope_scaling.factor, ": ", kName,
                    " holds its factors"));
    }
  }

  // Row of the file that holds row `row` of the matrix.
  int64_t FileRow(const ParameterSpec& spec, int64_t row) const {
    return IsPermuted(arch_, spec.name) ? PermutedRow(row, config_.HeadDim()) : row;
  }

  // A row of TQ1_0 or TQ2_0 as T2; returns its d. codes: [k], for its own use.
  static float PackRow(GgmlType type, const uint8_t* row, int64_t k, int8_t* codes, uint8_t* t2) {
    if (type == GgmlType::kTq2_0) return formats::CopyTq2Planes(row, k, t2);
    const float d = formats::DecodeTernaryRow(type, row, k, codes);
    kernels::PackT2Row(codes, k, t2);
    return d;
  }

  TernaryMatrix Ternary(const ParameterSpec& spec, const GgufTensor& tensor) {
    TernaryMatrix matrix;
    matrix.n = spec.shape[0];
    matrix.k = spec.shape[1];
    matrix.t2.resize(static_cast<size_t>(matrix.n * kernels::T2RowBytes(matrix.k)));
    std::vector<int8_t> codes(static_cast<size_t>(matrix.k));
    float d = 1;
    const std::string where = Where(tensor);
    for (int64_t n = 0; n < matrix.n; ++n) {
      const float row_d = NameErrors(where, [&] {
        return PackRow(tensor.type, tensor.row(FileRow(spec, n)), matrix.k, codes.data(),
                       matrix.t2.data() + n * kernels::T2RowBytes(matrix.k));
      });
      TERN_CHECK_FORMAT(std::isfinite(row_d) && row_d >= 0, file_.path(),
                        ": the scale of the blocks of ", tensor.name, " is ", row_d,
                        "; want a number from 0 on");
      TERN_CHECK_FORMAT(n == 0 || row_d == d, file_.path(), ": the blocks of ", tensor.name,
                        " have different scales, ", d, " and, from row ", n, " on, ", row_d,
                        "; a ternary matrix has one");
      d = row_d;
    }
    matrix.scale = d * Scale(tensor.name, d);
    DropMappedPages(tensor.bytes);  // Repacked: not read again
    return matrix;
  }

  // I2_S carries its scale behind its rows.
  TernaryMatrix I2sLinear(const ParameterSpec& spec, const GgufTensor& tensor) const {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    const formats::I2sMatrix file = NameErrors(Where(tensor), [&] {
      return formats::UnpackI2s(
          {reinterpret_cast<const uint8_t*>(tensor.bytes.data()), tensor.bytes.size()}, n, k);
    });
    TernaryMatrix matrix;
    matrix.n = n;
    matrix.k = k;
    matrix.scale = file.scale;
    matrix.t2.resize(static_cast<size_t>(n * kernels::T2RowBytes(k)));
    for (int64_t row = 0; row < n; ++row) {
      kernels::PackT2Row(file.codes.data() + FileRow(spec, row) * k, k,
                         matrix.t2.data() + row * kernels::T2RowBytes(k));
    }
    DropMappedPages(tensor.bytes);
    return matrix;
  }

  // The fp32 factor beside the blocks' d: `blk.0.attn_q.scale`, as llama.cpp reads it, or
  // `blk.0.attn_q.weight.scale`.
  float Scale(const std::string& tensor_name, float d) {
    const std::string name = ScaleName(tensor_name);
    const GgufTensor* scale = file_.Find(name);
    if (scale == nullptr) scale = file_.Find(tensor_name + ".scale");
    if (scale == nullptr) {
      // d = 1 everywhere and no scale: a writer forgot it, and the model would compute garbage.
      TERN_CHECK_FORMAT(d != 1.0f, file_.path(), ": ", name,
                        " is missing, and the blocks' own scale is 1");
      return 1.0f;
    }
    used_.insert(scale->name);
    TERN_CHECK_FORMAT(scale->type == GgmlType::kF32 && scale->rows() * scale->row_elements() == 1,
                      file_.path(), ": ", scale->name, " is not one F32 number");
    float value = 0;
    formats::DecodeRow(GgmlType::kF32, scale->row(0), 1, &value);
    TERN_CHECK_FORMAT(std::isfinite(value) && value > 0, file_.path(), ": ", scale->name, " is ",
                      value, "; want a number above 0");
    return value;
  }

  GgufReader file_;
  std::string arch_name_;
  ArchName arch_ = ArchName::kNone;
  std::set<std::string> used_;  // Tensors that have found their place
};

}  // namespace

std::unique_ptr<ModelSource> OpenGguf(const std::string& path) {
  return std::make_unique<GgufSource>(path);
}

}  // namespace tern::engine
