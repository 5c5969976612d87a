// See placement.h.
#include "train/placement.h"

#include "base/error.h"
#include "recipe/check_parallel.h"

namespace tern::train {

std::string WhyNotByRanks(const recipe::Recipe& recipe, const recipe::TrainStage& stage) {
  const bool zero3 = recipe.parallel.shard == recipe::Sharding::kZero3;
  std::string what = recipe::TrainedByWholeModels(stage);
  if (what.empty() && !recipe.start.from.empty()) what = "model.from";
  if (!zero3 || what.empty()) return "";
  return StrCat(stage.id, ": ", what,
                " is trained by ranks that hold whole matrices; found several ranks and "
                "parallel.shard: zero3; want none, zero1 or zero2, or one process");
}

std::string WhyNotOnGpu(const recipe::Recipe& recipe, const recipe::TrainStage& stage) {
  if (recipe.parallel.tensor > 1)
    return StrCat(stage.id, ": parallel.tensor is trained on CPUs only");
  // What is kept in a store is read on any device.
  const bool asks = recipe::UsesTeacher(stage.losses) && recipe.teacher_store.empty();
  if (!asks || recipe.teacher_runtime != recipe::Runtime::kEngine) return "";
  return StrCat(stage.id,
                ": teacher.runtime: engine runs the teacher on the CPU, for students there");
}

at::Device DeviceOf(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                    const at::Device& of_rank) {
  const bool stays = stage.device == "cpu" || !WhyNotOnGpu(recipe, stage).empty();
  return stays ? at::Device(at::kCPU) : of_rank;
}

}  // namespace tern::train
