// A dense teacher distilled into a ternary student, from text to verified file.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "tests/job/dense_run.h"
#include "tests/parallel/rank_threads.h"
#include "transfer/export.h"
#include "transfer/import.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

// Narrower than the teacher; its tokenizer is the teacher's.
constexpr const char* kStudent = R"(name: small
model: {hidden_size: 64, intermediate_size: 128, num_layers: 1, num_heads: 4, num_kv_heads: 2,
        context_length: 32, sub_norms: outputs}
teacher: {from: TEACHER}
data: {files: [TEXTS/*.txt], validation_fraction: 0.2}
stages:
  - train: {steps: 24, tokens_per_step: 256, sequence_length: 32, micro_batch: 4, precision: fp32,
            eval_tokens: 512, eval_every: 0, health_every: 0,
            schedule: {kind: constant, peak_lr: 4.0e-3},
            losses: {cross_entropy: {weight: 0.5}, forward_kl: {weight: 1, temperature: 2}}}
)";

class DistillTest : public ::testing::Test {
 protected:
  static std::string Student(const std::string& more = "") {
    std::string yaml = kStudent + more;
    yaml.replace(yaml.find("TEACHER"), 7, DenseModel());
    return yaml;
  }
  static void Run(const SmallRun& run, const std::vector<std::string>& overrides = {}) {
    RunRecipe(run.Load(overrides), {run.runs(), "", ""});
  }
  static std::vector<nlohmann::json> Losses(const SmallRun& run) {
    std::vector<nlohmann::json> losses;
    std::istringstream lines(ReadFile(run.Path("metrics.jsonl")));
    for (std::string line; std::getline(lines, line);)
      losses.push_back(nlohmann::json::parse(line).at("losses"));
    return losses;
  }
  template <class E>
  static std::string Refused(const SmallRun& run, const std::vector<std::string>& overrides) {
    try {
      Run(run, overrides);
    } catch (const E& error) {
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }
};

TEST_F(DistillTest, GoesFromATeacherToAVerifiedTernaryFile) {
  const SmallRun run(
      Student("  - eval: {perplexity: {split: validation, tokens: 512}}\n"
              "  - export: {formats: [hf/bitnet]}\n  - verify: {tokens: 16}\n"));
  Run(run);
  EXPECT_EQ(run.Result("prepare")["tokenizer_sha256"],
            nlohmann::json::parse(
                ReadFile(DenseRun().Path("stages/prepare.json")))["result"]["tokenizer_sha256"]);
  const auto losses = Losses(run);
  ASSERT_EQ(losses.size(), 24u);
  EXPECT_LT(losses.back()["forward_kl"]["value"].get<double>(),
            0.8 * losses.front()["forward_kl"]["value"].get<double>());
  for (const auto& step : losses) {
    EXPECT_NEAR(
        step["forward_kl"]["share"].get<double>() + step["cross_entropy"]["share"].get<double>(),
        1.0, 1e-12);
  }
  EXPECT_EQ(run.Result("verify")["files"][0]["ternary_matrices"], 7);
}

// Every loss at once, projections between widths included: interrupted after 6 steps, it reaches
// the bits of a run that was not.
TEST_F(DistillTest, EveryLossResumesToTheSameBits) {
  const std::vector<std::string> all = {
      "train.losses={cross_entropy: {weight: 1}, forward_kl: {weight: 1}, reverse_kl: {weight: "
      "0.1}, "
      "jsd: {weight: 0.1}, topk_kl: {weight: 0.5, k: 8}, hidden: {weight: 0.1}, relations: "
      "{weight: "
      "1}}",
      "train.checkpoint_every=2",
      "train.optimizer.weight_decay=0"};  // Decays for a share of the steps
  const auto steps = [&](const char* count) {
    std::vector<std::string> overrides = all;
    overrides.push_back(std::string("train.steps=") + count);
    return overrides;
  };
  const SmallRun once(Student()), twice(Student());
  Run(once, steps("10"));
  Run(twice, steps("6"));
  Run(twice, steps("10"));
  EXPECT_EQ(once.Result("train")["validation_loss"], twice.Result("train")["validation_loss"]);
  EXPECT_EQ(Losses(once).back(), Losses(twice).back());
  EXPECT_EQ(Losses(once).back().size(), 7u);
}

// A store filled by one run serves runs of another batch size without a teacher in memory, and
// gives what the teacher gives: equal up to the order of sums in its products, 1e-5 of a loss of
// about 5.
TEST_F(DistillTest, AStoreStandsForTheTeacher) {
  const std::vector<std::string> losses = {
      "train.losses={cross_entropy: {weight: 0.5}, forward_kl: {weight: 0}, topk_kl: "
      "{weight: 1, k: 16, temperature: 2}}",
      "train.steps=6"};
  const SmallRun direct(Student()), stored(Student()), other(Student());
  Run(direct, losses);
  const std::string folder = stored.folder() / "store";
  std::vector<std::string> with = losses;
  with.push_back("teacher.store=" + folder);
  Run(stored, with);
  EXPECT_NEAR(Losses(direct).back()["topk_kl"]["value"].get<double>(),
              Losses(stored).back()["topk_kl"]["value"].get<double>(), 1e-4);
  const auto written = fs::last_write_time(folder + "/shard-000000.teacher.h5");
  with.insert(with.end(), {"train.tokens_per_step=128", "train.steps=12"});
  Run(other, with);
  EXPECT_EQ(fs::last_write_time(folder + "/shard-000000.teacher.h5"), written);

  const auto refused = [&](const std::string& change) {
    std::vector<std::string> overrides = with;
    overrides.push_back(change);
    return Refused<InputError>(SmallRun(Student()), overrides);
  };
  EXPECT_NE(refused("train.losses.topk_kl.k=8").find("its k is 16, this run's is 8"),
            std::string::npos);
  EXPECT_NE(refused("seed=7").find("its seed is 42"), std::string::npos);
  const SmallRun rewritten(Student());
  rewritten.AddText("text0", MadeUpText(99, 8000));
  EXPECT_NE(Refused<InputError>(rewritten, with).find("made of other tokens"), std::string::npos);
  // More samples than there are: what the store has stays, of this text or of another.
  std::vector<std::string> more = with;
  more.push_back("train.steps=14");
  const std::string before = ReadFile(folder + "/shard-000000.teacher.h5");
  EXPECT_NE(Refused<InputError>(rewritten, more).find("made of other tokens"), std::string::npos);
  EXPECT_EQ(ReadFile(folder + "/shard-000000.teacher.h5"), before);
  const SmallRun longer(Student());
  Run(longer, more);
  EXPECT_GT(fs::file_size(folder + "/shard-000000.teacher.h5"), before.size());
  Run(SmallRun(Student()), with);  // The first samples are as they were
  std::vector<std::string> back = with;
  back.push_back("train.faults={nonfinite: rollback}");
  EXPECT_NE(Refused<RecipeError>(SmallRun(Student()), back).find("rollback beside teacher.store"),
            std::string::npos);
  EXPECT_NE(refused("train.precision=bf16")
                .find("its precision (train.precision, or teacher.runtime: engine) is fp32"),
            std::string::npos);
  fs::resize_file(folder + "/shard-000000.teacher.h5", 2000);
  EXPECT_NE(Refused<FormatError>(SmallRun(Student()), with).find("Delete this shard"),
            std::string::npos);
}

// One of two ranks fills the store, both read it; their losses are those of one process (1e-4 as
// above), which then goes on with the ranks' store and checkpoint.
TEST_F(DistillTest, TwoRanksShareAStore) {
  const auto overrides = [](const SmallRun& run, const char* steps) {
    return std::vector<std::string>{
        "train.losses={cross_entropy: {weight: 0.5}, forward_kl: {weight: 0}, topk_kl: {weight: 1, "
        "k: 16}}",
        StrCat("train.steps=", steps), "teacher.store=" + (run.folder() / "store")};
  };
  const SmallRun one(Student()), two(Student());
  Run(one, overrides(one, "6"));
  DenseModel();  // Not by two threads
  parallel::RunRankThreads(2, [&](parallel::Group& group) {
    RunRecipe(two.Load(overrides(two, "6")), {two.runs(), "", "", &group});
  });
  EXPECT_EQ(two.Result("train")["ranks"], 2);
  const auto want = Losses(one), got = Losses(two);
  ASSERT_EQ(got.size(), want.size());
  for (const char* loss : {"cross_entropy", "topk_kl"}) {
    EXPECT_NEAR(got[0][loss]["value"].get<double>(), want[0][loss]["value"].get<double>(), 1e-4)
        << loss;
  }
  const std::string shard = two.folder() / "store/shard-000000.teacher.h5";
  const auto written = fs::last_write_time(shard);
  Run(two, overrides(two, "6"));
  EXPECT_EQ(fs::last_write_time(shard), written);
  Run(two, overrides(two, "8"));
  EXPECT_EQ(Losses(two).size(), 8u);
}

// JSON would have null for them, and a report none.
TEST_F(DistillTest, ATeacherWhoseLogitsOverflowIsAnErrorOfTheEvaluation) {
  const testing::TempFolder folder;
  const transfer::OpenedModel opened = transfer::OpenDecoder(DenseModel());
  const at::Tensor gain = opened.decoder.Get("model.norm.weight").detach();
  gain.mul_(1e38);
  transfer::Export(opened.decoder, {&*opened.tokenizer, opened.files}, {"hf/f32", "", "t"},
                   folder / "teacher");
  const std::string why = Refused<NumericError>(
      SmallRun(Student("  - eval: {perplexity: {split: validation}, recovery: true}\n")),
      {StrCat("teacher.from=", folder / "teacher"), "train.steps=2",
       "train.losses={cross_entropy: {weight: 1}, forward_kl: {weight: 0}}"});
  EXPECT_NE(why.find("the loss of the reference is "), std::string::npos) << why;
  EXPECT_NE(why.find("logits overflow"), std::string::npos) << why;
}

// Records of gradients, and balanced weights, whose means are part of the state.
TEST_F(DistillTest, BalancedLossesResumeToTheSameBitsAndAreReported) {
  const std::vector<std::string> balanced = {
      "train.losses={cross_entropy: {weight: 1}, forward_kl: {weight: 0.5}, hidden: {weight: 0.1}, "
      "relations: {weight: 0.1}, log_gradients_every: 2, balance: {by: gradient_norm, every: 3}}",
      "train.checkpoint_every=2", "train.optimizer.weight_decay=0"};
  const auto steps = [&](const char* count) {
    std::vector<std::string> overrides = balanced;
    overrides.push_back(std::string("train.steps=") + count);
    return overrides;
  };
  const SmallRun once(Student("  - report: {}\n")), twice(Student());
  Run(once, steps("10"));
  Run(twice, steps("5"));
  Run(twice, steps("10"));
  EXPECT_EQ(once.Result("train")["validation_loss"], twice.Result("train")["validation_loss"]);
  const auto losses = Losses(once);
  EXPECT_EQ(losses, Losses(twice));
  for (size_t step = 0; step < losses.size(); ++step) {
    double share = 0;
    for (const auto& [name, loss] : losses[step].items()) share += loss.value("grad_share", 0.0);
    EXPECT_NEAR(share, step % 2 == 0 || step % 3 == 0 ? 1.0 : 0.0, 1e-12) << step;
  }
  // In the first step the recipe's weights are the proportions of the gradients.
  const nlohmann::json& first = losses.front();
  const auto size = [&](const char* name) {
    return first[name]["weight"].get<double>() * first[name]["grad_norm"].get<double>();
  };
  EXPECT_NEAR(size("hidden") / size("cross_entropy"), 0.1, 1e-5);
  EXPECT_NEAR(size("forward_kl") / size("cross_entropy"), 0.5, 1e-5);
  EXPECT_NE(ReadFile(once.Path("report.md")).find("% of the losses' gradients"), std::string::npos);
  EXPECT_EQ(once.Result("train")["losses"], losses[9]);  // Step 10: 9 is a multiple of 3
}

TEST_F(DistillTest, RecordsOfGradientsChangeNoBits) {
  const SmallRun plain(Student()), logged(Student());
  Run(plain, {"train.steps=6"});
  Run(logged, {"train.steps=6", "train.losses.log_gradients_every=1"});
  EXPECT_EQ(plain.Result("train")["validation_loss"], logged.Result("train")["validation_loss"]);
}

// Half of the steps on what a model writes, to the same bits across a stop; the divergence falls.
TEST_F(DistillTest, GeneratedTextResumesToTheSameBits) {
  const auto run = [&](const SmallRun& run, const char* by, const char* steps) {
    const bool student = std::string(by) == "student";
    Run(run, {std::string("train.losses={cross_entropy: {weight: 0.5}, ") +
                  (student ? "reverse_kl: {weight: 1}, " : "") + "generated: {by: " + by +
                  ", share: 0.5, prompt_tokens: 8}}",
              "train.optimizer.weight_decay=0", "train.checkpoint_every=2",
              std::string("train.steps=") + steps, "train.losses.forward_kl.weight=0"});
  };
  const auto records = [](const SmallRun& run) {
    std::vector<nlohmann::json> generated;
    std::istringstream lines(ReadFile(run.Path("metrics.jsonl")));
    for (std::string line; std::getline(lines, line);)
      generated.push_back(nlohmann::json::parse(line).value("generated", nlohmann::json()));
    return generated;
  };
  for (const char* by : {"student", "teacher"}) {
    const SmallRun once(Student("  - report: {}\n")), twice(Student());
    run(once, by, "12");
    run(twice, by, "7");
    run(twice, by, "12");
    EXPECT_EQ(once.Result("train")["validation_loss"], twice.Result("train")["validation_loss"]);
    EXPECT_EQ(records(once), records(twice));
    int64_t count = 0;
    for (const nlohmann::json& record : records(once)) {
      if (record.is_null()) continue;
      ++count;
      EXPECT_EQ(record["by"], by);
      EXPECT_GE(record["tokens"], 8);  // One at least in each of the 8 sequences
      EXPECT_LE(record["tokens"], 8 * (33 - 8));
    }
    EXPECT_GT(count, 1);
    EXPECT_LT(count, 12);
    EXPECT_EQ(once.Result("train")["generated"]["steps"], count);
    EXPECT_NE(ReadFile(once.Path("report.md")).find(StrCat("steps on text that the ", by)),
              std::string::npos);
  }
}

// The same model by the engine: floats, so the losses of libtorch up to the order of sums (1e-4, as
// for a store); to the same bits after a stop; named in the report. Another runtime's run does not
// go on.
TEST_F(DistillTest, ATeacherByTheEngineStandsForLibtorchs) {
  const auto overrides = [](const char* steps, const char* runtime) {
    return std::vector<std::string>{"train.checkpoint_every=2", "train.optimizer.weight_decay=0",
                                    "data.packing=documents", StrCat("train.steps=", steps),
                                    StrCat("teacher.runtime=", runtime)};
  };
  const SmallRun once(Student("  - report: {}\n")), twice(Student()), libtorch(Student());
  Run(once, overrides("10", "engine"));
  Run(twice, overrides("6", "engine"));
  Run(twice, overrides("10", "engine"));
  Run(libtorch, overrides("10", "libtorch"));
  EXPECT_EQ(once.Result("train")["validation_loss"], twice.Result("train")["validation_loss"]);
  EXPECT_EQ(Losses(once), Losses(twice));
  EXPECT_NEAR(Losses(once)[0]["forward_kl"]["value"].get<double>(),
              Losses(libtorch)[0]["forward_kl"]["value"].get<double>(), 1e-4);

  const int64_t bytes = 4 * CountParameters(transfer::ReadModelInfo(DenseModel()).config);
  const auto facts = [&](const char* runtime) {
    return nlohmann::json{{"runtime", runtime}, {"weights", "F32"}, {"bytes", bytes}};
  };
  EXPECT_EQ(once.Result("train")["teacher"], facts("engine"));
  EXPECT_EQ(libtorch.Result("train")["teacher"], facts("libtorch"));
  EXPECT_NE(ReadFile(once.Path("report.md")).find("teacher: F32 by the engine, "),
            std::string::npos);
  EXPECT_NE(Refused<RecipeError>(twice, overrides("12", "libtorch"))
                .find("teacher.runtime: was engine, is gone"),
            std::string::npos);
  EXPECT_NE(Refused<RecipeError>(libtorch, overrides("12", "engine"))
                .find("teacher.runtime: is new, engine"),
            std::string::npos);
}

// A store says which runtime it is of.
TEST_F(DistillTest, TheEngineFillsAStore) {
  const auto overrides = [](const std::string& folder, const char* runtime) {
    return std::vector<std::string>{
        "train.losses={cross_entropy: {weight: 0.5}, forward_kl: {weight: 0}, topk_kl: "
        "{weight: 1, k: 16, temperature: 2}}",
        "train.steps=4", "teacher.store=" + folder, StrCat("teacher.runtime=", runtime)};
  };
  const SmallRun engine(Student()), libtorch(Student());
  Run(engine, overrides(engine.folder() / "store", "engine"));
  Run(libtorch, overrides(libtorch.folder() / "store", "libtorch"));
  EXPECT_NEAR(Losses(engine)[0]["topk_kl"]["value"].get<double>(),
              Losses(libtorch)[0]["topk_kl"]["value"].get<double>(), 1e-4);
  EXPECT_NE(
      Refused<InputError>(SmallRun(Student()), overrides(engine.folder() / "store", "libtorch"))
          .find("teacher.runtime: engine) is engine, this run's is fp32"),
      std::string::npos);
}

TEST_F(DistillTest, RefusesWhatTheEngineDoesNotRun) {
  const SmallRun run(Student());
  const auto refused = [&](const std::string& change) {
    return Refused<RecipeError>(run, {"teacher.runtime=engine", change});
  };
  const std::string checkpoint = checkpoint::FindNewestValid(DenseRun().Path("train")).path.value();
  EXPECT_NE(refused("teacher.from=" + checkpoint)
                .find("is a checkpoint, which the engine does "
                      "not run"),
            std::string::npos);
  EXPECT_NE(refused("train.device=cuda").find("runs the teacher on the CPU"), std::string::npos);
  EXPECT_NE(refused("train.losses.hidden.weight=1").find("nothing of single blocks"),
            std::string::npos);
}

TEST_F(DistillTest, RefusesWhatDoesNotFit) {
  const SmallRun run(Student());
  EXPECT_NE(Refused<InputError>(run, {"data.tokenizer.vocab_size=290"}).find("pieces"),
            std::string::npos);
  const SmallRun other(Student());
  EXPECT_NE(Refused<RecipeError>(other, {"train.losses.relations={weight: 1, heads: 3}"})
                .find("does not divide"),
            std::string::npos);
  EXPECT_NE(Refused<RecipeError>(other, {"teacher.from=\"\""}).find("no teacher to compare with"),
            std::string::npos);
  EXPECT_NE(Refused<RecipeError>(
                other, {"train.losses.hidden.weight=1", "train.activation_checkpointing=block"})
                .find("want none"),
            std::string::npos);
}

}  // namespace
}  // namespace tern::job
