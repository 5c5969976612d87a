// Around the model: windows, intervals, answers, task files and importers (strict), journals that
// are resumed to the same bits, comparisons, and the verb.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/stop_signal.h"
#include "data/batch.h"
#include "data/token_file.h"
#include "engine_cli/eval.h"
#include "engine_cli/run_main.h"
#include "tasks/answers.h"
#include "tasks/compare.h"
#include "tasks/import.h"
#include "tasks/report.h"
#include "tests/tasks/tiny_scorer.h"

namespace tern::testing {
namespace {

using nlohmann::json;
using tasks::EvalOptions;
using tasks::PerplexityProtocol;
using tasks::ResultJournal;
using tasks::TaskData;
using tasks::TaskResult;
using tasks::Window;
using tasks::WindowRule;

template <class E>
std::string MessageOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

std::vector<std::array<int64_t, 3>> Cut(const PerplexityProtocol& protocol, int64_t tokens) {
  std::vector<std::array<int64_t, 3>> cut;
  for (const Window& w : tasks::Windows(protocol, tokens))
    cut.push_back({w.begin, w.end, w.first_scored});
  return cut;
}

TEST(WindowsTest, ProtocolsCutAsTheySay) {
  using Cuts = std::vector<std::array<int64_t, 3>>;
  EXPECT_EQ(Cut({WindowRule::kPapers, 4, 0, false}, 11), (Cuts{{0, 4, 1}, {4, 8, 5}}));
  // llama.cpp counts the logits of positions n/2 to n-2: the tokens after n/2.
  EXPECT_EQ(Cut({WindowRule::kLlamaCpp, 8, 0, false}, 16), (Cuts{{0, 8, 5}, {8, 16, 13}}));
  EXPECT_EQ(Cut({WindowRule::kSliding, 4, 2, false}, 7), (Cuts{{0, 4, 1}, {2, 6, 4}, {4, 7, 6}}));
  EXPECT_THROW(Cut({WindowRule::kPapers, 4, 0, false}, 3), InputError);
  EXPECT_THROW(Cut({WindowRule::kSliding, 4, 2, false}, 1), InputError);
  EXPECT_THROW(Cut({WindowRule::kSliding, 4, 4, false}, 9), UsageError);
  EXPECT_THROW(Cut({WindowRule::kPapers, 1, 0, false}, 9), UsageError);
  EXPECT_THROW(tasks::ProtocolByName("paper"), UsageError);
}

// The trainer's windows of T tokens are `sliding` with context T + 1 and stride T.
TEST(WindowsTest, SlidingGivesTheTrainersWindows) {
  for (const int64_t tokens : {2, 3, 17, 64, 65, 66, 1000}) {
    const data::TokenFile file = data::TokenFile::FromTokens(
        {{1, 2}}, {std::vector<int32_t>(static_cast<size_t>(tokens), 1)}, 4);
    const auto theirs = data::EvalWindows(file, data::Split::kValidation, 16);
    const auto ours = tasks::Windows({WindowRule::kSliding, 17, 16, false}, tokens);
    ASSERT_EQ(ours.size(), theirs.size()) << tokens;
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_EQ(ours[i].begin, theirs[i].start);
      EXPECT_EQ(ours[i].first_scored, theirs[i].start + 1);
      EXPECT_EQ(ours[i].end - ours[i].first_scored, theirs[i].targets);
    }
  }
}

// The bounds of 7 of 10 are the roots q of (p - q)^2 = z^2 q (1 - q) / n, which is what Wilson's
// interval inverts, solved as a quadratic equation in Python: 0.39677815 and 0.89220873. And what
// must hold at the borders.
TEST(IntervalsTest, WilsonAndBootstrap) {
  const tasks::Interval seven = tasks::Wilson(7, 10);
  EXPECT_NEAR(seven.low, 0.3967781, 1e-7);
  EXPECT_NEAR(seven.high, 0.8922087, 1e-7);
  EXPECT_EQ(tasks::Wilson(0, 5).low, 0);
  EXPECT_EQ(tasks::Wilson(5, 5).high, 1);
  EXPECT_EQ(tasks::Wilson(0, 0).high, 1);
  const double sorted[] = {0, 10};
  EXPECT_EQ(tasks::Percentile(sorted, 25), 2.5);
  const auto mean = [](std::span<const int32_t> times) {
    double sum = 0;
    for (size_t i = 0; i < times.size(); ++i) sum += times[i] * static_cast<double>(i);
    return sum / static_cast<double>(times.size());
  };
  // Mean of 0 .. 99: 49.5, standard error 28.87 / 10; the percentiles are at 1.96 of it, and the
  // 1000 draws put them within 0.15 standard errors (4 sigma of a 2.5 % quantile is 0.34).
  const tasks::Interval interval = tasks::Bootstrap(100, 1, mean);
  EXPECT_NEAR(interval.low, 49.5 - 1.96 * 2.887, 1.0);
  EXPECT_NEAR(interval.high, 49.5 + 1.96 * 2.887, 1.0);
  EXPECT_EQ(tasks::Bootstrap(100, 1, mean).low, interval.low);
  EXPECT_NE(tasks::Bootstrap(100, 2, mean).low, interval.low);
}

// What Python's re gives (findall, sub; run with Python 3.11) for the harness's patterns for GSM8K:
// #### (\-?[0-9\.\,]+) the first, (-?[$0-9.,]{2,})|(-?[0-9]+) the last, and without matches of
// [,], \$, (?s).*####[ ] and \.$ in this order.
TEST(AnswersTest, NumbersOutOfText) {
  EXPECT_EQ(tasks::StrictAnswer("so\n#### 1,234.\nQ"), "1,234.");
  EXPECT_EQ(tasks::StrictAnswer("#### -5 #### 7"), "-5");
  EXPECT_EQ(tasks::StrictAnswer("#### x\n#### 3"), "3");
  EXPECT_EQ(tasks::StrictAnswer("####5"), tasks::kNoAnswer);
  EXPECT_EQ(tasks::StrictAnswer(""), tasks::kNoAnswer);
  EXPECT_EQ(tasks::FlexibleAnswer("it is $1,200.50 or 7"), "7");
  EXPECT_EQ(tasks::FlexibleAnswer("makes -$42."), "-$42.");
  EXPECT_EQ(tasks::FlexibleAnswer("well..."), "...");
  EXPECT_EQ(tasks::FlexibleAnswer("a-5b"), "-5");
  EXPECT_EQ(tasks::FlexibleAnswer("none"), tasks::kNoAnswer);
  EXPECT_EQ(tasks::NormalizedAnswer("He has\n#### $1,234."), "1234");
  EXPECT_EQ(tasks::NormalizedAnswer("1.5.\n"), "1.5\n");
  EXPECT_EQ(tasks::NormalizedAnswer("."), "");
}

TEST(TaskFileTest, ReadsEveryFormAndGivesItBack) {
  const TempFolder folder;
  for (const std::string line :
       {R"({"id":"a","group":"g","preamble":"p","context":"c","choices":["x","y"],"gold":1})",
        R"({"contexts":["c","d"],"continuation":" e","gold":0})",
        R"({"context":"c","continuation":" d"})", R"({"prompt":"p","answer":"a"})",
        R"({"task_id":"t","prompt":"p","test":"def check(f): pass","entry_point":"f"})"}) {
    WriteFileAtomically(folder / "t.jsonl", line + "\n");
    const tasks::TaskFile file = tasks::ReadTaskFile(folder / "t.jsonl");
    ASSERT_EQ(file.items.size(), 1u);
    EXPECT_EQ(json::parse(tasks::TaskLine(file.kind, file.items[0])), json::parse(line));
  }
}

TEST(TaskFileTest, RefusesWithFileAndLine) {
  const TempFolder folder;
  const std::string good = R"({"context":"c","choices":["x","y"],"gold":1})";
  const std::pair<std::string, std::string> cases[] = {
      {R"({"context":"c","choices":["x","y"],"gold":1,"golden":2})", "unknown key \"golden\""},
      {R"({"context":"c","choices":["x","y"]})", "gold is missing"},
      {R"({"context":"c","choices":["x","y"],"gold":2})", "gold is 2; want 0 to 1"},
      {R"({"context":"c","choices":["x","y"],"gold":-1})", "gold is -1"},
      {R"({"context":"c","choices":["x","y"],"gold":18446744073709551615})", "gold is 1844"},
      {R"({"context":"c","choices":["x","y"],"gold":1.0})", "want a whole number"},
      {R"({"context":"c","choices":["x","y"],"gold":true})", "want a whole number"},
      {R"({"context":7,"choices":["x","y"],"gold":1})", "context is 7; want a text"},
      {R"({"context":"c","choices":["x",1],"gold":1})", "want a list of texts"},
      {R"({"context":"c","choices":["x"],"gold":0})", "1 choices; want 2"},
      {R"({"context":"c","choices":["x",""],"gold":0})", "an empty choice"},
      {R"({"context":"c","choices":["x","y"],"gold":1,"gold":0})", "gold"},
      {R"({"prompt":"p","answer":"a"})", "in a file of questions with"},
      {R"({"question":"?"})", "no question of a known form"},
      {R"([1])", "t.jsonl:2"},
      {R"({"context":)", "t.jsonl:2"}};
  for (const auto& [line, want] : cases) {
    WriteFileAtomically(folder / "t.jsonl", good + "\n" + line + "\n");
    const std::string message =
        MessageOf<FormatError>([&] { tasks::ReadTaskFile(folder / "t.jsonl"); });
    EXPECT_NE(message.find(want), message.npos) << line << "\n" << message;
    EXPECT_NE(message.find("t.jsonl:2"), message.npos) << message;
  }
  WriteFileAtomically(folder / "t.jsonl", "\n");
  EXPECT_THROW(tasks::ReadTaskFile(folder / "t.jsonl"), InputError);
  EXPECT_THROW(tasks::ReadTaskFile(folder / "none.jsonl"), InputError);
  EXPECT_THROW(tasks::InfoOf("../x"), UsageError);
}

// Bytes of a good file flipped, cut and repeated: read, or refused with a typed error.
TEST(TaskFileFuzzTest, DamagedFilesAreReadOrRefused) {
  const TempFolder folder;
  const std::string good = R"({"id":"a","context":"c é","choices":["x","y"],"gold":1})"
                           "\n"
                           R"({"context":"d","choices":["\u00e9","z","w"],"gold":2,"delimiter":""})"
                           "\n";
  RandomStream random(7, "task files");
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string bytes = good;
    for (uint64_t edits = 1 + random.NextU64() % 3; edits > 0; --edits) {
      const size_t at = random.NextU64() % bytes.size();
      switch (random.NextU64() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random.NextU64());
          break;
        case 1:
          bytes.erase(at, 1 + random.NextU64() % 5);
          break;
        case 2:
          bytes.insert(at, bytes.substr(random.NextU64() % bytes.size(), 9));
          break;
        case 3:
          bytes.insert(at, std::string(1, "{}[]\":,\\0-e"[random.NextU64() % 11]));
          break;
      }
      if (bytes.empty()) bytes = "x";
    }
    std::ofstream(folder / "t.jsonl") << bytes;  // No fsync: there are hundreds
    try {
      for (const auto& item : tasks::ReadTaskFile(folder / "t.jsonl").items)
        EXPECT_LT(item.gold, static_cast<int64_t>(item.num_choices()));
    } catch (const FormatError&) {
      ++refused;
    } catch (const InputError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 130);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    for (uint64_t n = random.NextU64() % 30; n > 0; --n) bytes += "a,\"\r\n"[random.NextU64() % 5];
    try {
      for (const tasks::CsvRow& row : tasks::ParseCsv(bytes, "f.csv"))
        EXPECT_FALSE(row.fields.empty());
    } catch (const FormatError&) {
    }
  }
}

// Rows as Python's csv.reader gives them for this text, but for its empty row, which is dropped.
TEST(ImportTest, CsvWithQuotes) {
  const auto rows = tasks::ParseCsv("a,\"b,\"\"c\"\"\nd\",\r\n\r\n\"\",e", "f.csv");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].fields, (std::vector<std::string>{"a", "b,\"c\"\nd", ""}));
  EXPECT_EQ(rows[1].fields, (std::vector<std::string>{"", "e"}));
  EXPECT_EQ(rows[1].line, 4);
  EXPECT_THROW(tasks::ParseCsv("a,\"b", "f.csv"), FormatError);
  EXPECT_THROW(tasks::ParseCsv("\"a\"b", "f.csv"), FormatError);
}

json Imported(const std::string& task, const std::string& record, const std::string& name) {
  const TempFolder folder;
  WriteFileAtomically(folder / name, record + "\n");
  EXPECT_EQ(tasks::ImportTask(task, folder / name, folder / "out.jsonl"), 1);
  tasks::ReadTaskFile(folder / "out.jsonl");
  return json::parse(ReadFile(folder / "out.jsonl"));
}

// Prompts of lm-evaluation-harness 0.4.13: its definitions of these tasks (templates by jinja2, and
// the functions of hellaswag and winogrande) were run on these records, but for the authors'
// layouts of ARC and MMLU, which it does not read.
TEST(ImportTest, PromptsAreThoseOfTheHarness) {
  const json arc = Imported("arc_challenge",
                            R"({"id":"M1","question":"Why?","choices":{"text":["a","b","c"],)"
                            R"("label":["A","B","C"]},"answerKey":"C"})",
                            "a.jsonl");
  EXPECT_EQ(arc, json::parse(R"({"id":"M1","context":"Question: Why?\nAnswer:",)"
                             R"("choices":["a","b","c"],"gold":2})"));
  EXPECT_EQ(Imported("arc_easy",
                     R"({"id":"M1","question":{"stem":"Why?","choices":[{"text":"a","label":"1"},)"
                     R"({"text":"b","label":"2"},{"text":"c","label":"3"}]},"answerKey":"3"})",
                     "a.jsonl"),
            arc);
  const json swag = Imported(
      "hellaswag",
      R"({"activity_label":"Baking","ctx_a":"A man [step] bakes.","ctx_b":"he [title] EATS",)"
      R"("endings":["a  cake","[header] b","c","d"],"label":"1"})",
      "a.jsonl");
  EXPECT_EQ(swag["context"], "Baking: A man bakes. He. eats");
  EXPECT_EQ(swag["choices"], json::parse(R"(["a cake"," b","c","d"])"));
  const json mmlu = Imported("mmlu", "\"What, now?\",p,q,r,s,B", "high_school_art_test.csv");
  EXPECT_EQ(mmlu["context"], "What, now?\nA. p\nB. q\nC. r\nD. s\nAnswer:");
  EXPECT_EQ(
      mmlu["preamble"],
      "The following are multiple choice questions (with answers) about high school art.\n\n");
  EXPECT_EQ(mmlu["gold"], 1);
  const json winogrande = Imported(
      "winogrande", R"({"sentence":"The _ is big. ","option1":"A","option2":"B","answer":"2"})",
      "a.json");
  EXPECT_EQ(winogrande,
            json::parse(R"({"contexts":["The A","The B"],"continuation":" is big.","gold":1})"));
  EXPECT_EQ(Imported("lambada", R"({"text":"a b c."})", "a.jsonl"),
            json::parse(R"({"context":"a b","continuation":" c."})"));
  EXPECT_EQ(Imported("boolq", R"({"passage":"P","question":"is it","answer":true})",
                     "a.jsonl")["context"],
            "P\nQuestion: is it?\nAnswer:");
  EXPECT_EQ(Imported("gsm8k", R"({"question":"1+1","answer":"x\n#### 2"})", "a.jsonl")["prompt"],
            "Question: 1+1\nAnswer:");
  EXPECT_THROW(Imported("nothing", "{}", "a.jsonl"), UsageError);
  EXPECT_NE(MessageOf<FormatError>([] {
              Imported("piqa", R"({"goal":"g","sol1":"a","sol2":"b","label":-1})", "a.jsonl");
            }).find("a.jsonl:1: label is -1"),
            std::string::npos);
}

std::string Questions(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    lines += json{{"context", "To be " + std::string(static_cast<size_t>(i % 5), 'o')},
                  {"choices", {"Tobe", "o" + std::to_string(i), "bet"}},
                  {"group", i % 2 ? "odd" : "even"},
                  {"gold", i % 3}}
                 .dump() +
             "\n";
  }
  return lines;
}

// Wherever an evaluation was stopped, and however its journal was torn, it goes on to the same
// document.
TEST(EvaluateTest, ResumesToTheSameBits) {
  const TempFolder folder;
  WriteFileAtomically(folder / "q.jsonl", Questions(70));
  const TaskData data{tasks::ReadTaskFile(folder / "q.jsonl"), {}};
  tasks::TaskInfo info = tasks::InfoOf("q");
  tasks::CheckKind(&info, data.questions.kind, "q");
  const std::string journal = folder / "j.jsonl";
  const auto run = [&](bool resume) {
    TinyScorer tiny;
    ResultJournal results(journal, resume);
    EvalOptions options;
    options.journal = &results;
    options.model_sha256 = "m";
    tasks::Report report;
    report.results = {tasks::RunTask(*tiny, info, data, options)};
    report.results[0].seconds = 0;
    report.results[0].tokens_run = 0;
    report.activations = "int16";
    report.cache = "f16";
    return tasks::JsonOf(report);
  };
  const std::string want = run(false);
  EXPECT_NE(want.find("\"activations\": \"int16\",\n \"cache\": \"f16\""), std::string::npos);
  EXPECT_THROW(run(false), UsageError);
  const std::string whole = ReadFile(journal);
  EXPECT_EQ(std::count(whole.begin(), whole.end(), '\n'), 70);
  for (const size_t kept : {size_t{0}, whole.size() / 3, whole.size() - 2}) {
    WriteFileAtomically(journal, whole.substr(0, kept));
    EXPECT_EQ(run(true), want);
    EXPECT_EQ(ReadFile(journal), whole);
  }
  WriteFileAtomically(journal, "{\"key\":1}\n");
  EXPECT_THROW(run(true), FormatError);
}

TEST(EvaluateTest, ChoicesAreTheHighestLikelihoods) {
  const TempFolder folder;
  WriteFileAtomically(folder / "q.jsonl", Questions(12));
  const TaskData data{tasks::ReadTaskFile(folder / "q.jsonl"), {}};
  TinyScorer tiny;
  tasks::TaskInfo info = tasks::InfoOf("q");
  tasks::CheckKind(&info, data.questions.kind, "q");
  const TaskResult result = tasks::RunTask(*tiny, info, data, {});
  int64_t right = 0, norm = 0;
  for (size_t i = 0; i < 12; ++i) {
    const std::vector<double>& values = result.items[i].values;
    size_t best = 0, best_norm = 0;
    for (size_t c = 0; c < 3; ++c) {
      const auto length = [&](size_t k) {
        return static_cast<double>(data.questions.items[i].choices[k].size());
      };
      if (values[c] > values[best]) best = c;
      if (values[c] / length(c) > values[best_norm] / length(best_norm)) best_norm = c;
    }
    right += best == i % 3;
    norm += best_norm == i % 3;
    EXPECT_EQ(result.answers[i], static_cast<int32_t>(best));
  }
  EXPECT_EQ(result.metrics[0].name, "acc");
  EXPECT_DOUBLE_EQ(result.metrics[0].value, static_cast<double>(right) / 12);
  EXPECT_DOUBLE_EQ(result.metrics[1].value, static_cast<double>(norm) / 12);
  ASSERT_EQ(result.groups.size(), 2u);
  EXPECT_NEAR(result.metrics[3].value, (result.groups[0].value + result.groups[1].value) / 2,
              1e-15);
}

// Against itself a model has no divergence, no flips, and recovers all.
TEST(CompareTest, AgainstItselfAndAnother) {
  TinyScorer model, same, other({}, 1, 52);
  std::string text;
  RandomStream random(3, "text");
  for (int i = 0; i < 600; ++i) text += "Tobe xyz."[random.NextU64() % 9];
  EvalOptions options;
  options.perplexity = {WindowRule::kLlamaCpp, 64, 0, false};
  const tasks::Divergence none = tasks::RunDivergence(*model, *same, text, options);
  EXPECT_EQ(none.metrics[0].value, 0);
  EXPECT_EQ(none.metrics[2].value, 0);
  EXPECT_EQ(none.metrics[3].value, 1);
  EXPECT_EQ(none.metrics[6].value, 100);
  const tasks::Divergence some = tasks::RunDivergence(*model, *other, text, options);
  EXPECT_GT(some.metrics[0].value, 0);
  EXPECT_GE(some.metrics[2].value, some.metrics[1].value);
  EXPECT_LE(some.metrics[0].interval.low, some.metrics[0].value);
  EXPECT_LT(some.metrics[3].value, 1);
  // The perplexities are those of the task, up to its float logarithms (2^-18 a token, see
  // scorer_test.cc).
  const TaskResult perplexity = tasks::RunPerplexity(*model, text, options);
  EXPECT_NEAR(some.metrics[4].value / perplexity.metrics[0].value, 1, 1e-5);
}

TEST(CompareTest, CountsFlipsInBothDirections) {
  const auto result = [](std::vector<int32_t> answers, std::vector<uint8_t> right) {
    TaskResult r;
    r.info = tasks::InfoOf("arc_easy");
    r.items.resize(answers.size());
    r.answers = std::move(answers);
    r.right = std::move(right);
    r.metrics = {{"acc", 0, {}, "Wilson", 4}};
    return r;
  };
  const tasks::Comparison c =
      tasks::Compare({result({0, 1, 2, 3}, {0, 1, 0, 1})}, {result({1, 1, 3, 2}, {1, 1, 0, 0})}, 1);
  EXPECT_EQ(c.tasks[0].changed, 3);
  EXPECT_EQ(c.tasks[0].right_to_wrong, 1);
  EXPECT_EQ(c.tasks[0].wrong_to_right, 1);
  EXPECT_EQ(c.tasks[0].recovery->value, 100);
  EXPECT_EQ(c.mean_recovery->value, 100);
  EXPECT_FALSE(tasks::Compare({result({0}, {1})}, {result({1}, {0})}, 1).mean_recovery);
}

int Call(std::vector<std::string> arguments, std::string* out) {
  CLI::App app;
  app.require_subcommand(1);
  engine_cli::AddEvalCommand(app);
  arguments.insert(arguments.begin(), {"tern", "eval"});
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const int code = engine_cli::RunMain(app, static_cast<int>(argv.size()), argv.data());
  *out = ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr();
  return code;
}

TEST(EvalVerbTest, TablesDocumentsAndErrors) {
  const TempFolder folder;
  TinyScorer model, other({}, 1, 52);
  WriteFileAtomically(folder / "q.jsonl", Questions(9));
  WriteFileAtomically(folder / "q.fewshot.jsonl", Questions(4));
  std::string text;
  for (int i = 0; i < 60; ++i) text += "To be, ";
  WriteFileAtomically(folder / "perplexity.txt", text);
  WriteFileAtomically(folder / "humaneval.jsonl",
                      R"({"task_id":"t","prompt":"def f():","test":"","entry_point":"f"})"
                      "\n");
  const std::string data = folder / "";
  std::string out;
  EXPECT_EQ(Call({model.path(), "--task", "q,perplexity", "--data", data, "--context", "32",
                  "--fewshot", "1", "--against", other.path(), "-o", folder / "o.json"},
                 &out),
            0)
      << out;
  EXPECT_NE(out.find("recovery %"), out.npos) << out;
  EXPECT_NE(out.find("1 example first, BOS"), out.npos) << out;
  const json document = json::parse(ReadFile(folder / "o.json"));
  EXPECT_EQ(document["tasks"].size(), 2u);
  EXPECT_EQ(document["comparison"]["tasks"][0]["task"], "q");
  EXPECT_EQ(Call({model.path(), "--against", other.path(), "--data", folder / "perplexity.txt",
                  "--context", "32", "--json"},
                 &out),
            0);
  EXPECT_GT(json::parse(out)["divergence"]["metrics"][0]["value"], 0);
  EXPECT_EQ(Call({model.path(), "--task", "humaneval", "--data", data}, &out), 2);
  EXPECT_NE(out.find("--run-code"), out.npos) << out;
  EXPECT_EQ(Call({model.path(), "--task", "q", "--data", data, "--fewshot", "9"}, &out), 2) << out;
  EXPECT_EQ(Call({model.path(), "--task", "mmlu", "--data", data}, &out), 3) << out;
  // The file's add_bos_token decides, not that the vocabulary has a BOS.
  TinyScorer plain({}, 1, 51, false);
  EXPECT_EQ(Call({plain.path(), "--task", "q", "--data", data}, &out), 0) << out;
  EXPECT_NE(out.find("0 examples first, no BOS"), out.npos) << out;
  EXPECT_EQ(Call({plain.path(), "--task", "q", "--data", data, "--bos", "yes"}, &out), 2) << out;
  EXPECT_EQ(Call({model.path(), "--task", "q"}, &out), 2) << out;
  EXPECT_EQ(Call({model.path(), "--task", "perplexity", "--data", data}, &out), 2) << out;
}

}  // namespace
}  // namespace tern::testing
