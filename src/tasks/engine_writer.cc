// Greedy generation of EngineScorer: up to kSlots texts at a time, each in its own sequence; a text
// that ends makes room for the next one at once (continuous batching, Orca: Yu et al., OSDI 2022).
// What all prompts begin with (few-shot examples) is run once.
#include <algorithm>
#include <optional>

#include "base/error.h"
#include "tasks/engine_scorer.h"
#include "tasks/greedy_text.h"

namespace tern::tasks {
namespace {

using engine::Decoder;
using engine::KvCache;

constexpr size_t kSlots = 16;

// Pages of the whole text, and one for the fork's copy.
int64_t PagesNeeded(const GenerateRequest& request, int64_t max_length) {
  const auto size = static_cast<int64_t>(request.tokens.size());
  return KvCache::PagesFor(std::min(max_length, size + std::min(request.max_tokens, max_length))) +
         1;
}

}  // namespace

struct EngineScorer::Writer {
  size_t index;
  std::unique_ptr<engine::Sequence> sequence;
  std::vector<int32_t> input;  // To run next
  GreedyText text;
  int64_t pages = 0;  // That it may come to hold
};

std::unique_ptr<EngineScorer::Writer> EngineScorer::StartWriter(
    std::span<const GenerateRequest> requests, size_t index, int64_t shared) {
  const GenerateRequest& request = requests[index];
  const auto size = static_cast<int64_t>(request.tokens.size());
  auto sequence = Begin(request.tokens, std::min(size - 1, shared));
  std::vector<int32_t> input(request.tokens.begin() + sequence->size(), request.tokens.end());
  const int64_t pages = PagesNeeded(request, max_length());
  return std::make_unique<Writer>(Writer{
      index, std::move(sequence), std::move(input),
      GreedyText(request, *tokenizer(), engine_.weights().stop_tokens, max_length()), pages});
}

// Takes the next token; returns whether the text goes on.
bool EngineScorer::Step(Writer* writer, const std::vector<float>& logits, const OnText& done) {
  if (writer->text.Take(logits, source())) {
    writer->input.assign(1, writer->text.last());
    return true;
  }
  done(writer->index, writer->text.Finish());
  return false;
}

void EngineScorer::Generate(std::span<const GenerateRequest> requests, const OnText& done) {
  TERN_CHECK_INPUT(tokenizer() != nullptr, source(), " has no tokenizer: it cannot write text");
  int64_t shared = requests.empty() ? 0 : static_cast<int64_t>(requests[0].tokens.size());
  for (const GenerateRequest& request : requests) {
    TERN_CHECK(!request.tokens.empty() && request.max_tokens > 0, "nothing to go on from");
    shared = std::min(shared, CommonPrefix(requests[0].tokens, request.tokens));
  }
  // The first text runs alone, so that the others can share its beginning.
  bool ready = shared < kernels::kKvPageTokens;
  std::vector<std::unique_ptr<Writer>> writers;
  size_t next = 0;
  while (next < requests.size() || !writers.empty()) {
    while (next < requests.size() && writers.size() < kSlots) {
      int64_t promised = 0;
      for (const auto& writer : writers)
        promised += writer->pages - static_cast<int64_t>(writer->sequence->pages().size());
      if (!writers.empty() &&
          (!ready || promised + PagesNeeded(requests[next], max_length()) > cache_.free_pages()))
        break;
      writers.push_back(StartWriter(requests, next++, shared));
    }
    std::vector<Decoder::Request> pass;
    for (const auto& writer : writers)
      pass.push_back({writer->sequence.get(), writer->input, engine::LogitsOf::kLast});
    const std::vector<std::vector<float>> logits = RunDecoder(pass);
    if (!ready) {
      ready = true;
      engine::Sequence prefix = writers[0]->sequence->Fork();
      prefix.Truncate(shared);
      Keep(prefix, requests[0].tokens);
    }
    std::vector<std::unique_ptr<Writer>> going_on;
    for (size_t i = 0; i < writers.size(); ++i)
      if (Step(writers[i].get(), logits[i], done)) going_on.push_back(std::move(writers[i]));
    writers = std::move(going_on);
  }
}

}  // namespace tern::tasks
