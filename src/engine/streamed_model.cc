// See streamed_model.h.
#include "engine/streamed_model.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/trim_heap.h"
#include "engine/kv_cache.h"
#include "engine/layer_pass.h"

namespace tern::engine {

StreamedModel::StreamedModel(const std::string& path, std::span<const int32_t> tokens,
                             int num_threads)
    : source_(OpenModel(path)),
      pool_(num_threads),
      parallel_(pool_.Runner()),
      num_tokens_(static_cast<int64_t>(tokens.size())) {
  const ModelConfig& c = config();
  TERN_CHECK_INPUT(num_tokens_ > 0 && num_tokens_ <= c.context_length, path, ": ", num_tokens_,
                   " tokens; want 1 to the model's context of ", c.context_length);
  for (const int32_t token : tokens) {
    TERN_CHECK_INPUT(token >= 0 && token < c.vocab_size, path, ": token id ", token,
                     " is outside of 0 to ", c.vocab_size - 1);
  }
  ReadTables(tokens);
  TrimHeap();
  RunLayers();
  TrimHeap();
  source_->CheckAllUsed();
}

void StreamedModel::ReadTables(std::span<const int32_t> tokens) {
  const int64_t d = config().hidden_size;
  x_TD_.resize(static_cast<size_t>(num_tokens_ * d));
  for (const ParameterSpec& spec : ParameterTable(config())) {
    if (spec.role == ParameterRole::kEmbedding) {
      TableMatrix embedding = source_->Table(spec);
      for (size_t i = 0; i < tokens.size(); ++i)
        CopyRow(embedding, tokens[i], x_TD_.data() + static_cast<int64_t>(i) * d);
      if (config().tied_head) head_ = std::move(embedding);
    } else if (spec.role == ParameterRole::kHead) {
      head_ = source_->Table(spec);
    } else if (spec.role == ParameterRole::kNorm && !spec.name.starts_with("model.layers.")) {
      final_norm_ = source_->Vector(spec);
    }
  }
}

void StreamedModel::RunLayers() {
  const ModelConfig& c = config();
  LayerPass pass(c, source_->activation(), CodeActivations::kInt16, num_tokens_, parallel_);
  ModelConfig one_layer = c;
  one_layer.num_layers = 1;
  KvCache cache(one_layer, KvCache::PagesFor(num_tokens_), kernels::KvType::kF32);
  Sequence sequence(cache);
  sequence.Reserve(num_tokens_);
  std::vector<int32_t> positions(static_cast<size_t>(num_tokens_));
  std::iota(positions.begin(), positions.end(), 0);
  for (int64_t l = 0; l < c.num_layers; ++l) {
    const LayerWeights layer = ReadLayer(*source_, l);
    for (int64_t begin = 0; begin < num_tokens_; begin += kPassRows) {
      const kernels::KvRows rows{std::min(kPassRows, num_tokens_ - begin), positions.data() + begin,
                                 nullptr, sequence.pages().data(), KvCache::PagesFor(num_tokens_)};
      pass.Run(l, layer, cache.Layer(0), rows, x_TD_.data() + begin * c.hidden_size);
    }
    source_->DropPages();
  }
}

std::vector<float> StreamedModel::Logits(int64_t begin, int64_t end) {
  TERN_CHECK(begin >= 0 && begin <= end && end <= num_tokens_, begin, " to ", end);
  const int64_t d = config().hidden_size;
  std::vector<float> logits(static_cast<size_t>((end - begin) * config().vocab_size));
  LinearInput input(parallel_, CodeActivations::kInt16);
  input.Set(x_TD_.data() + begin * d, end - begin, d, final_norm_, config().norm_eps);
  Multiply(input, head_, logits.data(), parallel_);
  source_->DropPages();
  return logits;
}

}  // namespace tern::engine
