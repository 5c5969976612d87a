// See start.h.
#include "job/start.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "checkpoint/checkpoint.h"
#include "data/batch.h"
#include "data/loader.h"
#include "distill/engine_teacher.h"
#include "engine/kept_weights.h"
#include "model/batch_input.h"
#include "model/sub_norms.h"
#include "qat/layer_rules.h"
#include "qat/quantized_model.h"
#include "recipe/frozen.h"
#include "recipe/schema.h"
#include "train/step.h"
#include "transfer/import.h"

namespace tern::job {
namespace {

// Tokens on which the gains of new sub-norms are measured.
constexpr int64_t kCalibrationTokens = 2048;

bool IsGiven(const recipe::LoadedRecipe& loaded, const char* key) {
  const auto origin = loaded.origins.find(key);
  return origin != loaded.origins.end() && origin->second != "default";
}

// The start's shape with what the recipe changes of it.
ModelConfig ConfigOfStart(const recipe::LoadedRecipe& loaded, const ModelConfig& found) {
  const ModelConfig& wanted = loaded.recipe.model;
  const std::string& from = loaded.recipe.start.from;
  ModelConfig config = found;
  if (IsGiven(loaded, "model.linear")) {
    if (found.linear == LinearKind::kBitLinear && wanted.linear == LinearKind::kDense) {
      throw RecipeError(StrCat("model.linear: found dense, and ", from,
                               " has ternary layers; want bitlinear, or leave it out"));
    }
    config.linear = wanted.linear;
  }
  if (IsGiven(loaded, "model.sub_norms")) {
    const std::string why = model::WhyNotInserted(found.sub_norms, wanted.sub_norms);
    if (!why.empty()) {
      throw RecipeError(
          StrCat("model.sub_norms: ", from, ": ", why, ". Want ", ToString(found.sub_norms),
                 found.sub_norms == SubNorms::kOutputs ? ", every_linear or every_linear_only" : "",
                 ", or leave it out"));
    }
    config.sub_norms = wanted.sub_norms;
  }
  if (IsGiven(loaded, "model.context_length")) {
    if (wanted.context_length > found.context_length) {
      throw RecipeError(StrCat("model.context_length = ", wanted.context_length,
                               " is longer than that of ", from, ", ", found.context_length));
    }
    config.context_length = wanted.context_length;
  }
  return config;
}

transfer::ModelInfo ReadWithTokenizer(const std::string& from) {
  transfer::ModelInfo info = transfer::ReadModelInfo(from);
  if (!info.tokenizer)
    throw InputError(StrCat(from, " has no tokenizer that is read; want a model with one"));
  const int64_t pieces = info.tokenizer->vocab_size();
  TERN_CHECK_FORMAT(pieces <= info.config.vocab_size, from, ": its tokenizer has ", pieces,
                    " pieces, its embedding ", info.config.vocab_size, " rows");
  return info;
}

// The same ids must mean the same text.
void CheckSameTokenizer(const text::Tokenizer& ours, const text::Tokenizer& theirs,
                        const std::string& from) {
  const text::PieceTable &a = ours.table(), &b = theirs.table();
  if (a.pieces.size() != b.pieces.size()) {
    throw InputError(StrCat("teacher.from: the tokenizer of ", from, " has ", b.pieces.size(),
                            " pieces, the student's ", a.pieces.size(),
                            "; a teacher wants the student's tokenizer"));
  }
  for (size_t id = 0; id < a.pieces.size(); ++id) {
    if (a.pieces[id] == b.pieces[id]) continue;
    throw InputError(StrCat("teacher.from: token ", id, " of ", from, " is \"", b.pieces[id],
                            "\", the student's is \"", a.pieces[id],
                            "\"; a teacher wants the student's tokenizer"));
  }
}

// What would fail after the training.
void CheckExportsHold(const recipe::Recipe& recipe, const std::string& from,
                      const text::Tokenizer& tokenizer) {
  for (const recipe::Stage& stage : recipe.stages) {
    const auto* exported = std::get_if<recipe::ExportStage>(&stage);
    if (exported == nullptr) continue;
    for (const std::string& format : exported->formats) {
      if (format.starts_with("gguf/"))
        CheckGgufHolds(tokenizer, from, StrCat(exported->id, ".formats"));
    }
  }
}

// What the plan and the report tell of a teacher that the engine runs.
void FindKeptWeights(recipe::SourceModel* teacher) {
  if (transfer::IsCheckpoint(teacher->from)) {
    throw RecipeError(StrCat("teacher.runtime: found engine, and ", teacher->from,
                             " is a checkpoint, which the engine does not run; want "
                             "teacher.runtime: libtorch, or a file of tern export"));
  }
  const engine::KeptWeights kept = engine::KeptBy(*engine::OpenModel(teacher->from));
  teacher->weight_bytes = kept.bytes;
  teacher->weight_types = kept.types;
}

void FillSubNorms(Context& context, const recipe::TrainStage& stage, const model::Decoder& plain,
                  model::Decoder* decoder) {
  const data::TokenSource& tokens = context.Tokens();
  const int64_t length = std::min(stage.sequence_length, tokens.NumTokens(data::Split::kTrain) - 1);
  const int64_t available = (tokens.NumTokens(data::Split::kTrain) - 1) / length;
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < std::clamp<int64_t>(kCalibrationTokens / length, 1, available); ++i)
    starts.push_back(i * length);
  const data::Batch batch =
      data::MakeBatch(tokens, data::Split::kTrain, starts, length, data::Packing::kStream);
  model::FitSubNorms(plain, model::InputOf(batch, 0, batch.batch), decoder);
  LogInfo(stage.id, ": sub-norms inserted (", ToString(decoder->config().sub_norms),
          "), their gains fitted to ", batch.batch * batch.tokens, " tokens");
}

}  // namespace

void CheckGgufHolds(const text::Tokenizer& tokenizer, const std::string& from,
                    const std::string& key) {
  if (tokenizer.table().kind != text::ModelKind::kJsonBpe) return;
  try {
    tokenizer.ToGgufBpe();
  } catch (const RecipeError& error) {
    throw RecipeError(StrCat(key, ": ", from, ": ", error.what()));
  }
}

void CheckPatterns(const recipe::Recipe& recipe) {
  for (const recipe::Stage& stage : recipe.stages) {
    const auto* train = std::get_if<recipe::TrainStage>(&stage);
    if (train == nullptr) continue;
    qat::MatchRules(train->quantize, recipe.model, train->id);
    recipe::FrozenParameters(*train, recipe.model);
  }
}

recipe::LoadedRecipe Resolved(const recipe::LoadedRecipe& loaded) {
  recipe::LoadedRecipe out = loaded;
  recipe::Recipe& recipe = out.recipe;
  if (!recipe.start.from.empty()) {
    const transfer::ModelInfo info = ReadWithTokenizer(recipe.start.from);
    recipe.model = ConfigOfStart(loaded, info.config);
    recipe.start.sha256 = info.sha256;
    recipe.start.config = info.config;
    recipe.start.gives_tokenizer = true;
    recipe.data.tokenizer.vocab_size = info.tokenizer->vocab_size();
    CheckExportsHold(recipe, recipe.start.from, *info.tokenizer);
  }
  if (recipe.teacher.from.empty()) return out;
  const transfer::ModelInfo info = ReadWithTokenizer(recipe.teacher.from);
  recipe.teacher.sha256 = info.sha256;
  recipe.teacher.config = info.config;
  if (recipe.teacher_runtime == recipe::Runtime::kEngine) FindKeptWeights(&recipe.teacher);
  recipe.teacher.gives_tokenizer = recipe.start.from.empty() &&
                                   !IsGiven(loaded, "data.tokenizer.file") &&
                                   !IsGiven(loaded, "data.tokenizer.vocab_size");
  if (!recipe.teacher.gives_tokenizer) return out;
  recipe.model.vocab_size = info.config.vocab_size;
  recipe.data.tokenizer.vocab_size = info.tokenizer->vocab_size();
  CheckExportsHold(recipe, recipe.teacher.from, *info.tokenizer);
  return out;
}

const recipe::SourceModel* TokenizerModel(const recipe::Recipe& recipe) {
  if (recipe.start.gives_tokenizer) return &recipe.start;
  return recipe.teacher.gives_tokenizer ? &recipe.teacher : nullptr;
}

text::Tokenizer TokenizerOf(const recipe::SourceModel& model) {
  return std::move(*ReadWithTokenizer(model.from).tokenizer);
}

model::Decoder OpenReference(Context& context, const std::string& from, const c10::Device& device) {
  transfer::OpenedModel opened = transfer::OpenDecoder(from);
  TERN_CHECK(opened.tokenizer.has_value(), from);
  CheckSameTokenizer(context.Tokenizer(), *opened.tokenizer, from);
  for (const model::Parameter& parameter : opened.decoder.parameters()) {
    at::Tensor frozen = parameter.value;  // A handle to the same tensor
    frozen.set_requires_grad(false);
  }
  for (const auto& [name, inputs] : opened.decoder.inputs()) {
    const bool plain =
        inputs.codes == nn::InputCodes::kNone || inputs.codes == nn::InputCodes::kInt8;
    if (device.is_cpu() || (plain && !inputs.hadamard)) continue;
    throw RecipeError(StrCat(from, ": inputs of ", name,
                             " are rotated or of 4 bits, which CPUs alone ",
                             "make; want train.device: cpu"));
  }
  return opened.decoder.To(device);
}

std::unique_ptr<distill::Teacher> OpenTeacher(Context& context, const recipe::TrainStage& stage) {
  if (!recipe::UsesTeacher(stage.losses)) return nullptr;
  const recipe::Recipe& recipe = context.recipe();
  const std::string& from = recipe.teacher.from;
  LogInfo(stage.id, ": the teacher is ", from, ", ", TeacherWords(TeacherFacts(recipe)));
  if (recipe.teacher_runtime == recipe::Runtime::kLibtorch) {
    return std::make_unique<distill::DecoderTeacher>(
        OpenReference(context, from, context.DeviceOf(stage)));
  }
  engine::ModelWeights weights = engine::LoadModel(from);
  TERN_CHECK(weights.tokenizer.has_value(), from);
  CheckSameTokenizer(context.Tokenizer(), *weights.tokenizer, from);
  return std::make_unique<distill::EngineTeacher>(std::move(weights), stage.sequence_length);
}

nlohmann::json TeacherFacts(const recipe::Recipe& recipe) {
  const recipe::SourceModel& teacher = recipe.teacher;
  if (recipe.teacher_runtime == recipe::Runtime::kEngine)
    return {
        {"runtime", "engine"}, {"weights", teacher.weight_types}, {"bytes", teacher.weight_bytes}};
  constexpr auto kBytes = static_cast<int64_t>(sizeof(float));
  return {{"runtime", "libtorch"},
          {"weights", "F32"},
          {"bytes", kBytes * CountParameters(teacher.config)}};
}

std::string TeacherWords(const nlohmann::json& facts) {
  const auto runtime = facts["runtime"].get<std::string>();
  return StrCat(facts["weights"].get<std::string>(), " by ", runtime == "engine" ? "the " : "",
                runtime, ", ", FormatBytes(facts["bytes"]));
}

std::optional<distill::TeacherStore> OpenTeacherStore(Context& context,
                                                      const recipe::TrainStage& stage) {
  const recipe::Recipe& recipe = context.recipe();
  if (recipe.teacher_store.empty() || !recipe::UsesTeacher(stage.losses)) return std::nullopt;
  const data::TokenSource& tokens = context.TokensFor(stage.sequence_length);
  distill::TeacherStoreKey key;
  key.teacher_sha256 = recipe.teacher.sha256;
  key.tokenizer_sha256 = context.Tokenizer().sha256();
  key.seed = recipe.seed;
  key.sequence_length = stage.sequence_length;
  key.k = stage.losses.topk_k;
  key.temperature = stage.losses.topk_kl.temperature;
  key.packing = recipe.data.packing == recipe::Packing::kStream      ? "stream"
                : recipe.data.packing == recipe::Packing::kDocuments ? "documents"
                                                                     : "samples";
  key.precision = recipe.teacher_runtime == recipe::Runtime::kEngine ? "engine"
                  : stage.precision == recipe::Precision::kBf16      ? "bf16"
                                                                     : "fp32";
  data::LoaderOptions options;
  options.sequence_length = stage.sequence_length;
  options.seed = static_cast<uint64_t>(recipe.seed);
  options.packing = train::PackingOf(recipe.data.packing);
  const auto batches = [&](int64_t first, int64_t count) {
    options.sequences_per_step = count;
    TERN_CHECK(first % count == 0, first, " and ", count);
    return data::BatchOfStep(tokens, options, first / count);
  };
  std::unique_ptr<distill::Teacher> teacher;
  const auto asked = [&]() -> distill::Teacher& {
    if (!teacher) teacher = OpenTeacher(context, stage);
    return *teacher;
  };
  const int64_t count = stage.steps * (stage.tokens_per_step / stage.sequence_length);
  ProgressLine progress(stage.id, "samples of the teacher", {});
  const auto fill = [&] {
    distill::FillTeacherStore(recipe.teacher_store, key, count, asked, batches,
                              train::ComputeTypeOf(stage.precision),
                              [&](int64_t done, int64_t) { progress.Update(done); });
  };
  OnRoot(context.group, fill);  // One fills it, all read it
  progress.Finish();
  return distill::TeacherStore(recipe.teacher_store, key, count);
}

void InitializeDecoder(Context& context, const recipe::TrainStage& stage, model::Decoder* decoder) {
  const recipe::Recipe& recipe = context.recipe();
  if (recipe::StageBefore<recipe::TrainStage>(recipe, stage.id) != nullptr) {
    const std::string folder = CheckpointFolder(context, "last", stage.id);
    decoder->CopyFrom(qat::LoadLatents(checkpoint::CheckpointReader(folder)));
    LogInfo(stage.id, ": starts from ", folder);
    return;
  }
  decoder->Initialize(static_cast<uint64_t>(recipe.seed));
  if (recipe.start.from.empty()) return;
  const transfer::OpenedModel opened = transfer::OpenDecoder(recipe.start.from);
  transfer::CheckPlainInputs(opened.decoder, "model.from: " + recipe.start.from);
  decoder->CopyFrom(opened.decoder);
  LogInfo(stage.id, ": starts from ", recipe.start.from);
  if (recipe.model.sub_norms != opened.decoder.config().sub_norms)
    FillSubNorms(context, stage, opened.decoder, decoder);
}

model::Decoder UntrainedStart(Context& context, const std::string& eval_id) {
  const recipe::Recipe& recipe = context.recipe();
  const auto trainings = recipe::StagesBefore<recipe::TrainStage>(recipe, eval_id);
  TERN_CHECK(!trainings.empty(), "CheckRecipe lets no eval through without a train stage");
  model::Decoder decoder(recipe.model);
  InitializeDecoder(context, *trainings.front(), &decoder);
  const qat::QuantizedModel quantized(*trainings.back(), recipe.model,
                                      static_cast<uint64_t>(recipe.seed));
  quantized.Start(decoder);
  return quantized.Shipped(decoder);
}

}  // namespace tern::job
