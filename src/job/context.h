// What every stage of a run sees.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/dataset.h"
#include "data/packed_samples.h"
#include "data/token_source.h"
#include "metrics/journal.h"
#include "parallel/group.h"
#include "plan/plan.h"
#include "recipe/load.h"
#include "text/tokenizer.h"

namespace tern::job {

struct Context {
  // `loaded` must live as long as this. `folder` is the run's; `fetch_scripts` holds what
  // data.fetch names; group: null for one process, else the root keeps the journal.
  Context(const recipe::LoadedRecipe& loaded, std::string folder, std::string fetch_scripts,
          parallel::Group* group);

  const recipe::LoadedRecipe& loaded;
  std::string folder, fetch_scripts;
  parallel::Group* group;
  Journal journal;
  std::string resolved_yaml;
  std::map<c10::DeviceType, double> gemm_flops;  // Measured when a stage first trains there
  // This rank's GPU, or the CPU; what a stage uses is DeviceOf(stage).
  c10::Device device = c10::kCPU;

  bool is_root() const { return group == nullptr || group->is_root(); }
  // device, or the CPU where the stage says so or does what is done on CPUs only.
  c10::Device DeviceOf(const recipe::TrainStage& stage) const;
  int ranks() const { return group == nullptr ? 1 : group->size(); }
  const recipe::Recipe& recipe() const { return loaded.recipe; }
  std::string Path(const std::string& name) const { return folder + "/" + name; }
  std::string TokenizerPath() const { return Path("tokenizer.model"); }
  std::string TokensPath() const { return Path("data.tokens.h5"); }  // Of data.files
  std::string ExportsFolder() const { return Path("exports"); }

  // Opened on first use. REQUIRES: the prepare stage is done.
  const text::Tokenizer& Tokenizer();
  const data::TokenSource& Tokens();
  // What is read in samples of this length: Tokens(), or with packing samples a PackedSamples of
  // it.
  const data::TokenSource& TokensFor(int64_t sequence_length);

 private:
  std::optional<text::Tokenizer> tokenizer_;
  std::unique_ptr<data::TokenSource> tokens_;
  std::map<int64_t, data::PackedSamples> packed_;  // By length
};

// Folder of the last (or best) valid checkpoint of the last train stage before the stage of the id
// `before`. Throws InputError.
std::string CheckpointFolder(Context& context, const std::string& which, const std::string& before);

// Throws StoppedError: a stop signal ended the stage before it was done.
[[noreturn]] void ThrowStopped(const std::string& stage_id);

// data.sources of the recipe, with {fetched} replaced.
data::DatasetOptions DatasetOf(const Context& context);

// Runs `work` on the root; the other ranks wait. A null group: on this process.
void OnRoot(parallel::Group* group, const std::function<void()>& work);

// What this rank's tensors must fit into.
plan::RankMemory MemoryOf(const parallel::Group* group, const c10::Device& device);

// The results of finished stages, by id.
nlohmann::json StageResult(const Context& context, const std::string& id);

}  // namespace tern::job
