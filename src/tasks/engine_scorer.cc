// See engine_scorer.h. Generation is in engine_writer.cc.
#include "tasks/engine_scorer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "tasks/greedy_text.h"

namespace tern::tasks {
namespace {

using engine::Decoder;
using engine::KvCache;
using engine::Sequence;

constexpr int64_t kDefaultMaxLength = 8192;
// Rows of one pass: as many as the decoder runs at once, so that logits stay in tens of megabytes.
constexpr int64_t kPassRows = 256;
constexpr size_t kBatchRequests = 64;
// A fork copies a page that is partly filled, and a request ends at most three nodes of the tree.
constexpr int64_t kPagesPerRequest = 6;
constexpr int64_t kWorthSharing = kernels::kKvPageTokens;

int64_t MaxLength(const engine::Engine& engine, const EngineScorerOptions& options) {
  const int64_t context = engine.config().context_length;
  if (options.max_length < 0 || options.max_length > context)
    throw UsageError(StrCat("texts of ", options.max_length, " tokens; the context of ",
                            engine.weights().source, " is ", context));
  return options.max_length > 0 ? options.max_length : std::min(context, kDefaultMaxLength);
}

int64_t PagesOf(const engine::Engine& engine, const EngineScorerOptions& options) {
  if (options.batch_tokens < 1 || options.batch_tokens > (int64_t{1} << 24))
    throw UsageError(
        StrCat("--batch-tokens is ", options.batch_tokens, "; want 1 to ", int64_t{1} << 24));
  const int64_t longest = MaxLength(engine, options);
  return KvCache::PagesFor(options.batch_tokens) + 2 * KvCache::PagesFor(longest) +
         kPagesPerRequest * static_cast<int64_t>(kBatchRequests);
}

// More than the tree can ever hold at once, were no page given back.
int64_t PagesOf(const std::vector<PrefixNode>& tree) {
  int64_t pages = 0;
  for (const PrefixNode& node : tree) pages += KvCache::PagesFor(node.end - node.begin) + 1;
  return pages;
}

// Reads the logits of a text from a session of its own.
class EngineStream : public LogitStream {
 public:
  EngineStream(Decoder& decoder, KvCache& cache, std::span<const int32_t> tokens, int64_t* run)
      : decoder_(decoder), sequence_(cache), tokens_(tokens), run_(run) {}

  std::vector<float> Next(int64_t count) override {
    TERN_CHECK(count > 0 && sequence_.size() + count <= static_cast<int64_t>(tokens_.size()), count,
               " positions after ", sequence_.size(), " of ", tokens_.size());
    const Decoder::Request request{
        &sequence_,
        tokens_.subspan(static_cast<size_t>(sequence_.size()), static_cast<size_t>(count)),
        engine::LogitsOf::kAll};
    *run_ += count;
    return std::move(decoder_.Run({&request, 1})[0]);
  }

 private:
  Decoder& decoder_;
  Sequence sequence_;
  std::span<const int32_t> tokens_;
  int64_t* run_;
};

}  // namespace

struct EngineScorer::Work {
  size_t node;
  int64_t position;  // Of the next token to run
  std::unique_ptr<Sequence> sequence;
};

EngineScorer::EngineScorer(const engine::Engine& engine, const EngineScorerOptions& options)
    : engine_(engine),
      options_(options),
      pages_(PagesOf(engine, options)),
      cache_(engine.config(), pages_, options.cache),
      decoder_(engine, cache_, MaxLength(engine, options)) {}

EngineScorer::~EngineScorer() = default;

int64_t EngineScorer::vocab_size() const { return engine_.config().vocab_size; }

const text::Tokenizer* EngineScorer::tokenizer() const {
  const auto& tokenizer = engine_.weights().tokenizer;
  return tokenizer ? &*tokenizer : nullptr;
}

std::vector<std::vector<float>> EngineScorer::RunDecoder(
    std::span<const Decoder::Request> requests) {
  for (const Decoder::Request& request : requests)
    tokens_run_ += static_cast<int64_t>(request.tokens.size());
  return decoder_.Run(requests);
}

std::unique_ptr<Sequence> EngineScorer::Begin(std::span<const int32_t> tokens, int64_t limit) {
  const int64_t shared = std::min(limit, CommonPrefix(kept_tokens_, tokens));
  if (!kept_ || shared < kWorthSharing) return std::make_unique<Sequence>(cache_);
  auto sequence = std::make_unique<Sequence>(kept_->Fork());
  sequence->Truncate(shared);
  return sequence;
}

void EngineScorer::Keep(const Sequence& sequence, std::span<const int32_t> tokens) {
  kept_.reset();
  kept_ = std::make_unique<Sequence>(sequence.Fork());
  kept_tokens_.assign(tokens.begin(), tokens.begin() + sequence.size());
}

void EngineScorer::Score(std::span<const ScoreRequest> requests, const OnScores& done) {
  for (const ScoreRequest& request : requests) {
    const auto size = static_cast<int64_t>(request.tokens.size());
    TERN_CHECK(request.first_scored >= 1 && request.first_scored <= size, "scored from ",
               request.first_scored, " of ", size);
    TERN_CHECK_INPUT(size <= max_length() + 1, "a text has ", size, " tokens; there is room for ",
                     max_length() + 1);
    // The decoder looks at all but the last one.
    TERN_CHECK_INPUT(request.tokens.back() >= 0 && request.tokens.back() < vocab_size(),
                     "token id ", request.tokens.back(), " is outside of 0 to ", vocab_size() - 1);
  }
  size_t begin = 0;
  int64_t tokens = 0;
  const std::vector<int32_t>* before = nullptr;
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t>& text = requests[i].tokens;
    const int64_t own =
        static_cast<int64_t>(text.size()) - (before ? CommonPrefix(*before, text) : 0);
    if (i > begin && (tokens + own > options_.batch_tokens || i - begin == kBatchRequests)) {
      ScoreBatch(requests.subspan(begin, i - begin), begin, done);
      begin = i;
      tokens = 0;
    }
    tokens += own;
    before = &text;
  }
  if (begin < requests.size()) ScoreBatch(requests.subspan(begin), begin, done);
}

void EngineScorer::ScoreBatch(std::span<const ScoreRequest> requests, size_t first,
                              const OnScores& done) {
  const std::vector<PrefixNode> tree = BuildPrefixTree(requests);
  const int64_t kept = kept_ ? KvCache::PagesFor(kept_->size()) : 0;
  if (requests.size() > 1 && PagesOf(tree) + kept + 1 > pages_) {
    const size_t half = requests.size() / 2;
    ScoreBatch(requests.first(half), first, done);
    ScoreBatch(requests.subspan(half), first + half, done);
    return;
  }
  std::vector<std::vector<TokenScore>> scores(requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    scores[i].resize(requests[i].tokens.size() - static_cast<size_t>(requests[i].first_scored));
  RunTree(requests, tree, &scores);
  for (size_t i = 0; i < requests.size(); ++i) done(first + i, std::move(scores[i]));
}

void EngineScorer::RunTree(std::span<const ScoreRequest> requests,
                           const std::vector<PrefixNode>& tree,
                           std::vector<std::vector<TokenScore>>* scores) {
  std::vector<Work> open;
  for (size_t n = tree.size(); n-- > 0;) {
    if (!tree[n].root) continue;
    // Logits of what is shared with the last batch are gone; of the last token they are wanted.
    const int64_t limit = tree[n].all_logits ? 0 : tree[n].end - 1;
    auto sequence = Begin(requests[tree[n].requests[0]].tokens, limit);
    const int64_t position = sequence->size();
    open.push_back({n, position, std::move(sequence)});
  }
  while (!open.empty()) {
    // From the end: depth first, so that few pages are held at a time.
    std::vector<Decoder::Request> pass;
    int64_t rows = 0;
    size_t begin = open.size();
    while (begin > 0 && rows < kPassRows) {
      const Work& work = open[--begin];
      const PrefixNode& node = tree[work.node];
      const int64_t count = std::min(node.end - work.position, kPassRows - rows);
      const std::span<const int32_t> tokens = requests[node.requests[0]].tokens;
      pass.push_back(
          {work.sequence.get(),
           tokens.subspan(static_cast<size_t>(work.position), static_cast<size_t>(count)),
           node.all_logits ? engine::LogitsOf::kAll : engine::LogitsOf::kLast});
      rows += count;
    }
    const std::vector<std::vector<float>> logits = RunDecoder(pass);
    std::vector<Work> taken(
        std::make_move_iterator(open.begin() + static_cast<std::ptrdiff_t>(begin)),
        std::make_move_iterator(open.end()));
    open.erase(open.begin() + static_cast<std::ptrdiff_t>(begin), open.end());
    for (size_t i = 0; i < taken.size(); ++i) {
      Work& work = taken[i];
      const size_t of = taken.size() - 1 - i;  // The pass was filled from the end
      const PrefixNode& node = tree[work.node];
      const auto count = static_cast<int64_t>(pass[of].tokens.size());
      Take(requests, node, work.position, count, logits[of], scores);
      work.position += count;
      if (work.position < node.end) {
        open.push_back(std::move(work));
        continue;
      }
      if (node.root && node.requests.size() > 1 && node.end >= kWorthSharing)
        Keep(*work.sequence, requests[node.requests[0]].tokens);
      for (size_t c = 0; c < node.children.size(); ++c) {
        const bool last = c + 1 == node.children.size();
        open.push_back(
            {node.children[c], node.end,
             last ? std::move(work.sequence) : std::make_unique<Sequence>(work.sequence->Fork())});
      }
    }
  }
}

void EngineScorer::Take(std::span<const ScoreRequest> requests, const PrefixNode& node,
                        int64_t position, int64_t count, const std::vector<float>& logits,
                        std::vector<std::vector<TokenScore>>* scores) {
  const int64_t v = vocab_size(), rows = static_cast<int64_t>(logits.size()) / v;
  struct Target {
    const float* row;
    int32_t token;
    TokenScore* score;
  };
  std::vector<Target> targets;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = position + count - rows + row;
    for (const size_t r : node.requests) {
      const ScoreRequest& request = requests[r];
      const int64_t next = at + 1;
      if (next < request.first_scored || next >= static_cast<int64_t>(request.tokens.size()))
        continue;
      targets.push_back({logits.data() + row * v, request.tokens[static_cast<size_t>(next)],
                         &(*scores)[r][static_cast<size_t>(next - request.first_scored)]});
    }
  }
  engine_.parallel()(static_cast<int64_t>(targets.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Target& target = targets[static_cast<size_t>(i)];
      *target.score = ScoreOf(target.row, v, target.token);
    }
  });
  for (const Target& target : targets) {
    if (!std::isfinite(target.score->logprob))
      throw NumericError(StrCat(source(), " gives logits that are not finite"));
  }
}

std::unique_ptr<LogitStream> EngineScorer::Stream(std::span<const int32_t> tokens) {
  return std::make_unique<EngineStream>(decoder_, cache_, tokens, &tokens_run_);
}

}  // namespace tern::tasks
