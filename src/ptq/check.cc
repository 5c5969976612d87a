// See check.h.
#include "ptq/check.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/trim_heap.h"
#include "engine/model_source.h"
#include "engine/streamed_model.h"
#include "engine/weight_table.h"
#include "nn/precision.h"
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

// A multiple of KlOfRows' rows, so that its blocks, and with them its sums, are those of all rows
// in one call.
constexpr int64_t kRowGrain = 16;

int64_t RowsAtOnce(int64_t vocab_size, int64_t logits_bytes) {
  const int64_t rows = logits_bytes / (2 * int64_t{sizeof(float)} * vocab_size);
  return std::max(rows / kRowGrain * kRowGrain, kRowGrain);
}

using LogitsOfRows = std::function<at::Tensor(int64_t begin, int64_t end)>;  // [end - begin, V]

at::Tensor LogitsOf(engine::StreamedModel& model, int64_t begin, int64_t end) {
  const auto logits = std::make_shared<std::vector<float>>(model.Logits(begin, end));
  return at::from_blob(
      logits->data(), {end - begin, model.config().vocab_size}, [logits](void*) {}, at::kFloat);
}

// A checkpoint is read as a whole; of its decoder the head stays in memory.
LogitsOfRows SourceLogits(const std::string& path, const std::vector<int32_t>& tokens,
                          int threads) {
  if (!transfer::IsCheckpoint(path)) {
    const auto model = std::make_shared<engine::StreamedModel>(path, tokens, threads);
    return [model](int64_t begin, int64_t end) { return LogitsOf(*model, begin, end); };
  }
  const transfer::OpenedModel opened = transfer::OpenDecoder(path);
  model::DecoderInput input;
  input.tokens_BT = at::empty({1, static_cast<int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), input.tokens_BT.mutable_data_ptr<int64_t>());
  const at::Tensor hidden_TD = opened.decoder.Hidden(input, {}),
                   head_VD = opened.decoder.HeadWeight();
  return [hidden_TD, head_VD](int64_t begin, int64_t end) {
    return nn::DenseLinear(hidden_TD.slice(0, begin, end), head_VD, nn::ComputeType::kFp32);
  };
}

void CheckHash(const std::string& output, const std::string& name, const std::vector<float>& values,
               const std::string& wanted) {
  const std::string found = Sha256OfValues(values.data(), static_cast<int64_t>(values.size()));
  if (found == wanted) return;
  throw NumericError(StrCat(output, ": the values of ", name, " have the SHA-256 ",
                            found.substr(0, 16), ", the quantizer's ", wanted.substr(0, 16),
                            ": the file is not what was quantized"));
}

}  // namespace

int64_t CheckValues(const std::string& output, const std::vector<nlohmann::json>& ledger) {
  std::map<std::string, std::string> wanted;
  for (const nlohmann::json& line : ledger)
    wanted[line.at("tensor").get<std::string>()] = line.at("values_sha256").get<std::string>();
  const std::unique_ptr<engine::ModelSource> source = engine::OpenModel(output);
  for (const ParameterSpec& spec : ParameterTable(source->config())) {
    if (spec.role == ParameterRole::kEmbedding || spec.role == ParameterRole::kHead) {
      source->Table(spec);
      TrimHeap();
    } else if (spec.role != ParameterRole::kLinear) {
      source->Vector(spec);
    } else {
      const engine::LinearMatrix matrix = engine::ReadRunnable(*source, spec);
      const auto line = wanted.find(spec.name);
      if (line == wanted.end()) continue;
      CheckHash(output, spec.name, engine::ValuesOf(matrix), line->second);
      wanted.erase(line);
    }
    source->DropPages();
  }
  source->CheckAllUsed();
  source->Tokenizer();  // That they can be read, too
  source->ChatTemplate();
  if (!wanted.empty()) {
    throw NumericError(StrCat(output, " has no matrix ", wanted.begin()->first,
                              ", which its ledger lists: the file is not what was quantized"));
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

Divergence CompareWithSource(const std::string& source, const std::string& output,
                             const std::vector<int32_t>& tokens, int threads,
                             int64_t logits_bytes) {
  const at::NoGradGuard no_grad;
  const LogitsOfRows ours = SourceLogits(source, tokens, threads);
  engine::StreamedModel theirs(output, tokens, threads);
  const int64_t rows = RowsAtOnce(theirs.config().vocab_size, logits_bytes);
  const auto count = static_cast<int64_t>(tokens.size());
  const at::Tensor kl_T = at::empty({count}, at::kDouble),
                   agree_T = at::empty({count}, at::kDouble);
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    end = std::min(begin + rows, count);
    const at::Tensor ours_RV = ours(begin, end), theirs_RV = LogitsOf(theirs, begin, end);
    kl_T.slice(0, begin, end).copy_(transfer::KlOfRows(ours_RV, theirs_RV));
    agree_T.slice(0, begin, end).copy_(ours_RV.argmax(1) == theirs_RV.argmax(1));
  }
  return {count, kl_T.mean().item<double>(), agree_T.mean().item<double>()};
}

}  // namespace tern::ptq
