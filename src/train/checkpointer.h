// When and how a train stage is saved: at once, or copied and written by a second thread while
// training goes on (train.checkpoint_async). What is saved is the same; so is what a killed run
// goes on from: a checkpoint gets its name when all of it is on disk.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>

#include "train/train.h"
#include "train/train_state.h"

namespace tern::train {

class Checkpointer {
 public:
  explicit Checkpointer(const TrainJob& job);
  // Waits for a thread that still writes; what it wrote gets no name.
  ~Checkpointer();

  // The state at this step is on disk, or (`background`) will be; one begun before is finished
  // first. With a group all ranks call together. Throws ResourceError: disk full.
  void Save(const TrainState& state, const nlohmann::json& quantize, bool background);

  // Whether there is nothing that this rank still writes. Other ranks may be slower: Finish when
  // all have ended.
  bool HasEnded() const;
  // Gives what was begun its name; waits for it. Nothing when nothing was begun. With a group all
  // ranks call together. Throws what the writing threw.
  void Finish();

  int64_t saved_step() const { return saved_step_; }  // Of the last that has its name; -1: none
  void set_saved_step(int64_t step) { saved_step_ = step; }

 private:
  const TrainJob& job_;
  int64_t saved_step_ = -1;
  std::unique_ptr<Saving> saving_;  // Begun in the background
  std::future<void> writing_;
};

}  // namespace tern::train
