// Saving beside the training, without a training: what was begun is finished whole, whenever.
#include "train/checkpointer.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "tests/testing/temp_folder.h"
#include "tests/train/tiny_run.h"

namespace tern::train {
namespace {

// Finished at once the thread may not have begun; finished by the next save it has.
TEST(CheckpointerTest, WhatIsBegunInTheBackgroundIsFinishedWhole) {
  const testing::TempFolder folder;
  std::filesystem::create_directories(folder / "train");
  const recipe::Recipe recipe = TinyRecipe();
  const recipe::TrainStage stage = TinyStage();
  const data::TokenFile tokens = Tokens();
  Journal journal(folder / "journal.jsonl");
  const TrainJob job{recipe, stage,   folder / "train", folder.path(),
                     tokens, journal, "recipe text"};
  TrainState state(recipe, stage, nullptr);
  state.decoder.Initialize(1);
  Checkpointer checkpointer(job);
  for (int64_t step = 1; step <= 40; ++step) {
    state.step = step;
    checkpointer.Save(state, nlohmann::json::object(), /*background=*/true);
    EXPECT_EQ(checkpointer.saved_step(), step > 1 ? step - 1 : -1);  // The one before
    if (step % 2 == 0) checkpointer.Finish();
  }
  EXPECT_EQ(checkpointer.saved_step(), 40);
  const auto found = checkpoint::FindNewestValid(folder / "train");
  ASSERT_TRUE(found.path.has_value());
  EXPECT_EQ(checkpoint::CheckpointReader(*found.path).meta().step, 40);
  EXPECT_TRUE(found.refused.empty());
}

}  // namespace
}  // namespace tern::train
