// See tern_engine.h.
#include "engine/tern_engine.h"

#include "base/error.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"

namespace tern::engine {

struct LanguageModel::Impl {
  Engine engine;

  const text::Tokenizer& Tokenizer() const {
    TERN_CHECK_INPUT(engine.weights().tokenizer.has_value(), engine.weights().source,
                     " has no tokenizer");
    return *engine.weights().tokenizer;
  }
};

LanguageModel::LanguageModel(const std::string& path, int threads, CodeActivations activations) {
  ModelWeights weights = LoadModel(path);
  SetActivations(activations, &weights);
  impl_.reset(new Impl{Engine(std::move(weights), threads)});
}
LanguageModel::LanguageModel(LanguageModel&&) noexcept = default;
LanguageModel& LanguageModel::operator=(LanguageModel&&) noexcept = default;
LanguageModel::~LanguageModel() = default;

int64_t LanguageModel::vocab_size() const { return impl_->engine.config().vocab_size; }
int64_t LanguageModel::context_length() const { return impl_->engine.config().context_length; }
bool LanguageModel::has_tokenizer() const { return impl_->engine.weights().tokenizer.has_value(); }

std::vector<int32_t> LanguageModel::Tokenize(std::string_view text) const {
  const text::Tokenizer& tokenizer = impl_->Tokenizer();
  std::vector<int32_t> ids = tokenizer.Encode(text);
  if (tokenizer.bos_id() >= 0) ids.insert(ids.begin(), tokenizer.bos_id());
  return ids;
}

std::string LanguageModel::Detokenize(const std::vector<int32_t>& ids) const {
  return impl_->Tokenizer().Decode(ids);
}

GenerateResult LanguageModel::Generate(std::string_view prompt, const GenerateOptions& options,
                                       const std::function<void(std::string_view)>& on_text) const {
  return engine::Generate(impl_->engine, prompt, options, on_text);
}

std::vector<float> LanguageModel::Logits(std::span<const int32_t> tokens) const {
  Session session(impl_->engine, static_cast<int64_t>(tokens.size()));
  return session.Append(tokens, LogitsOf::kAll);
}

}  // namespace tern::engine
