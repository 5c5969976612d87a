// Trainings of one or several ranks, threads of one process, and what is read of them after.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/stop_signal.h"
#include "checkpoint/checkpoint.h"
#include "metrics/metrics_log.h"
#include "tests/parallel/rank_threads.h"
#include "tests/testing/temp_folder.h"
#include "tests/train/tiny_run.h"
#include "train/train.h"

namespace tern::train {

// Rows of 32 and 64 weights have scale blocks of 128 and 64 rows: tall enough matrices that three
// ranks hold rows of each.
// shard_size: of the groups of a hybrid; 0: all ranks are one.
inline recipe::Recipe RanksRecipe(recipe::Sharding shard, int64_t shard_size = 0) {
  recipe::Recipe recipe = TinyRecipe();
  recipe.model.vocab_size = 512;
  recipe.model.hidden_size = 64;
  recipe.model.intermediate_size = 256;
  recipe.parallel.shard = shard;
  recipe.parallel.shard_size = shard_size;
  recipe.parallel.bucket_mib = 0.05;
  return recipe;
}

inline recipe::TrainStage RanksStage(int64_t steps) {
  recipe::TrainStage stage = TinyStage();
  stage.tokens_per_step = 12 * 16;
  stage.steps = steps;
  stage.precision = recipe::Precision::kFp32;
  stage.eval_every = 0;
  stage.checkpoint_every = 1000;  // The last step is saved
  stage.health_every = 25;
  stage.optimizer.clip_norm = 0.5;  // Below the first steps' norms, so that it acts
  return stage;
}

class RanksTest : public ::testing::Test {
 protected:
  RanksTest() : tokens_(Tokens()) {
    ClearStopRequest();
    at::set_num_threads(1);
  }

  void Train(const recipe::Recipe& recipe, const recipe::TrainStage& stage, int ranks,
             const std::string& name) {
    const std::string folder = folder_ / name;
    std::filesystem::create_directories(folder);
    const auto run = [&](parallel::Group* group) {
      const bool root = group == nullptr || group->is_root();
      Journal journal(root ? folder + "/journal.jsonl" : "");
      const std::unique_ptr<distill::Teacher> teacher = teacher_ ? teacher_() : nullptr;
      train::Train({recipe,
                    stage,
                    folder + "/train",
                    folder,
                    tokens_,
                    journal,
                    "recipe text",
                    0,
                    {},
                    teacher.get(),
                    nullptr,
                    group});
    };
    if (ranks == 1) return run(nullptr);
    parallel::RunRankThreads(ranks, [&](parallel::Group& group) { run(&group); });
  }

  std::vector<double> Series(const std::string& name, const std::string& key) {
    std::vector<double> values;
    for (const auto& [step, value] :
         MetricsSeries(ReadMetrics(folder_ / (name + "/metrics.jsonl")), "", key)) {
      values.push_back(value);
    }
    return values;
  }
  std::vector<std::string> Hashes(const std::string& name) {
    std::vector<std::string> hashes;
    for (const MetricsRecord& record : ReadMetrics(folder_ / (name + "/metrics.jsonl"))) {
      hashes.push_back(record.values.at("data_hash").dump());
    }
    return hashes;
  }
  // Every tensor of the newest checkpoint, by name.
  std::map<std::string, std::string> Bits(const std::string& name) {
    return BitsIn(checkpoint::FindNewestValid(folder_ / (name + "/train")).path.value());
  }
  std::map<std::string, std::string> BitsAt(const std::string& name, int64_t step) {
    return BitsIn(folder_ / (name + "/train/" + checkpoint::FolderName(step)));
  }
  std::map<std::string, std::string> BitsIn(const std::string& path) {
    const checkpoint::CheckpointReader reader(path);
    std::map<std::string, std::string> bits;
    for (const checkpoint::TensorInfo& tensor : reader.tensors()) {
      std::string& bytes = bits[tensor.name];
      bytes.resize(static_cast<size_t>(tensor.size_bytes));
      reader.Read(tensor.name, tensor.type, tensor.shape, bytes.data());
    }
    return bits;
  }

  tern::testing::TempFolder folder_;
  data::TokenFile tokens_;
  std::function<std::unique_ptr<distill::Teacher>()> teacher_;  // One of each rank; none: empty
};

inline double MaxDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// The tolerance: ranks change only the order in which gradients are added, as micro-batches do in
// one process. So the difference among one process's runs of several micro-batches measures what
// such a change becomes after that many steps of this training (a weight at a rounding border of
// its code may go either way); ranks may differ by a few times of it.
inline constexpr double kTimesControl = 5;

class LossTest : public RanksTest {
 protected:
  struct Ranks {
    std::string name;
    int ranks;
    recipe::Recipe recipe;
  };
  // The steps of one process and of each case: the same samples and losses within the tolerance.
  // exact_start: the first step's forward has the bits of one process.
  void CheckLosses(const recipe::Recipe& one, const recipe::TrainStage& stage,
                   const std::vector<Ranks>& cases, bool exact_start = true) {
    Train(one, stage, 1, "one");
    const std::vector<double> want = Series("one", "loss"), norms = Series("one", "grad_norm");
    ASSERT_EQ(static_cast<int64_t>(want.size()), stage.steps);
    double control = 1e-6;
    for (const int64_t micro : {1, 3}) {
      recipe::TrainStage other = stage;
      other.micro_batch = micro;
      Train(one, other, 1, StrCat("micro", micro));
      control = std::max(control, MaxDifference(Series(StrCat("micro", micro), "loss"), want));
    }
    EXPECT_LT(control, 0.02) << "the control says nothing: this training is chaotic";
    for (const auto& [name, ranks, recipe] : cases) {
      Train(recipe, stage, ranks, name);
      const std::vector<double> losses = Series(name, "loss");
      EXPECT_LE(MaxDifference(losses, want), kTimesControl * control) << name;
      // The first step's forward is exact: only the sum of the ranks' losses is rounded.
      EXPECT_NEAR(losses.at(0), want[0], exact_start ? 1e-12 : 1e-5) << name;
      EXPECT_NEAR(Series(name, "grad_norm").at(0), norms[0], 1e-5 * norms[0]) << name;
      EXPECT_EQ(Hashes(name), Hashes("one")) << name << ": other samples, or another order";
    }
  }
};

}  // namespace tern::train
