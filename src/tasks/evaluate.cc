// See evaluate.h. What metrics are made of the results is in metrics.cc.
#include "tasks/evaluate.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "base/error.h"
#include "base/sha256.h"
#include "base/stop_signal.h"
#include "tasks/encode.h"

namespace tern::tasks {
namespace {

// Questions between two looks at the stop signal, each block one call of the scorer.
constexpr int64_t kChoiceBlock = 32, kGenerateBlock = 32, kWindowBlock = 2;
// Part of the journal's keys: another one when the same request would get other numbers.
constexpr char kVersion[] = "tern-tasks-1";

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs what the journal does not have, block by block: run(indices) gives their results in order.
using RunBlock = std::function<std::vector<ItemResult>(const std::vector<int64_t>& items)>;

void RunItems(ModelScorer& scorer, int64_t count, int64_t block, const std::string& key,
              const EvalOptions& options, const RunBlock& run, TaskResult* result) {
  const double begin = Now();
  const int64_t tokens = scorer.tokens_run();
  result->items.resize(static_cast<size_t>(count));
  std::vector<int64_t> missing;
  for (int64_t i = 0; i < count; ++i) {
    const ItemResult* found = options.journal ? options.journal->Find(key, i) : nullptr;
    if (found)
      result->items[static_cast<size_t>(i)] = *found;
    else
      missing.push_back(i);
  }
  int64_t done = count - static_cast<int64_t>(missing.size());
  if (options.progress) options.progress(done, count);
  for (size_t at = 0; at < missing.size(); at += static_cast<size_t>(block)) {
    if (StopRequested())
      throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()), " after ", done, " of ",
                                count, " of ", result->info.name,
                                options.journal ? "; the same call with --resume goes on"
                                                : "; with --out an evaluation can be resumed"));
    const size_t end = std::min(missing.size(), at + static_cast<size_t>(block));
    const std::vector<int64_t> items(missing.begin() + static_cast<std::ptrdiff_t>(at),
                                     missing.begin() + static_cast<std::ptrdiff_t>(end));
    std::vector<ItemResult> results = run(items);
    TERN_CHECK(results.size() == items.size(), results.size(), " results of ", items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      if (options.journal) options.journal->Add(key, items[i], results[i]);
      result->items[static_cast<size_t>(items[i])] = std::move(results[i]);
    }
    done += static_cast<int64_t>(items.size());
    if (options.progress) options.progress(done, count);
  }
  result->seconds = Now() - begin;
  result->tokens_run = scorer.tokens_run() - tokens;
}

std::string KeyOf(const EvalOptions& options, const ModelScorer& scorer,
                  const std::string& protocol, const std::string& data) {
  return Sha256Hex(StrCat(kVersion, "\n", options.model_sha256, "\n", scorer.max_length(), "\n",
                          protocol, "\n", data));
}

int64_t Count(int64_t all, int64_t limit) { return limit > 0 ? std::min(all, limit) : all; }

// The first K examples of the question's group, or of the file when it has no groups. The question
// itself is never one of them.
class Examples {
 public:
  Examples(const TaskInfo& info, const TaskData& data, int count) : count_(count) {
    if (count == 0) return;
    if (!data.examples)
      throw UsageError(StrCat(info.name, " wants ", count, " examples from ", info.name,
                              ".fewshot.jsonl beside its questions, which is not there; make it "
                              "with --import, or use --fewshot 0"));
    for (const TaskItem& item : data.examples->items) groups_[item.group].push_back(&item);
    name_ = info.name;
  }

  std::vector<const TaskItem*> Of(const TaskItem& question) const {
    std::vector<const TaskItem*> chosen;
    if (count_ == 0) return chosen;
    const auto group = groups_.find(question.group);
    if (group != groups_.end()) {
      for (const TaskItem* item : group->second) {
        const bool same = item->contexts == question.contexts && item->choices == question.choices;
        if (!same && static_cast<int>(chosen.size()) < count_) chosen.push_back(item);
      }
    }
    if (static_cast<int>(chosen.size()) < count_)
      throw UsageError(StrCat(name_, " wants ", count_, " examples; ", name_, ".fewshot.jsonl has ",
                              chosen.size(), " others", question.group.empty() ? "" : " of group ",
                              question.group, ". Use a smaller --fewshot"));
    return chosen;
  }

 private:
  int count_;
  std::string name_;
  std::map<std::string, std::vector<const TaskItem*>> groups_;
};

// {log-likelihood of each choice}, then {1 or 0: greedy decoding would write it}.
std::vector<ItemResult> ScoreChoices(ModelScorer& scorer, const Encoder& encoder,
                                     const TaskFile& file, const Examples& examples,
                                     const std::vector<int64_t>& items) {
  std::vector<ScoreRequest> requests;
  std::vector<std::pair<size_t, size_t>> of;  // Question, choice
  std::vector<ItemResult> results(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const TaskItem& item = file.items[static_cast<size_t>(items[i])];
    const std::string before = FewShotText(file.kind, item, examples.Of(item));
    results[i].values.resize(2 * item.num_choices());
    for (size_t c = 0; c < item.num_choices(); ++c) {
      const bool delimited = file.kind == TaskKind::kChoice && item.contexts.size() == 1;
      requests.push_back(encoder.Pair(before + item.context(c),
                                      (delimited ? item.delimiter : "") + item.choice(c)));
      of.emplace_back(i, c);
    }
  }
  scorer.Score(requests, [&](size_t r, const std::vector<TokenScore>& scores) {
    std::vector<double>& values = results[of[r].first].values;
    double sum = 0;
    bool greedy = true;
    for (const TokenScore& score : scores) {
      sum += static_cast<double>(score.logprob);
      greedy = greedy && score.greedy;
    }
    values[of[r].second] = sum;
    values[values.size() / 2 + of[r].second] = greedy ? 1 : 0;
  });
  return results;
}

// The text; of programs also {1: passes its tests, 0: does not}.
std::vector<ItemResult> Write(ModelScorer& scorer, const Encoder& encoder, const TaskInfo& info,
                              const TaskFile& file, const Examples& examples,
                              const Sandbox* sandbox, const std::vector<int64_t>& items) {
  std::vector<GenerateRequest> requests;
  for (const int64_t i : items) {
    const TaskItem& item = file.items[static_cast<size_t>(i)];
    const auto chosen =
        file.kind == TaskKind::kCode ? std::vector<const TaskItem*>{} : examples.Of(item);
    requests.push_back(encoder.Prompt(FewShotText(file.kind, item, chosen) + item.contexts[0],
                                      info.max_new_tokens, info.stop));
  }
  std::vector<ItemResult> results(items.size());
  scorer.Generate(requests, [&](size_t r, std::string text) { results[r].text = std::move(text); });
  for (size_t i = 0; i < items.size() && sandbox; ++i) {
    const TaskItem& item = file.items[static_cast<size_t>(items[i])];
    const std::string program = StrCat(item.contexts[0], results[i].text, "\n", item.test, "\n",
                                       "check(", item.entry_point, ")\n");
    results[i].values = {sandbox->Run(program).outcome == Outcome::kPassed ? 1.0 : 0.0};
  }
  return results;
}

std::string Quoted(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) {
    out += out.empty() ? "" : ", ";
    for (const char c : text) out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
}

std::string Protocol(const TaskInfo& info, int fewshot, const EvalOptions& options) {
  std::string words = StrCat(fewshot, fewshot == 1 ? " example" : " examples", " first, ",
                             options.bos ? "BOS" : "no BOS", ", ");
  switch (info.kind) {
    case TaskKind::kChoice:
      return words +
             "choice of highest log-likelihood given the context (acc), a character (acc_norm), a "
             "byte (acc_bytes)";
    case TaskKind::kContinuation:
      return words + "the continuation is what greedy decoding writes (acc)";
    case TaskKind::kGenerate:
    case TaskKind::kCode:
      words +=
          StrCat("greedy decoding, up to ", info.max_new_tokens, " tokens or ", Quoted(info.stop));
      break;
    case TaskKind::kPerplexity:
      TERN_CHECK(false, "a text is no question");
  }
  if (info.kind == TaskKind::kCode)
    words += StrCat("; run in a sandbox, ", options.sandbox->wall_seconds, " s and ",
                    options.sandbox->memory_bytes >> 20, " MiB a program");
  else if (info.numbers)
    words += "; strict: the number after ####, flexible: the last number";
  return words;
}

// What was promised of the sandbox is seen before the first program runs.
void ProveSandbox(const Sandbox& sandbox) {
  const SandboxResult works = sandbox.Run("pass");
  TERN_CHECK_INPUT(works.outcome == Outcome::kPassed, sandbox.options().python,
                   " does not run in the sandbox: ", works.message);
  if (sandbox.options().unsafe) return;
  const SandboxResult open =
      sandbox.Run("import socket\ntry:\n  socket.socket()\nexcept OSError:\n  raise SystemExit(3)");
  TERN_CHECK(open.outcome == Outcome::kFailed, "a program in the sandbox has the network");
}

}  // namespace

TaskResult RunTask(ModelScorer& scorer, const TaskInfo& info, const TaskData& data,
                   const EvalOptions& options) {
  const TaskFile& file = data.questions;
  TERN_CHECK(file.kind == info.kind, "questions of another kind than ", info.name);
  const int fewshot = file.kind == TaskKind::kCode ? 0 : options.fewshot.value_or(info.fewshot);
  TaskResult result;
  result.info = info;
  std::optional<Sandbox> sandbox;
  if (info.kind == TaskKind::kCode) {
    if (!options.sandbox)
      throw UsageError(StrCat(info.name,
                              " runs programs that the model writes; allow it with "
                              "--run-code (they run in a sandbox, docs/tasks.md)"));
    sandbox.emplace(*options.sandbox);
    ProveSandbox(*sandbox);
  }
  const Encoder encoder(scorer, options.bos);
  const Examples examples(info, data, fewshot);
  result.protocol = Protocol(info, fewshot, options);
  const std::string key =
      KeyOf(options, scorer, StrCat(info.name, "\n", result.protocol),
            file.sha256 + "\n" + (data.examples && fewshot > 0 ? data.examples->sha256 : ""));
  const int64_t count = Count(static_cast<int64_t>(file.items.size()), options.limit);
  const bool scored = info.kind == TaskKind::kChoice || info.kind == TaskKind::kContinuation;
  RunItems(
      scorer, count, scored ? kChoiceBlock : kGenerateBlock, key, options,
      [&](const std::vector<int64_t>& items) {
        return scored ? ScoreChoices(scorer, encoder, file, examples, items)
                      : Write(scorer, encoder, info, file, examples, sandbox ? &*sandbox : nullptr,
                              items);
      },
      &result);
  FillMetrics(file, options.seed, &result);
  return result;
}

TaskResult RunPerplexity(ModelScorer& scorer, const std::string& text, const EvalOptions& options) {
  PerplexityProtocol protocol = options.perplexity;
  protocol.bos = options.bos;
  if (protocol.context > scorer.max_length())
    throw UsageError(StrCat("windows of ", protocol.context, " tokens; ", scorer.source(),
                            " takes ", scorer.max_length(), ". Use --context ",
                            scorer.max_length()));
  TaskResult result;
  result.info = InfoOf("perplexity");
  result.protocol = Describe(protocol);
  const Encoder encoder(scorer, options.bos);
  const std::vector<int32_t> ids = encoder.Text(text);
  const std::vector<Window> windows = Windows(protocol, static_cast<int64_t>(ids.size()));
  const std::string key = KeyOf(options, scorer, result.protocol, Sha256Hex(text));
  RunItems(
      scorer, Count(static_cast<int64_t>(windows.size()), options.limit), kWindowBlock, key,
      options,
      [&](const std::vector<int64_t>& items) {
        std::vector<ScoreRequest> requests;
        for (const int64_t i : items)
          requests.push_back(encoder.Cut(ids, windows[static_cast<size_t>(i)], protocol));
        std::vector<ItemResult> results(items.size());
        scorer.Score(requests, [&](size_t r, const std::vector<TokenScore>& scores) {
          double sum = 0;
          for (const TokenScore& score : scores) sum -= static_cast<double>(score.logprob);
          results[r].values = {sum, static_cast<double>(scores.size())};
        });
        return results;
      },
      &result);
  FillPerplexity(options.seed, &result);
  return result;
}

}  // namespace tern::tasks
