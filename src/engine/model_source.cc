// See model_source.h.
#include "engine/model_source.h"

#include <filesystem>
#include <mutex>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "engine/gguf_model.h"
#include "engine/hf_model.h"
#include "engine/int4_matrix.h"
#include "engine/model_file.h"
#include "engine/weight_table.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/ternary_quantize.h"

namespace tern::engine {
namespace {

TernaryMatrix QuantizeLatents(const LinearMatrix& latents, const ParameterSpec& spec) {
  const std::vector<float> w_NK = ValuesOf(latents);
  TernaryMatrix matrix;
  matrix.n = spec.shape[0];
  matrix.k = spec.shape[1];
  matrix.scale = kernels::TernaryScale(w_NK.data(), matrix.n * matrix.k, SerialFor);
  matrix.t2.resize(static_cast<size_t>(matrix.n * kernels::T2RowBytes(matrix.k)));
  kernels::TernaryQuantize(w_NK.data(), matrix.n, matrix.k, matrix.scale, matrix.t2.data(), nullptr,
                           SerialFor);
  return matrix;
}

// What a stored matrix is for its products: latents as codes, 4-bit integers in the order of their
// kernel where their scales allow it.
LinearMatrix Runnable(LinearMatrix matrix, const ParameterSpec& spec, LinearKind kind) {
  if (kind == LinearKind::kBitLinear && !std::holds_alternative<TernaryMatrix>(matrix))
    return QuantizeLatents(matrix, spec);
  const auto* scaled = std::get_if<ScaledMatrix>(&matrix);
  if (scaled == nullptr) return matrix;
  auto repacked = RepackInt4(*scaled);
  if (!repacked) return matrix;
  DropMappedPages(scaled->codes);  // Not read again
  return *std::move(repacked);
}

WeightSource PartsOf(ModelSource& source) {
  return {[&](const ParameterSpec& spec) { return source.Vector(spec); },
          [&](const ParameterSpec& spec) { return source.Table(spec); },
          [&](const ParameterSpec& spec) { return ReadRunnable(source, spec); }};
}

}  // namespace

void ModelSource::Decide(const std::string& decision) {
  static std::mutex mutex;
  // A model is often opened twice: for its shape, for its tensors.
  static std::set<std::string> said;
  const std::string line = StrCat(path_, ": ", decision);
  decisions_.push_back(decision);
  const std::lock_guard lock(mutex);
  if (said.insert(line).second) LogInfo(line);
}

void ModelSource::Check(BlockMatrix* matrix, const std::string& where) const {
  if (leave_unchecked_) {
    matrix->unchecked = where;
  } else {
    CheckFinite(*matrix, where);
  }
}

std::unique_ptr<ModelSource> OpenModel(const std::string& path) {
  if (std::filesystem::is_directory(path)) {
    TERN_CHECK_INPUT(std::filesystem::exists(path + "/config.json"), path,
                     " is a folder without config.json; want a GGUF file, a model file of tern "
                     "import or a Hugging Face folder",
                     std::filesystem::exists(path + "/manifest.json")
                         ? ". Is it a checkpoint? tern export makes each of them of it"
                         : "");
    return OpenHfFolder(path);
  }
  return IsHdf5(path) ? OpenModelFile(path) : OpenGguf(path);
}

LinearMatrix ReadRunnable(ModelSource& source, const ParameterSpec& spec) {
  return Runnable(source.Linear(spec), spec, source.config().linear);
}

LayerWeights ReadLayer(ModelSource& source, int64_t layer) {
  return FillLayer(PartsOf(source), source.config(), layer);
}

ModelWeights LoadModel(const std::string& path) {
  const std::unique_ptr<ModelSource> source = OpenModel(path);
  ModelWeights weights;
  weights.source = path;
  weights.config = source->config();
  weights.activation = source->activation();
  FillWeights(PartsOf(*source), &weights);
  source->CheckAllUsed();
  weights.tokenizer = source->Tokenizer();
  if (weights.tokenizer) weights.stop_tokens = source->StopTokens(*weights.tokenizer);
  weights.chat_template = source->ChatTemplate();
  return weights;
}

}  // namespace tern::engine
