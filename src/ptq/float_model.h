// The model to quantize, tensor by tensor as fp32: a GGUF file, Hugging Face folder or model file,
// of which one layer is in memory at a time, or a checkpoint, which is read as a whole. Ternary
// models are refused (tern export keeps them as they are), and so are quantized ones, unless the
// caller says that their error may be there twice.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
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

  // Values of a parameter, in its shape.
  at::Tensor Read(const ParameterSpec& spec);
  // Stands for Read of a parameter that was read by an earlier process.
  void Skip(const ParameterSpec& spec);
  // The same by rows, of which `see` gets all in order, at most `bytes` bytes at a time. A table in a
  // 16-bit or block type that is not rotated is never in memory as a whole.
  void ReadRows(const ParameterSpec& spec, int64_t bytes,
                const std::function<void(const at::Tensor& rows_RK)>& see);
  // Writes the rows of the embedding for tokens_BT into x_BTD, of which `done` sees each sequence,
  // [T, D]; any number of times.
  void Embed(const at::Tensor& tokens_BT, const at::Tensor& x_BTD,
             const std::function<void(at::Tensor x_TD)>& done = nullptr);
  bool IsCheckpoint() const { return decoder_ != nullptr; }
  // Whether the embedding or the head is decoded as a whole when it is read.
  bool DecodesTables();
  // Forgets a checkpoint's parameters. REQUIRES: nothing is read any more.
  void Close() { decoder_.reset(); }
  // Gives back the memory of what was read of the files by mapping them.
  void DropPages() const;
  // Throws FormatError for a tensor of the file that nobody has asked for.
  void CheckAllUsed() const;

 private:
  at::Tensor ReadStored(const ParameterSpec& spec);
  at::Tensor Gain(const std::string& norm);  // Any number of times
  at::Tensor ReadLinear(const ParameterSpec& spec);
  void RefuseQuantizedFolder() const;
  void RefuseQuantized(const std::string& name, const std::string& how) const;

  std::string path_;
  bool allow_requantize_;
  ModelConfig config_;
  std::unique_ptr<engine::ModelSource> source_;  // Or else
  std::unique_ptr<model::Decoder> decoder_;      // of a checkpoint
  std::optional<ModelRotation> rotation_;
  bool was_tied_ = false;                    // Before the rotation
  std::map<std::string, at::Tensor> gains_;  // Of the stored model's norms, read once
  std::optional<text::Tokenizer> tokenizer_;
  std::map<std::string, std::string> files_;
};

}  // namespace tern::ptq
