// Places in ModelWeights by Hugging Face parameter name, so that every reader fills them by one
// loop over ParameterTable.
#pragma once

#include <functional>
#include <string>

#include "engine/model_weights.h"

namespace tern::engine {

// Where a reader gets a model's numbers from. Each throws FormatError (file, tensor, found,
// wanted).
struct WeightSource {
  std::function<std::vector<float>(const ParameterSpec&)> vector;  // Norms and biases, [D]
  std::function<TableMatrix(const ParameterSpec&)> table;          // Embedding and head
  std::function<LinearMatrix(const ParameterSpec&)> linear;
};

// Reads every parameter of weights->config into its place.
void FillWeights(const WeightSource& source, ModelWeights* weights);
// Those of one layer. REQUIRES: layer < config.num_layers.
LayerWeights FillLayer(const WeightSource& source, const ModelConfig& config, int64_t layer);

// The gain of a norm or a bias, and the matrix of a linear layer, by parameter name, for
// comparisons. Throw BugError for a name that is none.
const std::vector<float>& VectorOf(const ModelWeights& weights, const std::string& parameter_name);
const LinearMatrix& LinearOf(const ModelWeights& weights, const std::string& parameter_name);

// All values of a matrix as the model has them, [n, k], for comparisons: 4 bytes a weight.
std::vector<float> ValuesOf(const TableMatrix& matrix);
// The same for a matrix that is not ternary. Throws BugError for one that is.
std::vector<float> ValuesOf(const LinearMatrix& matrix);

// Decodes every matrix that is not ternary to fp32, so that products are those of floats: for small
// codes the engine otherwise rounds activations (docs/adr/0004). Four bytes a weight.
void DecodeToFloat(ModelWeights* weights);

// Sets weights->code_activations; kFloat: with DecodeToFloat. Throws InputError for kFolder when no
// layer asks for rounded inputs, or one for what is not done here.
void SetActivations(CodeActivations activations, ModelWeights* weights);

// Whether a folder of INT8 or FP8 weights wants any layer's inputs rounded.
bool AsksForRoundedInputs(const ModelWeights& weights);
// Bytes of a matrix with its scales, as it lies in memory or in the mapped file.
int64_t BytesOf(const TableMatrix& matrix);
int64_t BytesOf(const LinearMatrix& matrix);

// Bytes of weights that decoding one token reads: every matrix and the head once, as they lie in
// memory.
int64_t BytesPerToken(const ModelWeights& weights);

// Throws BugError that names the first part whose size is not the one of weights.config.
void CheckSizes(const ModelWeights& weights);

// Throws FormatError ("where holds nan at 7") unless every value is finite: a NaN would vanish in
// the int8 activations and come out as plausible nonsense.
void CheckFinite(const std::vector<float>& values, const std::string& where);

}  // namespace tern::engine
