// How a text is cut into windows to measure perplexity. Published numbers differ in this, and a
// number without its protocol means nothing, so a protocol can say itself in words.
//   papers     windows side by side, each but its first token scored, a shorter rest dropped (GPTQ,
//              AWQ and most papers on low bits: context 2048)
//   llama.cpp  windows side by side, the second half of each scored, BOS in place of the first
//              token of each when the model wants one (llama-perplexity: context 512)
//   sliding    windows that start `stride` apart, each token but the first scored once, in the
//              first window that holds it (documentation of Hugging Face, "Perplexity of
//              fixed-length models")
// data::EvalWindows, which the trainer uses, with T tokens is `sliding` with context T + 1, stride
// T.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tern::tasks {

enum class WindowRule { kPapers, kLlamaCpp, kSliding };

struct PerplexityProtocol {
  WindowRule rule = WindowRule::kPapers;
  int64_t context = 2048;  // Tokens of a window
  int64_t stride = 512;    // Of kSliding alone
  bool bos = false;        // The model's texts begin with BOS
};

// "papers", "llama.cpp", "sliding", with its usual context. Throws UsageError for another name.
PerplexityProtocol ProtocolByName(std::string_view name);
// In words: context, stride, BOS, scored part.
std::string Describe(const PerplexityProtocol& protocol);

// Tokens [begin, end) are one text; of them those from first_scored on are scored.
struct Window {
  int64_t begin = 0, end = 0;
  int64_t first_scored = 0;  // Within the whole text; > begin
};

// Windows of a text of `tokens` tokens (BOS included, where there is one at its start). Throws
// UsageError for a context below 2, or a stride that is not in 1 to context - 1; InputError when
// the text gives no window.
std::vector<Window> Windows(const PerplexityProtocol& protocol, int64_t tokens);

}  // namespace tern::tasks
