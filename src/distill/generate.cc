// See generate.h.
#include "distill/generate.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/random.h"
#include "quant/ternary.h"

namespace tern::distill {
namespace {

// Ternary codes of matrices that do not change while a text is written.
class KeptCodes : public nn::WeightSource {
 public:
  const quant::TernaryWeight& Ternary(const at::Tensor& w_NK) override {
    const auto [found, is_new] = codes_.try_emplace(w_NK.const_data_ptr());
    if (is_new) found->second = quant::QuantizeTernary(w_NK);
    return found->second;
  }
  bool TakeGradient(const at::Tensor&, const at::Tensor&) override {
    throw BugError("a text is written without gradients");
  }

 private:
  std::map<const void*, quant::TernaryWeight> codes_;
};

// The token that the uniform number in [0, 1) chooses from softmax(logits / temperature).
int32_t Choose(const float* logits, int64_t count, double temperature, double uniform) {
  const float* top = std::max_element(logits, logits + count);
  if (temperature == 0) return static_cast<int32_t>(top - logits);
  std::vector<double> weights(static_cast<size_t>(count));
  double all = 0;
  for (int64_t i = 0; i < count; ++i)
    all += weights[static_cast<size_t>(i)] =
        std::exp((double{logits[i]} - double{*top}) / temperature);
  double left = uniform * all;
  int64_t last = top - logits;  // Takes what rounding leaves over
  for (int64_t i = 0; i < count; ++i) {
    const double mine = weights[static_cast<size_t>(i)];
    if (left < mine) return static_cast<int32_t>(i);
    left -= mine;
    if (mine > 0) last = i;
  }
  return static_cast<int32_t>(last);
}

class Writing {
 public:
  Writing(const model::Decoder& writer, const data::Batch& batch,
          const std::vector<int64_t>& prompts, const WriteOptions& options)
      : writer_(writer),
        options_(options),
        rows_(options.rows > 0 ? options.rows : batch.batch),
        tokens_(batch.tokens),
        first_number_(options.step * batch.batch + options.first_row),
        shortest_(batch.tokens),
        stream_(options.seed, options.stream),
        next_(static_cast<size_t>(rows_)) {
    TERN_CHECK(options.first_row >= 0 && options.first_row + rows_ <= batch.batch, "rows ",
               options.first_row, " to ", options.first_row + rows_, " of ", batch.batch);
    const int64_t begin = options.first_row * tokens_, count = rows_ * tokens_;
    out_.batch = rows_;
    out_.tokens = tokens_;
    out_.inputs.assign(batch.inputs.begin() + begin, batch.inputs.begin() + begin + count);
    out_.targets.assign(static_cast<size_t>(count), -1);
    prompts_.assign(prompts.begin() + options.first_row,
                    prompts.begin() + options.first_row + rows_);
    for (const int64_t prompt : prompts) {
      TERN_CHECK(prompt >= 0 && prompt <= tokens_, prompt, " of ", tokens_);
      if (prompt > 0) shortest_ = std::min(shortest_, prompt);
    }
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t prompt = prompts_[static_cast<size_t>(row)];
      const int64_t most = options.tokens > 0 ? options.tokens : tokens_;
      ends_.push_back(prompt == 0 ? 0 : std::min(prompt + most, tokens_ + 1));
      const auto end = out_.inputs.begin() + (row + 1) * tokens_;
      std::fill(end - tokens_ + prompt, end, std::max(options.stop_token, 0));
    }
  }

  data::Batch Run() {
    const at::NoGradGuard no_grad;
    cache_.capacity = tokens_;
    if (std::all_of(prompts_.begin(), prompts_.end(), [](int64_t p) { return p == 0; }))
      return std::move(out_);
    at::Tensor logits_BV = Forward(0, shortest_);
    for (int64_t at = shortest_;; ++at) {
      const bool goes_on = Take(logits_BV, at);
      if (!goes_on || at == tokens_) break;
      logits_BV = Forward(at, 1);
    }
    return std::move(out_);
  }

 private:
  // Logits behind input tokens [begin, begin + count) of every row.
  at::Tensor Forward(int64_t begin, int64_t count) {
    model::DecoderInput input;
    input.tokens_BT = at::empty({rows_, count}, at::kLong);
    auto* ids = input.tokens_BT.mutable_data_ptr<int64_t>();
    for (int64_t row = 0; row < rows_; ++row)
      for (int64_t i = 0; i < count; ++i)
        ids[row * count + i] = out_.inputs[static_cast<size_t>(row * tokens_ + begin + i)];
    input.tokens_BT = input.tokens_BT.to(writer_.device());
    model::ForwardOptions forward;
    forward.compute = options_.compute;
    forward.quantized_share = options_.quantized_share;
    forward.cache = &cache_;
    if (options_.quantized_share >= 1) forward.source = &codes_;
    const at::Tensor h_MD = writer_.Hidden(input, forward);
    const at::Tensor last_BD =
        h_MD.view({rows_, count, h_MD.size(1)}).select(1, count - 1).contiguous();
    return nn::MatMul(last_BD, writer_.HeadWeight().detach().t(), options_.compute)
        .contiguous()
        .cpu();
  }

  // Tokens number `at` of the rows; returns whether any row goes on.
  bool Take(const at::Tensor& logits_BV, int64_t at) {
    const int64_t v = logits_BV.size(1);
    const float* logits = logits_BV.const_data_ptr<float>();
    if (!std::isfinite(logits_BV.sum().item<double>())) {
      throw NumericError(StrCat("step ", options_.step + 1,
                                ": the model that writes continuations (losses.generated) gives "
                                "logits that are not finite"));
    }
    at::parallel_for(0, rows_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        if (!Writes(row, at)) continue;
        const uint64_t index =
            static_cast<uint64_t>(first_number_ + row) * static_cast<uint64_t>(tokens_ + 1) +
            static_cast<uint64_t>(at);
        next_[static_cast<size_t>(row)] =
            Choose(logits + row * v, v, options_.temperature, stream_.Uniform53At(index));
      }
    });
    bool goes_on = false;
    for (int64_t row = 0; row < rows_; ++row) goes_on |= Put(row, at);
    return goes_on;
  }

  bool Writes(int64_t row, int64_t at) const {
    const auto r = static_cast<size_t>(row);
    return at >= prompts_[r] && at < ends_[r];
  }

  // Puts what row `row` writes at `at` in place; returns whether it goes on behind it.
  bool Put(int64_t row, int64_t at) {
    const auto r = static_cast<size_t>(row);
    if (Writes(row, at)) {
      const auto index = static_cast<size_t>(row * tokens_ + at);
      out_.targets[index - 1] = next_[r];
      if (at < tokens_) out_.inputs[index] = next_[r];
      if (next_[r] == options_.stop_token) ends_[r] = at + 1;
    }
    return ends_[r] > at + 1;
  }

  const model::Decoder& writer_;
  const WriteOptions& options_;
  const int64_t rows_, tokens_;
  const int64_t first_number_;  // Of the first row, among the rows of all steps
  int64_t shortest_;            // Prompt of the whole batch
  std::vector<int64_t> prompts_;
  RandomStream stream_;
  std::vector<int32_t> next_;
  std::vector<int64_t> ends_;  // Of the sequences, prompt included; lowered by a stop token
  model::KeyValueCache cache_;
  KeptCodes codes_;
  data::Batch out_;
};

}  // namespace

bool IsGenerated(const recipe::GeneratedConfig& config, uint64_t seed, const std::string& stage_id,
                 int64_t step) {
  if (config.by == recipe::GeneratedBy::kNone) return false;
  const RandomStream stream(seed, "generated/" + stage_id);
  return stream.Uniform53At(static_cast<uint64_t>(step)) < config.share;
}

int64_t PromptTokens(const recipe::GeneratedConfig& config, const data::Batch& batch, int64_t row) {
  const int64_t first = row * batch.tokens;
  int64_t length = batch.tokens;  // Of the row's first document
  if (!batch.document_ids.empty()) {
    const auto ids = batch.document_ids.begin() + first;
    length = std::find_if(ids, ids + batch.tokens, [&](int32_t id) { return id != *ids; }) - ids;
  }
  if (config.prompt_tokens > 0) return std::min(config.prompt_tokens, length);
  const auto targets = batch.targets.begin() + first;
  const auto label =
      std::find_if(targets, targets + length, [](int32_t target) { return target >= 0; });
  return label == targets + length ? 0 : label - targets + 1;
}

data::Batch Continue(const model::Decoder& writer, const data::Batch& batch,
                     const std::vector<int64_t>& prompts, const WriteOptions& options) {
  TERN_CHECK(static_cast<int64_t>(prompts.size()) == batch.batch, prompts.size(), " prompts");
  return Writing(writer, batch, prompts, options).Run();
}

}  // namespace tern::distill
