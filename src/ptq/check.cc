// See check.h.
#include "ptq/check.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "ptq/quantize_layer.h"
#include "transfer/import.h"
#include "transfer/verify.h"

namespace tern::ptq {
namespace {

constexpr const char* kProbeText =
    "The river rises in the hills to the north and runs past the old mill, where the road crosses "
    "it on a stone bridge. In spring, when the snow melts, the water stands high in the meadows, "
    "and the farmers wait until May before they bring out their cattle. Most of the houses in the "
    "village were built between 1820 and 1870, and a few of them still have their first roofs.";

at::Tensor EngineLogits(const std::string& path, const std::vector<int32_t>& tokens, int threads) {
  const engine::Engine engine(engine::LoadModel(path), threads);
  const auto count = static_cast<int64_t>(tokens.size());
  const auto logits = std::make_shared<std::vector<float>>(
      engine::Session(engine, count).Append(tokens, engine::LogitsOf::kAll));
  return at::from_blob(
      logits->data(), {count, engine.config().vocab_size}, [logits](void*) {}, at::kFloat);
}

at::Tensor SourceLogits(const std::string& path, const std::vector<int32_t>& tokens, int threads) {
  if (!transfer::IsCheckpoint(path)) return EngineLogits(path, tokens, threads);
  const transfer::OpenedModel opened = transfer::OpenDecoder(path);
  model::DecoderInput input;
  input.tokens_BT = at::empty({1, static_cast<int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), input.tokens_BT.mutable_data_ptr<int64_t>());
  return opened.decoder.Logits(input, {});
}

}  // namespace

int64_t CheckValues(const std::string& folder, const std::vector<nlohmann::json>& ledger) {
  const engine::ModelWeights weights = engine::LoadModel(folder);
  for (const nlohmann::json& line : ledger) {
    const std::string name = line.at("tensor").get<std::string>();
    const std::vector<float> values = engine::ValuesOf(engine::LinearOf(weights, name));
    const std::string found = Sha256OfValues(values.data(), static_cast<int64_t>(values.size()));
    const std::string wanted = line.at("values_sha256").get<std::string>();
    if (found != wanted) {
      throw NumericError(StrCat(folder, ": the values of ", name, " have the SHA-256 ",
                                found.substr(0, 16), ", the quantizer's ", wanted.substr(0, 16),
                                ": the file is not what was quantized"));
    }
  }
  return static_cast<int64_t>(ledger.size());
}

std::vector<int32_t> ProbeTokens(const text::Tokenizer* tokenizer, const ModelConfig& config) {
  constexpr int64_t kTokens = 64, kStride = 7919;  // A prime, so that ids do not repeat early
  const int64_t count = std::min(kTokens, config.context_length);
  std::vector<int32_t> tokens;
  if (tokenizer != nullptr) {
    tokens = tokenizer->Encode(kProbeText);
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(count)));
    return tokens;
  }
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(i * kStride % config.vocab_size));
  return tokens;
}

Divergence CompareWithSource(const std::string& source, const std::string& folder,
                             const std::vector<int32_t>& tokens, int threads) {
  const at::NoGradGuard no_grad;
  const at::Tensor ours_TV = SourceLogits(source, tokens, threads),
                   theirs_TV = EngineLogits(folder, tokens, threads);
  Divergence out;
  out.tokens = static_cast<int64_t>(tokens.size());
  out.mean_kl = transfer::KlOfRows(ours_TV, theirs_TV).mean().item<double>();
  out.top1_agreement =
      (ours_TV.argmax(1) == theirs_TV.argmax(1)).to(at::kDouble).mean().item<double>();
  return out;
}

}  // namespace tern::ptq
