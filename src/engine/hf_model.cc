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
#include "engine/gguf_model.h"
#include "engine/hf_config.h"
#include "engine/hf_quantization.h"
#include "engine/scaled_tensors.h"
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

class HfLoader {
 public:
  explicit HfLoader(const std::string& folder) : folder_(folder), tensors_(folder) {
    const std::string path = folder_ + "/config.json";
    const nlohmann::json json = formats::ParseStrictJson(ReadFile(path), path);
    quantization_ = ReadHfQuantization(json, path);
    shape_ = ReadHfConfig(json, path,
                          quantization_.IsTernary() ? LinearKind::kBitLinear : LinearKind::kDense);
  }

  ModelWeights Load() {
    ModelWeights weights;
    weights.source = folder_;
    weights.config = shape_.config;
    weights.extras = shape_.extras;
    FillWeights({[this](const ParameterSpec& spec) { return Floats(spec.name, spec.shape); },
                 [this](const ParameterSpec& spec) { return Table(spec); },
                 [this](const ParameterSpec& spec) { return Linear(spec); }},
                &weights);
    CheckAllUsed(weights.config);
    const std::string tokenizer = folder_ + "/tokenizer.model";
    if (std::filesystem::exists(tokenizer)) {
      weights.tokenizer = text::Tokenizer::FromFile(tokenizer);
      TERN_CHECK_FORMAT(weights.tokenizer->vocab_size() <= weights.config.vocab_size, tokenizer,
                        " has ", weights.tokenizer->vocab_size(), " pieces and the model ",
                        weights.config.vocab_size, " rows; a piece without a row cannot be run");
    } else {
      LogWarn(folder_, " has no tokenizer.model, the only kind of tokenizer this version reads");
    }
    return weights;
  }

 private:
  const SafetensorsTensor& Take(const std::string& name) {
    used_.insert(name);
    return tensors_.Get(name);
  }
  std::string Where(const std::string& name) const { return StrCat(folder_, ": ", name); }

  // A bias that is read by nobody would make another model of this one. transformers, too, skips
  // the copy of a tied head and the buffers of old rotary embeddings.
  void CheckAllUsed(const ModelConfig& config) const {
    for (const auto& [name, tensor] : tensors_.tensors()) {
      const bool skipped =
          (config.tied_head && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq");
      TERN_CHECK_FORMAT(skipped || used_.contains(name), folder_, ": the tensor ", name,
                        " has no place in the model that config.json describes");
    }
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
      std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    } else {
      for (size_t i = 0; i < values.size(); ++i) {
        uint16_t bits;
        std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof bits);
        values[i] = tensor.dtype == "F16" ? formats::Fp16ToFp32(bits) : formats::Bf16ToFp32(bits);
      }
    }
    CheckFinite(values, Where(name));
    return values;
  }

  // 16-bit matrices stay in the file.
  TableMatrix Table(const ParameterSpec& spec) {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    const SafetensorsTensor& tensor = TakeFloats(spec.name, spec.shape);
    if (tensor.dtype == "F32") return DenseMatrix{Floats(spec.name, spec.shape), n, k};
    BlockMatrix matrix{tensor.dtype == "F16" ? GgmlType::kF16 : GgmlType::kBf16, tensor.bytes,
                       tensors_.mapping(), n, k};
    matrix.mapped = true;
    if (reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 2 != 0) {
      // Kernels may want numbers where numbers can be; such files are rare.
      const auto copy =
          std::make_shared<std::vector<std::byte>>(tensor.bytes.begin(), tensor.bytes.end());
      matrix.bytes = *copy;
      matrix.owner = copy;
      matrix.mapped = false;
    }
    CheckFinite(matrix, Where(spec.name));
    return matrix;
  }

  LinearMatrix Linear(const ParameterSpec& spec) {
    if (quantization_.IsTernary()) return Ternary(spec);
    if (quantization_.kind == HfQuantization::Kind::kScaled) {
      if (auto matrix = ReadScaledMatrix(tensors_, quantization_, spec, folder_, &used_))
        return *std::move(matrix);
    }
    return std::visit([](auto matrix) { return LinearMatrix(std::move(matrix)); }, Table(spec));
  }

  TernaryMatrix Ternary(const ParameterSpec& spec) {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    const SafetensorsTensor& tensor = Take(spec.name);
    TERN_CHECK_FORMAT(
        n % 4 == 0 && tensor.dtype == "U8" && tensor.shape == (std::vector<int64_t>{n / 4, k}),
        Where(spec.name), " is no packed U8 [", n / 4, ", ", k, "]");
    const auto codes =
        formats::UnpackHfBitnet(reinterpret_cast<const uint8_t*>(tensor.bytes.data()), n, k);
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

  std::string folder_;
  formats::SafetensorsReader tensors_;
  HfQuantization quantization_;
  HfConfig shape_;
  std::set<std::string> used_;  // Tensors that have found their place
};

}  // namespace

ModelWeights LoadHfFolder(const std::string& folder) { return HfLoader(folder).Load(); }

ModelWeights LoadModel(const std::string& path) {
  if (std::filesystem::is_directory(path)) {
    TERN_CHECK_INPUT(std::filesystem::exists(path + "/config.json"), path,
                     " is a folder without config.json; want a GGUF file or a Hugging Face folder");
    return LoadHfFolder(path);
  }
  return LoadGguf(path);
}

}  // namespace tern::engine
