// See checkpointer.h.
#include "train/checkpointer.h"

#include <chrono>
#include <string>

#include "checkpoint/checkpoint.h"

namespace tern::train {

Checkpointer::Checkpointer(const TrainJob& job) : job_(job) {}

Checkpointer::~Checkpointer() {
  if (writing_.valid()) writing_.wait();
}

void Checkpointer::Save(const TrainState& state, const nlohmann::json& quantize, bool background) {
  Finish();
  saving_ = std::make_unique<Saving>(
      state, SaveOptions{job_.stage_folder, job_.resolved_recipe, job_.recipe.seed, job_.group,
                         quantize, /*copy=*/background});
  if (background) {
    writing_ = std::async(std::launch::async, [saving = saving_.get()] { saving->Write(); });
    return;
  }
  saving_->Write();
  Finish();
}

bool Checkpointer::HasEnded() const {
  return !writing_.valid() ||
         writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

void Checkpointer::Finish() {
  if (!saving_) return;
  const std::unique_ptr<Saving> saving = std::move(saving_);
  if (writing_.valid()) writing_.get();
  const std::string path = saving->Finish();
  saved_step_ = saving->step();
  if (job_.group != nullptr && !job_.group->is_root()) return;
  job_.journal.Append("saved", {{"stage", job_.stage.id}, {"step", saved_step_}, {"path", path}});
  checkpoint::ApplyRetention(job_.stage_folder,
                             {job_.stage.keep_last, job_.stage.keep_best ? kValidationLoss : ""});
}

}  // namespace tern::train
