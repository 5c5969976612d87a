// The train stage as a whole on a tiny model: a run that is stopped, killed in spirit (its later
// checkpoints lost) or damaged goes on to the same bits; faults are handled as the recipe says.
#include "train/train.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/stop_signal.h"
#include "checkpoint/checkpoint.h"
#include "metrics/metrics_log.h"
#include "tests/testing/temp_folder.h"
#include "tests/train/tiny_run.h"

namespace tern::train {
namespace {

class TrainTest : public ::testing::Test {
 protected:
  TrainTest() : tokens_(Tokens()) { ClearStopRequest(); }

  TrainResult Run(const recipe::TrainStage& stage) {
    Journal journal(folder_ / "journal.jsonl");
    return Train(
        {recipe_, stage, folder_ / "train", folder_.path(), tokens_, journal, "recipe text", 0});
  }
  // Every tensor of the newest checkpoint, as bytes.
  std::string Bits() {
    const auto found = checkpoint::FindNewestValid(folder_ / "train");
    const checkpoint::CheckpointReader reader(found.path.value());
    std::string bits;
    for (const checkpoint::TensorInfo& tensor : reader.tensors()) {
      std::string bytes(static_cast<size_t>(tensor.size_bytes), '\0');
      reader.Read(tensor.name, tensor.type, tensor.shape, bytes.data());
      bits += bytes;
    }
    return bits;
  }
  void Clear() { std::filesystem::remove_all(folder_ / "train"); }
  std::vector<std::string> Events() {
    std::vector<std::string> events;
    for (const auto& record : ReadJsonLines(folder_ / "journal.jsonl").records)
      events.push_back(record["event"]);
    return events;
  }

  tern::testing::TempFolder folder_;
  recipe::Recipe recipe_ = TinyRecipe();
  data::TokenFile tokens_;
};

TEST_F(TrainTest, LearnsAndIsDeterministic) {
  recipe::TrainStage stage = TinyStage();
  stage.steps = 60;
  stage.schedule.peak_lr = stage.schedule.second_lr = 0.01;
  const TrainResult first = Run(stage);
  const std::string bits = Bits();
  // Uniform guessing costs log(64) = 4.16 nats, the source itself log(2) = 0.69.
  EXPECT_LT(first.validation_loss, 3.0);
  Clear();
  EXPECT_EQ(Run(stage).loss, first.loss);
  EXPECT_EQ(Bits(), bits);
}

TEST_F(TrainTest, EveryResumePointLeadsToTheSameBits) {
  const recipe::TrainStage stage = TinyStage();
  const TrainResult whole = Run(stage);
  const std::string bits = Bits();
  for (int64_t stop = 1; stop < stage.steps; stop += 2) {
    Clear();
    recipe::TrainStage part = stage;
    part.checkpoint_every = 1;
    part.keep_last = stage.steps;
    Run(part);
    for (int64_t later = stop + 1; later <= stage.steps;
         ++later) {  // As if killed right after saving step `stop`.
      std::filesystem::remove_all(folder_ / ("train/" + checkpoint::FolderName(later)));
    }
    ASSERT_EQ(checkpoint::FindNewestValid(folder_ / "train").step, stop);
    EXPECT_EQ(Run(stage).loss, whole.loss) << "resumed from step " << stop;
    EXPECT_EQ(Bits(), bits) << "resumed from step " << stop;
  }
}

TEST_F(TrainTest, StopSignalSavesAndGoesOnToTheSameBits) {
  recipe::TrainStage stage = TinyStage();
  const TrainResult whole = Run(stage);
  const std::string bits = Bits();
  Clear();
  InstallStopSignals();
  std::raise(SIGTERM);
  try {
    Run(stage);
    FAIL() << "the signal was not seen";
  } catch (const StoppedError& error) {
    EXPECT_EQ(error.code(), ExitCode::kStopped);
  }
  ClearStopRequest();
  EXPECT_EQ(Run(stage).loss, whole.loss);
  EXPECT_EQ(Bits(), bits);
}

TEST_F(TrainTest, DamagedNewestCheckpointIsRefusedAndTheOneBeforeLeadsToTheSameBits) {
  const recipe::TrainStage stage = TinyStage();
  const TrainResult whole = Run(stage);
  const std::string bits = Bits();
  std::fstream file(folder_ / ("train/" + checkpoint::FolderName(12) + "/state.h5"),
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(5000);
  file.put('\x5A');
  file.close();
  EXPECT_EQ(Run(stage).loss, whole.loss);
  EXPECT_EQ(Bits(), bits);
  const auto events = Events();
  EXPECT_NE(std::find(events.begin(), events.end(), "checkpoint_refused"), events.end());
}

TEST_F(TrainTest, MicroBatchesAndRecomputationChangeRoundingOnly) {
  recipe::TrainStage stage = TinyStage();
  stage.precision = recipe::Precision::kFp32;
  stage.micro_batch = 4;
  const double whole = Run(stage).loss;
  Clear();
  stage.activation_checkpointing = recipe::ActivationCheckpointing::kBlock;
  EXPECT_EQ(Run(stage).loss, whole) << "the same operations run twice give the same bits";
  Clear();
  stage.micro_batch = 1;
  // Gradients add up in another order; a code that flips at a rounding boundary moves the loss
  // visibly.
  EXPECT_NEAR(Run(stage).loss, whole, 0.02);
}

TEST_F(TrainTest, MetricsHoldEveryStepOnceAfterAResume) {
  recipe::TrainStage stage = TinyStage();
  Run(stage);
  std::filesystem::remove_all(folder_ / ("train/" + checkpoint::FolderName(12)));
  Run(stage);
  const auto records = ReadMetrics(folder_ / "metrics.jsonl");
  ASSERT_EQ(records.size(), 12u);
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_TRUE(records[i].values.contains("tokens_per_second"));
  }
  EXPECT_TRUE(records[3].values.contains("health"));
  EXPECT_TRUE(records[3].values.contains("validation_loss"));
}

TEST_F(TrainTest, DivergenceStopsWithANumericError) {
  recipe::TrainStage stage = TinyStage();
  stage.schedule.kind = recipe::ScheduleKind::kConstant;
  stage.schedule.peak_lr = 1e30;
  EXPECT_THROW(Run(stage), NumericError);
}

TEST_F(TrainTest, FaultySkipsAndRollBacksEndInAStop) {
  recipe::TrainStage stage = TinyStage();
  stage.schedule.kind = recipe::ScheduleKind::kConstant;
  stage.schedule.peak_lr = 1e30;
  stage.checkpoint_every = 1;
  stage.faults.nonfinite = recipe::FaultAction::kRollback;
  stage.faults.max_events = 2;
  EXPECT_THROW(Run(stage), Error);
}

TEST_F(TrainTest, Fp16WithDynamicScalingSkipsOverflowsAndLearns) {
  recipe::TrainStage stage = TinyStage();
  stage.precision = recipe::Precision::kFp16;
  stage.loss_scaling.mode = recipe::ScalingMode::kDynamic;
  stage.loss_scaling.initial = 1e9;  // Overflows fp16 at first.
  const TrainResult result = Run(stage);
  EXPECT_TRUE(std::isfinite(result.loss));
  const auto events = Events();
  EXPECT_GT(std::count(events.begin(), events.end(), "overflow"), 0);
  EXPECT_LT(result.loss, 4.3);
}

TEST_F(TrainTest, CheckpointOfAnotherModelIsRefusedWithTheDifference) {
  Run(TinyStage());
  recipe_.model.intermediate_size = 96;
  try {
    Run(TinyStage());
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("intermediate_size: checkpoint 64, recipe 96"),
              std::string::npos);
  }
}

TEST_F(TrainTest, PackedDocumentsTrain) {
  recipe_.data.packing = recipe::Packing::kDocuments;
  EXPECT_TRUE(std::isfinite(Run(TinyStage()).validation_loss));
}

// Of which the first `prompt` tokens have no label.
class Masked : public data::TokenSource {
 public:
  Masked(const data::TokenSource& tokens, int64_t prompt) : tokens_(tokens), prompt_(prompt) {}
  int64_t NumTokens(data::Split split) const override { return tokens_.NumTokens(split); }
  void Copy(data::Split split, int64_t begin, int64_t count, int32_t* out) const override {
    tokens_.Copy(split, begin, count, out);
  }
  void CopyLabels(data::Split, int64_t begin, int64_t count, uint8_t* out) const override {
    for (int64_t i = 0; i < count; ++i) out[i] = begin + i < prompt_ ? 0 : 1;
  }
  std::vector<int64_t> DocumentsIn(data::Split split, int64_t begin, int64_t end) const override {
    return tokens_.DocumentsIn(split, begin, end);
  }
  int64_t TextBytes(data::Split split) const override { return tokens_.TextBytes(split); }

 private:
  const data::TokenSource& tokens_;
  const int64_t prompt_;
};

TEST_F(TrainTest, MasksThatHideEverythingAreAnErrorNotALossOfNaN) {
  Journal journal(folder_ / "journal.jsonl");
  const auto run = [&](const Masked& tokens, const recipe::TrainStage& stage) {
    return Train(
        {recipe_, stage, folder_ / "train", folder_.path(), tokens, journal, "recipe text", 0});
  };
  const auto refused = [&](const recipe::TrainStage& stage) {
    try {
      run(Masked(tokens_, tokens_.NumTokens(data::Split::kTrain)), stage);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refused(TinyStage()).find("has a label: the masks of the data hide all of it"),
            std::string::npos);
  recipe::TrainStage learns = TinyStage();
  learns.losses.cross_entropy.first = 2;  // By the objective of several losses
  EXPECT_NE(refused(learns).find("has a label: the masks of the data hide all of it"),
            std::string::npos);
  // Micro-batches without a label are no error: the loss is a mean over those of the step.
  Clear();
  recipe::TrainStage alone = TinyStage();
  alone.micro_batch = 1;
  const TrainResult result = run(Masked(tokens_, 75), alone);  // Half of the validation text, too
  EXPECT_TRUE(std::isfinite(result.loss) && std::isfinite(result.validation_loss));
}

}  // namespace
}  // namespace tern::train
