// tern eval: perplexity, multiple choice, generation and code tasks of a model, also against a
// reference; and --import, which makes task files of dataset files.
#include "engine_cli/eval.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "base/stop_signal.h"
#include "data/record_file.h"
#include "engine_cli/model_options.h"
#include "tasks/compare.h"
#include "tasks/evaluate.h"
#include "tasks/import.h"
#include "tasks/report.h"

namespace tern::engine_cli {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string model, against, data, output, bos = "auto", protocol = "papers", field = "text";
  std::vector<std::string> tasks, import;
  int64_t context = 0, stride = 0;
  int fewshot = -1;
  EvalModelOptions open;
  tasks::EvalOptions eval;
  tasks::SandboxOptions sandbox;
  bool resume = false, run_code = false, json = false;
};

struct EngineModel {
  EngineModel(const std::string& path, const EvalModelOptions& options)
      : engine(LoadWeights(path, options.activations), options.threads),
        scorer(engine, options.scorer) {}
  engine::Engine engine;
  tasks::EngineScorer scorer;
};

// What runs a model for some work.
struct Runner {
  std::shared_ptr<tasks::ModelScorer> scorer;
  std::string runtime;
  std::string how;  // Beside the model's hash what results depend on: a journal of others is none
};

// One model, opened when it is first needed, once in each runtime that its work is for.
class RunnableModel {
 public:
  RunnableModel(std::string path, const EvalModelOptions& options, const EvalExtension& extension)
      : path_(std::move(path)), options_(options), extension_(extension) {}

  const Runner& For(EvalWork work) {
    const auto [asked, is_new] = taken_.try_emplace(work, false);
    if (is_new && extension_.takes) asked->second = extension_.takes(path_, options_, work);
    const bool other = asked->second;
    Runner& runner = other ? other_ : engine_;
    if (runner.scorer) return runner;
    if (other) {
      runner = {extension_.open(path_, options_), extension_.runtime, " " + extension_.runtime};
      return runner;
    }
    const auto model = std::make_shared<EngineModel>(path_, options_);
    runner = {
        {model, &model->scorer},
        "engine",
        StrCat(" ", engine::ToString(options_.activations), " ", CacheName(options_.scorer.cache))};
    return runner;
  }
  const Runner& ForTask(const std::string& name) {
    return For(name == "perplexity" ? EvalWork::kWindows : EvalWork::kTasks);
  }
  bool engine_used() const { return engine_.scorer != nullptr; }
  const std::string& Sha256() {
    if (sha256_.empty()) sha256_ = Sha256OfPath(path_);
    return sha256_;
  }

 private:
  std::string path_, sha256_;
  EvalModelOptions options_;
  const EvalExtension& extension_;
  std::map<EvalWork, bool> taken_;  // By the extension: asked once, since it opens the model
  Runner engine_, other_;
};

// auto: bos_id() is what texts begin with, so a GGUF file whose add_bos_token is false has none,
// though its vocabulary may have a BOS.
bool HasBos(const tasks::ModelScorer& scorer, const std::string& choice) {
  if (choice == "auto") return scorer.tokenizer() && scorer.tokenizer()->bos_id() >= 0;
  return choice == "yes";
}

// Of a folder the file that is called `name` with one of the endings; else the file itself.
std::string DataFile(const std::string& data, const std::string& name,
                     const std::vector<std::string>& endings) {
  if (!fs::is_directory(data)) return data;
  std::string tried;
  for (const std::string& ending : endings) {
    const std::string path = (fs::path(data) / (name + ending)).string();
    if (fs::exists(path)) return path;
    tried += (tried.empty() ? "" : ", ") + name + ending;
  }
  throw InputError(StrCat(data, " has none of ", tried, "; --import makes task files of datasets"));
}

// Documents of a file, with an empty line between them (as the papers join WikiText).
std::string ReadText(const std::string& path, const std::string& field) {
  const data::RecordOptions options;
  data::RecordFile file(path, options);
  std::string text;
  data::Record record;
  while (file.Next(&record)) {
    if (!text.empty()) text += "\n\n";
    text += data::TextOf(record.text, file.format(), field, options, file.Where(record.number));
  }
  return text;
}

std::string TextFile(const Flags& flags) {
  return DataFile(flags.data, "perplexity",
                  {".txt", ".jsonl", ".jsonl.zst", ".parquet", ".txt.zst"});
}

tasks::TaskData ReadTask(const Flags& flags, tasks::TaskInfo* info) {
  const std::string path = DataFile(flags.data, info->name, {".jsonl", ".jsonl.zst"});
  tasks::TaskData data{tasks::ReadTaskFile(path), {}};
  tasks::CheckKind(info, data.questions.kind, path);
  if (!fs::is_directory(flags.data)) return data;
  const fs::path examples = fs::path(flags.data) / (info->name + ".fewshot.jsonl");
  if (!fs::exists(examples)) return data;
  data.examples = tasks::ReadTaskFile(examples.string());
  TERN_CHECK_INPUT(data.examples->kind == data.questions.kind, examples.string(),
                   " has examples of another kind than ", path);
  return data;
}

tasks::TaskResult RunOne(tasks::ModelScorer& scorer, const Flags& flags, const std::string& name,
                         tasks::EvalOptions options) {
  std::optional<ProgressLine> line;
  const char* unit = name == "perplexity" ? "windows" : "questions";
  options.progress = [&](int64_t done, int64_t all) {
    if (!line) {
      ProgressLine::Options shown;
      shown.total = all;
      shown.start = done;
      line.emplace(name, unit, shown);
    }
    line->Update(done);
  };
  if (name == "perplexity")
    return tasks::RunPerplexity(scorer, ReadText(TextFile(flags), flags.field), options);
  tasks::TaskInfo info = tasks::InfoOf(name);
  const tasks::TaskData data = ReadTask(flags, &info);
  return tasks::RunTask(scorer, info, data, options);
}

std::vector<tasks::TaskResult> RunAll(RunnableModel& model, const Flags& flags,
                                      const tasks::EvalOptions& options) {
  std::vector<tasks::TaskResult> results;
  for (const std::string& task : flags.tasks) {
    const Runner& runner = model.ForTask(task);
    tasks::EvalOptions own = options;
    own.model_sha256 = model.Sha256() + runner.how;
    own.bos = HasBos(*runner.scorer, flags.bos);
    results.push_back(RunOne(*runner.scorer, flags, task, own));
    results.back().runtime = runner.runtime;
  }
  return results;
}

tasks::Divergence RunAgainst(RunnableModel& model, RunnableModel& reference, const Flags& flags,
                             tasks::EvalOptions options) {
  const Runner& ours = model.For(EvalWork::kWindows);
  const Runner& theirs = reference.For(EvalWork::kWindows);
  options.model_sha256 = model.Sha256() + ours.how + reference.Sha256() + theirs.how;
  options.bos = HasBos(*ours.scorer, flags.bos);
  ProgressLine line("divergence", "windows", {});
  options.progress = [&](int64_t done, int64_t) { line.Update(done); };
  tasks::Divergence result = tasks::RunDivergence(*ours.scorer, *theirs.scorer,
                                                  ReadText(TextFile(flags), flags.field), options);
  result.runtime = ours.runtime;
  result.reference_runtime = theirs.runtime;
  return result;
}

tasks::EvalOptions OptionsOf(const Flags& flags, tasks::ResultJournal* journal) {
  tasks::EvalOptions options = flags.eval;
  options.journal = journal;
  if (flags.fewshot >= 0) options.fewshot = flags.fewshot;
  options.perplexity = tasks::ProtocolByName(flags.protocol);
  if (flags.context > 0) options.perplexity.context = flags.context;
  if (flags.stride > 0) options.perplexity.stride = flags.stride;
  if (flags.run_code || flags.sandbox.unsafe) options.sandbox = flags.sandbox;
  return options;
}

void CheckFlags(const Flags& flags) {
  if (flags.model.empty()) throw UsageError("no model to evaluate; give a GGUF file or a folder");
  if (flags.data.empty()) throw UsageError("--data is missing: a folder of task files, or a text");
  if (flags.tasks.empty() && flags.against.empty())
    throw UsageError("nothing to do: name tasks with --task, or a reference with --against");
  if (flags.resume && flags.output.empty())
    throw UsageError("--resume goes on with the journal beside --out, which is missing");
  for (const std::string& task : flags.tasks) tasks::InfoOf(task);
}

void Evaluate(const Flags& flags, const EvalExtension& extension) {
  CheckFlags(flags);
  InstallStopSignals();
  tasks::ResultJournal journal;
  if (!flags.output.empty())
    journal = tasks::ResultJournal(flags.output + ".journal.jsonl", flags.resume);
  const tasks::EvalOptions options = OptionsOf(flags, &journal);
  tasks::Report report;
  report.model = flags.model;
  report.seed = options.seed;
  RunnableModel model(flags.model, flags.open, extension);
  RunnableModel reference(flags.against, flags.open, extension);
  report.results = RunAll(model, flags, options);
  if (!flags.against.empty()) {
    report.reference = flags.against;
    report.reference_results = RunAll(reference, flags, options);
    if (flags.tasks.empty())
      report.divergence = RunAgainst(model, reference, flags, options);
    else
      report.comparison = tasks::Compare(report.results, report.reference_results, options.seed);
    report.reference_sha256 = reference.Sha256();
  }
  report.model_sha256 = model.Sha256();
  if (model.engine_used() || reference.engine_used()) {
    report.activations = engine::ToString(flags.open.activations);
    report.cache = CacheName(flags.open.scorer.cache);
  }
  const std::string json = JsonOf(report);
  if (!flags.output.empty()) WriteFileAtomically(flags.output, json);
  std::cout << (flags.json ? json : TableOf(report));
}

void AddModelOptions(CLI::App* command, Flags* flags) {
  AddThreadsOption(command, &flags->open.threads);
  AddActivationsOption(command, &flags->open.activations);
  command
      ->add_option("--batch-tokens", flags->open.scorer.batch_tokens,
                   "Tokens of a batch, about; has no influence on results")
      ->capture_default_str();
  command
      ->add_option("--max-length", flags->open.scorer.max_length,
                   "Tokens of the longest text; longer ones lose their beginning. 0: the model's "
                   "context, at most 8192")
      ->capture_default_str();
  AddCacheOption(command, &flags->open.scorer.cache);
  command
      ->add_option("--bos", flags->bos,
                   "Texts begin with BOS: auto (as the model's tokenizer says), yes, no")
      ->check(CLI::IsMember({"auto", "yes", "no"}))
      ->capture_default_str();
}

void AddTaskOptions(CLI::App* command, Flags* flags) {
  command->add_option("--task", flags->tasks, "Tasks, with commas between")->delimiter(',');
  command->add_option("--data", flags->data,
                      "Folder with TASK.jsonl and TASK.fewshot.jsonl, and perplexity.txt (.jsonl, "
                      ".parquet, .zst); or one such file");
  command->add_option("--against", flags->against,
                      "A reference: recovery and flips of the tasks; without --task the divergence "
                      "on the text of --data");
  command->add_option("--limit", flags->eval.limit, "Questions or windows at most; 0: all")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--fewshot", flags->fewshot, "Examples before a question (default: the task's)")
      ->check(CLI::Range(0, 1000));
  command->add_option("--seed", flags->eval.seed, "Of the bootstrap")->capture_default_str();
  command->add_option("--protocol", flags->protocol, "Of perplexity: papers, llama.cpp, sliding")
      ->capture_default_str();
  command->add_option("--context", flags->context, "Tokens of a window (default: the protocol's)")
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--stride", flags->stride, "Of sliding windows")
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--text-field", flags->field, "Of JSONL and Parquet texts")
      ->capture_default_str();
  command->add_flag("--run-code", flags->run_code,
                    "Run programs that the model writes, in a sandbox (humaneval)");
  command->add_option("--python", flags->sandbox.python, "Interpreter for them");
  command->add_flag("--unsafe-run-code-without-isolation", flags->sandbox.unsafe,
                    "Run them even where the kernel cannot isolate them");
  command->add_option("-o,--out", flags->output,
                      "JSON file to write; results of single questions go to FILE.journal.jsonl");
  command->add_flag("--resume", flags->resume, "Go on with the journal of --out");
  command->add_flag("--json", flags->json, "JSON instead of the table");
  command
      ->add_option("--import", flags->import,
                   "TASK SOURCE: make the task file --out of a dataset's file or folder")
      ->expected(2);
}

}  // namespace

CLI::App* AddEvalCommand(CLI::App& app, const EvalExtension& extension) {
  CLI::App* command = app.add_subcommand("eval", "Measure a model on texts and tasks");
  command->footer(
      StrCat("Example: tern eval model.gguf --task arc_challenge,mmlu --data tasks/ -o out.json\n"
             "         tern eval model.gguf --against original.gguf --data text.txt\n"
             "         tern eval --import arc_challenge test.parquet -o tasks/arc_challenge.jsonl\n"
             "Tasks (docs/tasks.md), beside any NAME with a NAME.jsonl:\n",
             tasks::TasksHelp()));
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "GGUF file, Hugging Face folder or model file");
  AddTaskOptions(command, flags.get());
  AddModelOptions(command, flags.get());
  command->callback([flags, extension, command] {
    flags->open.engine_only = command->count("--activations") + command->count("--cache") > 0;
    if (extension.instead && extension.instead(flags->model, flags->open.threads, flags->json))
      return;
    if (flags->import.empty()) return Evaluate(*flags, extension);
    if (flags->output.empty()) throw UsageError("--import needs --out, the task file to write");
    const int64_t count = tasks::ImportTask(flags->import[0], flags->import[1], flags->output);
    std::cerr << count << " questions\n";
  });
  return command;
}

}  // namespace tern::engine_cli
