// See windows.h.
#include "tasks/windows.h"

#include <algorithm>

#include "base/error.h"

namespace tern::tasks {
namespace {

std::vector<Window> SideBySide(int64_t context, int64_t tokens, int64_t skip) {
  std::vector<Window> windows;
  for (int64_t begin = 0; begin + context <= tokens; begin += context)
    windows.push_back({begin, begin + context, begin + skip});
  return windows;
}

std::vector<Window> Sliding(int64_t context, int64_t stride, int64_t tokens) {
  std::vector<Window> windows;
  int64_t scored = 1;  // Tokens that are done; the first has nothing before it
  for (int64_t begin = 0; scored < tokens; begin += stride) {
    const int64_t end = std::min(begin + context, tokens);
    windows.push_back({begin, end, scored});
    scored = end;
  }
  return windows;
}

}  // namespace

PerplexityProtocol ProtocolByName(std::string_view name) {
  if (name == "papers") return {WindowRule::kPapers, 2048, 0, false};
  if (name == "llama.cpp") return {WindowRule::kLlamaCpp, 512, 0, false};
  if (name == "sliding") return {WindowRule::kSliding, 1024, 512, false};
  throw UsageError(
      StrCat("no perplexity protocol ", name, "; there are papers, llama.cpp and sliding"));
}

std::string Describe(const PerplexityProtocol& protocol) {
  const char* bos = protocol.bos ? "BOS before the text" : "no BOS";
  switch (protocol.rule) {
    case WindowRule::kPapers:
      return StrCat("papers' protocol: windows of ", protocol.context,
                    " tokens side by side, each token but a window's first scored, rest dropped, ",
                    bos);
    case WindowRule::kLlamaCpp:
      return StrCat("llama.cpp's protocol: windows of ", protocol.context,
                    " tokens side by side, the last ", protocol.context - 1 - protocol.context / 2,
                    " of each scored, rest dropped, ",
                    protocol.bos ? "BOS in place of each window's first token" : "no BOS");
    case WindowRule::kSliding:
      return StrCat("sliding window: ", protocol.context, " tokens, stride ", protocol.stride,
                    ", each token but the first scored once, ", bos);
  }
  __builtin_unreachable();
}

std::vector<Window> Windows(const PerplexityProtocol& protocol, int64_t tokens) {
  const int64_t context = protocol.context;
  if (context < 2) throw UsageError(StrCat("windows of ", context, " tokens; want 2 or more"));
  std::vector<Window> windows;
  switch (protocol.rule) {
    case WindowRule::kPapers:
      windows = SideBySide(context, tokens, 1);
      break;
    case WindowRule::kLlamaCpp:
      // Its logits from position context / 2 on count, each of which predicts the next token.
      if (context < 4) throw UsageError(StrCat("windows of ", context, " tokens; want 4 or more"));
      windows = SideBySide(context, tokens, context / 2 + 1);
      break;
    case WindowRule::kSliding:
      if (protocol.stride < 1 || protocol.stride >= context)
        throw UsageError(StrCat("--stride is ", protocol.stride, "; want 1 to ", context - 1,
                                ", less than the context"));
      windows = Sliding(context, protocol.stride, tokens);
      break;
  }
  TERN_CHECK_INPUT(!windows.empty(), "the text has ", tokens, " tokens; ", Describe(protocol),
                   " needs ", protocol.rule == WindowRule::kSliding ? 2 : context,
                   ". Take a longer text or a smaller --context");
  return windows;
}

}  // namespace tern::tasks
