// The model to quantize, tensor by tensor as fp32: a GGUF file, Hugging Face folder or model file,
// of which one layer is in memory at a time, or a checkpoint, which is read as a whole. Ternary
// models are refused (tern export keeps them as they are), and so are quantized ones, unless the
// caller says that their error may be there twice.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "engine/model_source.h"
#include "model/decoder.h"
#include "ptq/rotation.h"

namespace tern::ptq {

class FloatModel {
 public:
  // Throws InputError, FormatError.
  FloatModel(const std::string& path, const std::string& tokenizer, bool allow_requantize);

  const ModelConfig& config() const { return config_; }
  const std::string& path() const { return path_; }
  const std::optional<text::Tokenizer>& tokenizer() const { return tokenizer_; }
  const std::map<std::string, std::string>& files() const { return files_; }

  // The tokenizer and the files of another model instead of its own: of the one that a checkpoint
  // was trained from. Throws as transfer::ReadModelInfo.
  void TakeCompanions(const std::string& model);

  // From now on it is the model with rotation.h's rotations in its weights: config() and all
  // parameters are those of that one. REQUIRES: nothing was read.
  void Rotate();
  std::string RotationText() const { return rotation_ ? rotation_->Describe() : ""; }

  // Values of a parameter, in its shape. Each is to be asked for once.
  at::Tensor Read(const ParameterSpec& spec);
  // Stands for Read of a parameter that was read by an earlier process.
  void Skip(const ParameterSpec& spec);
  // The rows of the embedding for these tokens, [tokens, D]; any number of times.
  at::Tensor Embed(const at::Tensor& tokens_M);
  // Gives back the memory of what was read of the files by mapping them.
  void DropPages() const;
  // Throws FormatError for a tensor of the file that nobody has asked for.
  void CheckAllUsed() const;

 private:
  at::Tensor ReadStored(const ParameterSpec& spec);
  at::Tensor StoredRows(const at::Tensor& tokens_M);  // Of the embedding
  at::Tensor Gain(const std::string& norm);           // Any number of times
  at::Tensor ReadLinear(const ParameterSpec& spec);
  void RefuseQuantizedFolder() const;
  void RefuseQuantized(const std::string& name, const std::string& how) const;

  std::string path_;
  bool allow_requantize_;
  ModelConfig config_;
  std::unique_ptr<engine::ModelSource> source_;  // Or else
  std::unique_ptr<model::Decoder> decoder_;      // of a checkpoint
  std::optional<engine::TableMatrix> embedding_;
  std::optional<ModelRotation> rotation_;
  bool was_tied_ = false;                    // Before the rotation
  std::map<std::string, at::Tensor> gains_;  // Of the stored model's norms, read once
  std::optional<text::Tokenizer> tokenizer_;
  std::map<std::string, std::string> files_;
};

}  // namespace tern::ptq
