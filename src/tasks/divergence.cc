// The divergence of two models on a text (compare.h): both read the same windows side by side, some
// rows at a time, so that no window's logits are ever held as a whole.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/sha256.h"
#include "base/stop_signal.h"
#include "tasks/compare.h"
#include "tasks/encode.h"

namespace tern::tasks {
namespace {

constexpr int64_t kRows = 128;  // Rows of both models' logits at a time
constexpr char kVersion[] = "tern-divergence-1";

struct Row {
  double nll = 0, reference_nll = 0, kl = 0;
  bool agree = false;
};

// In double: sum of e^(z - max), and the first of the highest.
struct Softmax {
  Softmax(std::span<const float> logits) {
    best = static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    const double max = static_cast<double>(logits[best]);
    for (const float z : logits) sum += std::exp(static_cast<double>(z) - max);
    log_sum = max + std::log(sum);
  }
  size_t best;
  double sum = 0, log_sum = 0;
};

Row CompareRows(std::span<const float> model, std::span<const float> reference, int32_t target) {
  const Softmax ours(model), theirs(reference);
  Row row;
  const auto at = static_cast<size_t>(target);
  row.nll = ours.log_sum - static_cast<double>(model[at]);
  row.reference_nll = theirs.log_sum - static_cast<double>(reference[at]);
  row.agree = ours.best == theirs.best;
  // sum p (log p - log q) = sum p (z_p - z_q) - (log_sum_p - log_sum_q)
  for (size_t j = 0; j < model.size(); ++j) {
    const double z = static_cast<double>(reference[j]);
    row.kl += std::exp(z - theirs.log_sum) * (z - static_cast<double>(model[j]));
  }
  row.kl = std::max(0.0, row.kl - (theirs.log_sum - ours.log_sum));  // Below 0 by rounding alone
  return row;
}

// values: nll, reference nll, tokens with the same first choice, then each token's divergence.
ItemResult RunWindow(ModelScorer& model, ModelScorer& reference, const ScoreRequest& request) {
  const std::span<const int32_t> text(request.tokens);
  const auto rows = static_cast<int64_t>(text.size()) - 1;  // The last token is only predicted
  const auto v = static_cast<size_t>(model.vocab_size());
  const auto ours = model.Stream(text), theirs = reference.Stream(text);
  ItemResult result{{0, 0, 0}, ""};
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int64_t count = std::min(kRows, rows - begin);
    const std::vector<float> a = ours->Next(count), b = theirs->Next(count);
    std::vector<Row> compared(static_cast<size_t>(count));
    model.parallel()(count, 1, [&](int64_t first, int64_t end) {
      for (int64_t i = first; i < end; ++i) {
        const int64_t next = begin + i + 1;
        if (next < request.first_scored) continue;
        const size_t at = static_cast<size_t>(i) * v;
        compared[static_cast<size_t>(i)] =
            CompareRows(std::span(a).subspan(at, v), std::span(b).subspan(at, v),
                        text[static_cast<size_t>(next)]);
      }
    });
    for (int64_t i = std::max<int64_t>(0, request.first_scored - 1 - begin); i < count; ++i) {
      const Row& row = compared[static_cast<size_t>(i)];
      if (!std::isfinite(row.kl) || !std::isfinite(row.nll) || !std::isfinite(row.reference_nll))
        throw NumericError(StrCat(model.source(), " or ", reference.source(),
                                  " gives logits that are not finite"));
      result.values[0] += row.nll;
      result.values[1] += row.reference_nll;
      result.values[2] += row.agree ? 1 : 0;
      result.values.push_back(row.kl);
    }
  }
  return result;
}

int64_t TokensOf(const ItemResult& item) { return static_cast<int64_t>(item.values.size()) - 3; }

// All divergences in ascending order, with the window of each.
struct Sorted {
  std::vector<double> values;
  std::vector<size_t> window;

  explicit Sorted(const std::vector<ItemResult>& items) {
    std::vector<std::pair<double, size_t>> all;
    for (size_t w = 0; w < items.size(); ++w)
      for (size_t i = 3; i < items[w].values.size(); ++i) all.emplace_back(items[w].values[i], w);
    std::sort(all.begin(), all.end());
    for (const auto& [value, w] : all) {
      values.push_back(value);
      window.push_back(w);
    }
  }

  // The smallest value that 99 % of the drawn tokens do not pass.
  double P99(std::span<const int32_t> times) const {
    int64_t all = 0, seen = 0;
    for (const size_t w : window) all += times[w];
    for (size_t i = 0; i < values.size(); ++i) {
      seen += times[window[i]];
      if (100 * seen >= 99 * all) return values[i];
    }
    return values.back();
  }
};

void Fill(const std::vector<ItemResult>& items, uint64_t seed, Divergence* result) {
  const auto units = static_cast<int64_t>(items.size());
  const std::vector<int32_t> once(items.size(), 1);
  const auto mean = [&](const auto& of) {
    return [&items, of](std::span<const int32_t> times) {
      double sum = 0, count = 0;
      for (size_t i = 0; i < times.size(); ++i) {
        sum += times[i] * of(items[i]);
        count += static_cast<double>(times[i] * TokensOf(items[i]));
      }
      return sum / count;
    };
  };
  const auto add = [&](const char* name, const Statistic& statistic) {
    result->metrics.push_back(
        {name, statistic(once), Bootstrap(units, seed, statistic), "bootstrap", result->tokens});
  };
  for (const ItemResult& item : items) result->tokens += TokensOf(item);
  const auto kl = [](const ItemResult& item) {
    return std::accumulate(item.values.begin() + 3, item.values.end(), 0.0);
  };
  const auto at = [](size_t i) { return [i](const ItemResult& item) { return item.values[i]; }; };
  const Sorted sorted(items);
  const Statistic nll = mean(at(0)), reference = mean(at(1));
  add("kl_mean", mean(kl));
  add("kl_p99", [&](std::span<const int32_t> times) { return sorted.P99(times); });
  const double max = sorted.values.back();
  result->metrics.push_back({"kl_max", max, {max, max}, "none", result->tokens});
  add("top1_agreement", mean(at(2)));
  add("perplexity", [&](auto times) { return std::exp(nll(times)); });
  add("reference_perplexity", [&](auto times) { return std::exp(reference(times)); });
  add("recovery", [&](auto times) { return 100 * std::exp(reference(times) - nll(times)); });
}

}  // namespace

Divergence RunDivergence(ModelScorer& model, ModelScorer& reference, const std::string& text,
                         const EvalOptions& options) {
  if (model.vocab_size() != reference.vocab_size())
    throw UsageError(StrCat(model.source(), " has ", model.vocab_size(), " tokens, ",
                            reference.source(), " ", reference.vocab_size(),
                            "; only models of one vocabulary can be compared"));
  PerplexityProtocol protocol = options.perplexity;
  protocol.bos = options.bos;
  const int64_t longest = std::min(model.max_length(), reference.max_length());
  if (protocol.context > longest)
    throw UsageError(StrCat("windows of ", protocol.context, " tokens; the models take ", longest,
                            ". Use --context ", longest));
  const Encoder encoder(model, options.bos);
  const std::vector<int32_t> ids = encoder.Text(text);
  if (Encoder(reference, options.bos).Text(text) != ids)
    throw UsageError(StrCat(model.source(), " and ", reference.source(),
                            " encode the text differently; only models of one tokenizer can be "
                            "compared"));
  const std::vector<Window> windows = Windows(protocol, static_cast<int64_t>(ids.size()));
  const auto all = static_cast<int64_t>(windows.size());
  const int64_t count = options.limit > 0 ? std::min(all, options.limit) : all;
  const std::string key = Sha256Hex(StrCat(kVersion, "\n", options.model_sha256, "\n",
                                           Describe(protocol), "\n", Sha256Hex(text)));
  Divergence result;
  result.protocol = StrCat("KL(reference || model) a token; ", Describe(protocol));
  const auto start = std::chrono::steady_clock::now();
  std::vector<ItemResult> items;
  for (int64_t w = 0; w < count; ++w) {
    const ItemResult* found = options.journal ? options.journal->Find(key, w) : nullptr;
    if (found) {
      items.push_back(*found);
      continue;
    }
    if (StopRequested())
      throw StoppedError(
          StrCat("stopped by ", SignalName(StopSignal()), " after ", w, " of ", count, " windows"));
    items.push_back(
        RunWindow(model, reference, encoder.Cut(ids, windows[static_cast<size_t>(w)], protocol)));
    if (options.journal) options.journal->Add(key, w, items.back());
    if (options.progress) options.progress(w + 1, count);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  Fill(items, options.seed, &result);
  return result;
}

}  // namespace tern::tasks
