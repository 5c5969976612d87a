// The engine as a library: this header is all that a C++ program needs (examples/generate.cc). It
// links tern_engine of this build. Errors are exceptions derived from std::runtime_error
// (base/error.h), whose text says what was found, what was wanted and what to do.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/code_activations.h"
#include "engine/generate_options.h"

namespace tern::engine {

// A loaded model. Calls on one object come one at a time; several objects may run at once.
class LanguageModel {
 public:
  // A GGUF file or a Hugging Face folder; threads < 1: all processors. Files stay mapped. Throws
  // InputError, FormatError.
  explicit LanguageModel(const std::string& path, int threads = 0,
                         CodeActivations activations = CodeActivations::kInt16);
  LanguageModel(LanguageModel&&) noexcept;
  LanguageModel& operator=(LanguageModel&&) noexcept;
  ~LanguageModel();

  int64_t vocab_size() const;
  int64_t context_length() const;  // Tokens, prompt and answer together
  bool has_tokenizer() const;

  // Ids of `text`, with the model's BOS in front when it has one. Throws InputError when the model
  // has no tokenizer or the text is no UTF-8.
  std::vector<int32_t> Tokenize(std::string_view text) const;
  // The text of ids; control tokens give none. Throws InputError for ids outside of the vocabulary.
  std::string Detokenize(const std::vector<int32_t>& ids) const;

  // As Generate of generate.h. `on_text` may be empty.
  GenerateResult Generate(std::string_view prompt, const GenerateOptions& options = {},
                          const std::function<void(std::string_view)>& on_text = {}) const;

  // [T, V]: row t has the logits of the token after tokens[0..t]. Throws InputError for ids
  // outside of the vocabulary, none at all, or more than the context.
  std::vector<float> Logits(std::span<const int32_t> tokens) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::engine
