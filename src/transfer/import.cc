// See import.h.
#include "transfer/import.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "engine/weight_table.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/ternary_quantize.h"
#include "model/checkpoint_io.h"
#include "qat/quantized_model.h"
#include "quant/ternary.h"

namespace tern::transfer {
namespace {

namespace fs = std::filesystem;

std::string TokenizerAbove(const std::string& checkpoint) {
  const auto start = fs::absolute(checkpoint).lexically_normal();
  for (auto at = start; at != at.parent_path(); at = at.parent_path()) {
    if (fs::exists(at / "tokenizer.model")) return (at / "tokenizer.model").string();
  }
  throw UsageError(
      StrCat("found no tokenizer.model above ", checkpoint, "; name it with --tokenizer"));
}

void CopyInto(const std::vector<float>& values, const at::Tensor& out) {
  TERN_CHECK(static_cast<int64_t>(values.size()) == out.numel(), values.size(), " values");
  std::memcpy(out.mutable_data_ptr<float>(), values.data(), values.size() * sizeof(float));
}

at::Tensor DequantizedOf(const engine::TernaryMatrix& matrix) {
  at::Tensor w_NK = at::empty({matrix.n, matrix.k}, at::kFloat);
  kernels::DequantizeT2(matrix.t2.data(), 0, matrix.n, matrix.k, matrix.scale,
                        w_NK.mutable_data_ptr<float>(), matrix.k);
  return w_NK;
}

void ReadLinear(engine::ModelSource& source, const model::Parameter& parameter, bool ternary) {
  const engine::LinearMatrix matrix = source.Linear(parameter.spec);
  if (const auto* codes = std::get_if<engine::TernaryMatrix>(&matrix)) {
    parameter.value.copy_(ternary ? LatentsOf(*codes) : DequantizedOf(*codes));
  } else {
    CopyInto(engine::ValuesOf(matrix), parameter.value);
  }
}

// A latent must stay above half the scale to keep its code.
constexpr float kLeastLatent = 0.6f;

// Turns codes into latents of size `value`. Sums of the quantizer's blocks are rounded at each
// step, so the last weight of a block that is not 0 carries what its block's sum would lack.
// Returns those weights' places.
std::vector<int64_t> FillBlocks(float* w, int64_t count, double value) {
  std::vector<int64_t> carriers;
  for (int64_t begin = 0; begin < count; begin += kernels::kAbsMeanBlock) {
    const int64_t end = std::min(begin + kernels::kAbsMeanBlock, count);
    int64_t last = -1, nonzero = 0;
    float sum = 0, before = 0;
    for (int64_t i = begin; i < end; ++i) {
      if (w[i] == 0) continue;
      w[i] *= static_cast<float>(value);
      before = sum;
      sum += std::fabs(w[i]);
      last = i;
      ++nonzero;
    }
    if (last < 0) continue;
    const double carried = value * static_cast<double>(nonzero) - double{before};
    if (carried > 0.75 * value) w[last] = std::copysign(static_cast<float>(carried), w[last]);
    carriers.push_back(last);
  }
  return carriers;
}

// The decoder that computes what the source's model does.
ModelConfig ConfigOf(const engine::ModelSource& source) {
  ModelConfig config = ConfigWithoutWindows(source);
  const bool ternary = config.linear == LinearKind::kBitLinear;
  if (ternary && source.activation() == engine::ActivationRule::kNone) {
    LogInfo(source.path(), ": its activations are floats, so its ternary layers become dense ones");
    config.linear = LinearKind::kDense;
  }
  return config;
}

OpenedModel ReadDecoder(engine::ModelSource& source) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = ConfigOf(source);
  model::Decoder decoder(config);
  for (const model::Parameter& parameter : decoder.parameters()) {
    switch (parameter.spec.role) {
      case ParameterRole::kEmbedding:
      case ParameterRole::kHead:
        CopyInto(engine::ValuesOf(source.Table(parameter.spec)), parameter.value);
        break;
      case ParameterRole::kLinear:
        ReadLinear(source, parameter, config.linear == LinearKind::kBitLinear);
        break;
      case ParameterRole::kNorm:
      case ParameterRole::kBias:
        CopyInto(source.Vector(parameter.spec), parameter.value);
        break;
    }
  }
  source.CheckAllUsed();
  OpenedModel opened{std::move(decoder), source.Tokenizer(), source.Files()};
  if (opened.tokenizer) opened.stop_tokens = source.StopTokens(*opened.tokenizer);
  return opened;
}

}  // namespace

ModelConfig ConfigWithoutWindows(const engine::ModelSource& source) {
  const ModelConfig &whole = source.config(), cut = CutToWindow(whole);
  if (cut.context_length < whole.context_length) {
    LogWarn(source.path(), ": attention slides over ", cut.context_length,
            " tokens, which only the engine computes; here the context is cut from ",
            whole.context_length, " to that, in which it makes no difference");
  }
  return cut;
}

at::Tensor LatentsOf(const engine::TernaryMatrix& matrix) {
  at::Tensor w_NK = at::empty({matrix.n, matrix.k}, at::kFloat);
  float* w = w_NK.mutable_data_ptr<float>();
  const int64_t count = matrix.n * matrix.k;
  kernels::DequantizeT2(matrix.t2.data(), 0, matrix.n, matrix.k, 1.0f, w, matrix.k);
  const int64_t nonzero = count - std::count(w, w + count, 0.0f);
  const double value = double{matrix.scale} * static_cast<double>(count) /
                       static_cast<double>(std::max<int64_t>(nonzero, 1));
  const std::vector<int64_t> carriers = FillBlocks(w, count, value);
  const auto scale = [&] { return kernels::TernaryScale(w, count, SerialFor); };
  const float least = kLeastLatent * matrix.scale;
  for (size_t step = 0; step < carriers.size() && scale() != matrix.scale; ++step) {
    const double missing = (double{matrix.scale} - double{scale()}) * static_cast<double>(count);
    float& carrier = w[carriers[step]];
    carrier =
        std::copysign(std::max(std::fabs(carrier) + static_cast<float>(missing), least), carrier);
  }
  const quant::TernaryWeight q = quant::QuantizeTernary(w_NK);
  const bool same = q.beta == matrix.scale && std::memcmp(q.t2_NC.const_data_ptr<uint8_t>(),
                                                          matrix.t2.data(), matrix.t2.size()) == 0;
  if (!same) {
    throw NumericError(StrCat("found no latents of the scale ", matrix.scale, " with ", nonzero,
                              " of ", count, " codes that are not 0 (got ", q.beta,
                              "); train from the latents of this model (its -bf16 or "
                              "prequantized files)"));
  }
  return w_NK;
}

ModelInfo ReadModelInfo(const std::string& path, const std::string& tokenizer) {
  TERN_CHECK_INPUT(fs::exists(path), path,
                   ": there is no such file or folder; want a GGUF file, a Hugging Face folder, a "
                   "model file or a checkpoint");
  if (IsCheckpoint(path)) {
    const checkpoint::CheckpointReader reader(path);
    return {model::ConfigOf(reader),
            text::Tokenizer::FromFile(tokenizer.empty() ? TokenizerAbove(path) : tokenizer),
            {},
            reader.sha256()};
  }
  const auto source = engine::OpenModel(path);
  ModelInfo info{ConfigOf(*source), source->Tokenizer(), source->Files(), Sha256OfPath(path)};
  if (!tokenizer.empty()) info.tokenizer = text::Tokenizer::FromFile(tokenizer);
  return info;
}

bool IsCheckpoint(const std::string& path) {
  return fs::is_directory(path) ? fs::exists(path + "/manifest.json")
                                : fs::exists(fs::path(path).parent_path() / "manifest.json");
}

void CheckPlainInputs(const model::Decoder& decoder, const std::string& what) {
  if (decoder.inputs().empty()) return;
  throw RecipeError(StrCat(what, " cannot hold that inputs of ", decoder.inputs().begin()->first,
                           " and ", decoder.inputs().size() - 1,
                           " more matrices are rotated or quantized, as quantize.rules (inputs, "
                           "hadamard) trained them; want hf/compressed_tensors, which holds "
                           "int8_dynamic and fp8_dynamic of the checkpoint they were trained in"));
}

OpenedModel OpenDecoder(const std::string& path, const std::string& tokenizer) {
  if (!IsCheckpoint(path)) {
    OpenedModel opened = ReadDecoder(*engine::OpenModel(path));
    if (!tokenizer.empty()) opened.tokenizer = text::Tokenizer::FromFile(tokenizer);
    return opened;
  }
  return {qat::LoadShipped(checkpoint::CheckpointReader(path)),
          text::Tokenizer::FromFile(tokenizer.empty() ? TokenizerAbove(path) : tokenizer),
          {}};
}

}  // namespace tern::transfer
