// An opened model: what it is, and its tensors one at a time as they are stored. One interface over
// GGUF files, Hugging Face folders and model files (model_file.h), so that what loads a model
// (LoadModel), keeps it (tern import) and trains from it reads them all the same way, and a model
// need not fit in memory to be copied.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/hf_tokenizer.h"
#include "engine/model_weights.h"

namespace tern::engine {

class ModelSource {
 public:
  virtual ~ModelSource() = default;

  const ModelConfig& config() const { return config_; }
  ActivationRule activation() const { return activation_; }
  const std::string& path() const { return path_; }
  // What the reader had to decide, and why: "weight_scale divides (linear_class bitlinear)".
  const std::vector<std::string>& decisions() const { return decisions_; }

  // Tensors by the specs of ParameterTable(config()), read each time they are asked for. Throw
  // FormatError (file, tensor, found, wanted). A ternary model may store a linear layer as codes
  // and scale, or as its latents, which are quantized when it runs.
  virtual std::vector<float> Vector(const ParameterSpec& spec) = 0;  // Norms and biases
  virtual TableMatrix Table(const ParameterSpec& spec) = 0;          // Embedding and head
  virtual LinearMatrix Linear(const ParameterSpec& spec) = 0;
  // From now on a BlockMatrix may come with its values unchecked and says so: for who reads them
  // all anyhow, once.
  void LeaveUnchecked() { leave_unchecked_ = true; }
  // Gives back the memory of what was read of the files by their mappings: a matrix that still lies
  // there is read from the file again when it is used.
  virtual void DropPages() const = 0;
  // Throws FormatError for a tensor that nobody has asked for: without it this would be another
  // model.
  virtual void CheckAllUsed() const = 0;

  // Nothing when there is none that this version reads; a message says so.
  virtual std::optional<text::Tokenizer> Tokenizer() const = 0;
  virtual std::optional<text::ChatTemplate> ChatTemplate() const = 0;
  // Ids of `tokenizer`, this source's, that end a text (stop_tokens.h).
  virtual std::vector<int32_t> StopTokens(const text::Tokenizer& tokenizer) const = 0;
  // Small files that belong to the model, by the names they have in a Hugging Face folder:
  // tokenizer files, the chat template, the tokens that end a text. May run beside what reads
  // tensors.
  virtual ModelFiles Files() const = 0;
  // Files() makes them, which takes a while, and may do so beside reads of tensors; else it reads.
  virtual bool MakesFiles() const { return false; }

 protected:
  // Keeps it, and says it once a process.
  void Decide(const std::string& decision);
  // CheckFinite, now or by who reads it.
  void Check(BlockMatrix* matrix, const std::string& where) const;

  ModelConfig config_;
  ActivationRule activation_ = ActivationRule::kInt8Token;
  std::string path_;

 private:
  std::vector<std::string> decisions_;
  bool leave_unchecked_ = false;
};

// A GGUF file, a Hugging Face folder or a model file. Throws InputError, FormatError.
std::unique_ptr<ModelSource> OpenModel(const std::string& path);

// A matrix of a linear layer in the form that its products are made with: latents quantized, 4-bit
// integers in the order of their kernel.
LinearMatrix ReadRunnable(ModelSource& source, const ParameterSpec& spec);

// One layer, and the whole model in memory (16-bit and block-quantized matrices stay in the mapped
// file), with ternary layers in T2, those stored as latents quantized as the trainer does.
LayerWeights ReadLayer(ModelSource& source, int64_t layer);
ModelWeights LoadModel(const std::string& path);

}  // namespace tern::engine
