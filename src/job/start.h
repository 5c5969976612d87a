// Models of others that a recipe names: `model.from`, whose parameters training starts with, and
// `teacher.from`. The first one's shape becomes the recipe's before it is checked, and the hashes
// of both are part of its fingerprint.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "distill/teacher.h"
#include "distill/teacher_store.h"
#include "job/context.h"
#include "model/decoder.h"
#include "recipe/load.h"
#include "text/tokenizer.h"

namespace tern::job {

// The recipe with the shape, the vocabulary and the hash of the models that it names; idempotent.
// Reads no tensors. Throws InputError and FormatError for a model that cannot be opened,
// RecipeError when the recipe asks for what the model is not: dense layers of a ternary one, no
// sub-norms of one that has them, a longer context, a tokenizer that an export format cannot hold.
recipe::LoadedRecipe Resolved(const recipe::LoadedRecipe& loaded);

// Whether every train stage's quantize.rules and freeze fit the model. Throws RecipeError as
// qat::MatchRules and recipe::FrozenParameters. REQUIRES: resolved.
void CheckPatterns(const recipe::Recipe& recipe);

// Throws RecipeError ("KEY: FROM: why; want ...") for the tokenizer of a model that GGUF cannot
// say.
void CheckGgufHolds(const text::Tokenizer& tokenizer, const std::string& from,
                    const std::string& key);

// The model whose tokenizer the data is made with: model.from's, else, when data.tokenizer says
// nothing, teacher.from's; null: none of them. REQUIRES: resolved.
const recipe::SourceModel* TokenizerModel(const recipe::Recipe& recipe);
text::Tokenizer TokenizerOf(const recipe::SourceModel& model);

// The model at `from` with frozen parameters in the device's memory, for one that is trained to be
// like it. Throws InputError when its tokenizer is not the data's, naming the first token that
// differs, RecipeError when its inputs are what CPUs alone make.
model::Decoder OpenReference(Context& context, const std::string& from, const c10::Device& device);

// teacher.from in teacher.runtime, when the stage has a loss that compares with it; else null.
// Throws as OpenReference.
std::unique_ptr<distill::Teacher> OpenTeacher(Context& context, const recipe::TrainStage& stage);

// What runs the teacher of OpenTeacher and what it keeps of the weights: "runtime", "weights",
// "bytes".
nlohmann::json TeacherFacts(const recipe::Recipe& recipe);
// In words: "Q4_1 by the engine, 92.0 MiB".
std::string TeacherWords(const nlohmann::json& facts);

// What teacher.from says of the stage's samples, from teacher.store, which is filled first with
// what it lacks; nothing without a store. Throws as FillTeacherStore.
std::optional<distill::TeacherStore> OpenTeacherStore(Context& context,
                                                      const recipe::TrainStage& stage);

// Values for a stage that has no checkpoint: those of the train stage before it, else model.from's,
// else random ones. Sub-norms that model.from lacks get the gains with which the decoder computes
// nearly what it did (model/sub_norms.h), measured on training data.
void InitializeDecoder(Context& context, const recipe::TrainStage& stage, model::Decoder* decoder);

// What the last train stage before the eval stage would ship had nothing been trained: the first
// one's start, quantized. REQUIRES: model.from is given.
model::Decoder UntrainedStart(Context& context, const std::string& eval_id);

}  // namespace tern::job
