// See context.h.
#include "job/context.h"

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/stop_signal.h"
#include "checkpoint/checkpoint.h"
#include "data/token_file.h"
#include "job/start.h"
#include "parallel/gpu.h"
#include "recipe/schema.h"
#include "train/placement.h"
#include "train/train.h"

namespace tern::job {

Context::Context(const recipe::LoadedRecipe& the_recipe, std::string run_folder,
                 std::string scripts, parallel::Group* the_group)
    : loaded(the_recipe),
      folder(std::move(run_folder)),
      fetch_scripts(std::move(scripts)),
      group(the_group),
      journal(is_root() ? folder + "/journal.jsonl" : ""),
      resolved_yaml(recipe::ResolvedYaml(the_recipe)) {}

c10::Device Context::DeviceOf(const recipe::TrainStage& stage) const {
  return train::DeviceOf(recipe(), stage, device);
}

const text::Tokenizer& Context::Tokenizer() {
  if (!tokenizer_) {  // A tokenizer.json alone does not say which token ends a text.
    const recipe::SourceModel* model = TokenizerModel(recipe());
    tokenizer_ =
        model == nullptr ? text::Tokenizer::FromFile(TokenizerPath()) : TokenizerOf(*model);
  }
  return *tokenizer_;
}

const data::TokenSource& Context::Tokens() {
  if (!tokens_ && !recipe().data.sources.empty()) {
    tokens_ = data::OpenDataset(DatasetOf(*this), Tokenizer());
  } else if (!tokens_) {
    tokens_ = std::make_unique<data::TokenFile>(data::TokenFile::Open(TokensPath(), Tokenizer()));
  }
  return *tokens_;
}

const data::TokenSource& Context::TokensFor(int64_t sequence_length) {
  const data::TokenSource& tokens = Tokens();
  if (recipe().data.packing != recipe::Packing::kSamples) return tokens;
  const auto [found, is_new] = packed_.try_emplace(sequence_length, tokens, sequence_length);
  if (!is_new) return found->second;
  for (const data::Split split : data::kSplits) {
    const data::PackedTotals& totals = found->second.totals(split);
    if (totals.samples == 0) continue;
    LogInfo(data::SplitName(split), ": ", totals.documents, " documents in ", totals.samples,
            " samples of ", sequence_length, " tokens, ", totals.padding, " of padding");
    if (totals.cut_documents > 0) {
      LogWarn(data::SplitName(split), ": ", totals.cut_documents, " documents are longer than ",
              sequence_length, " tokens and lose their ends, ", totals.cut_tokens, " tokens");
    }
  }
  return found->second;
}

std::string CheckpointFolder(Context& context, const std::string& which,
                             const std::string& before) {
  const auto* train = recipe::StageBefore<recipe::TrainStage>(context.recipe(), before);
  TERN_CHECK(train != nullptr, "CheckRecipe lets no stage through that has no training before it");
  const std::string folder = context.Path(train->id);
  const checkpoint::Found found = which == "best"
                                      ? checkpoint::FindBestValid(folder, train::kValidationLoss)
                                      : checkpoint::FindNewestValid(folder);
  for (const auto& refused : found.refused)
    LogWarn("checkpoint refused: ", refused.path, ": ", refused.reason);
  TERN_CHECK_INPUT(found.path.has_value(), "there is no valid checkpoint in ", folder);
  return *found.path;
}

void ThrowStopped(const std::string& stage_id) {
  throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()), " during ", stage_id,
                            "; run the same command again to go on"));
}

nlohmann::json StageResult(const Context& context, const std::string& id) {
  const std::string path = context.Path("stages/" + id + ".json");
  if (!std::filesystem::exists(path)) return nullptr;
  return nlohmann::json::parse(ReadFile(path)).value("result", nlohmann::json());
}

void OnRoot(parallel::Group* group, const std::function<void()>& work) {
  group == nullptr ? work() : group->OnRoot(work);
}

plan::RankMemory MemoryOf(const parallel::Group* group, const c10::Device& device) {
  return {group == nullptr ? 1 : group->layout().per_machine, parallel::DeviceMemory(device)};
}

}  // namespace tern::job
