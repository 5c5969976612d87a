// The other direction: a decoder to train, evaluate or export from any model that the engine reads
// (tern's checkpoints and model files, GGUF, Hugging Face folders). Values are those of the file,
// dequantized to fp32 without another rounding. A packed ternary matrix has no latents any more;
// it gets the ones whose quantization is exactly its codes and its scale.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/model_source.h"
#include "model/decoder.h"
#include "text/tokenizer.h"

namespace tern::transfer {

struct OpenedModel {
  model::Decoder decoder;
  std::optional<text::Tokenizer> tokenizer;  // Nothing when there is none that this version reads
  std::map<std::string, std::string> files;  // ModelSource::Files, to go along unchanged
  std::vector<int32_t> stop_tokens = {};     // That end a text beside the tokenizer's EOS
};

// `path`: a checkpoint (folder or state.h5), whose tokenizer is the file `tokenizer`, or, when that
// is empty, tokenizer.model in a folder above; else anything that engine::OpenModel takes. A
// ternary model whose activations are floats becomes a dense decoder, which computes the same.
// Its config is that of ConfigWithoutWindows. Throws InputError, FormatError, NumericError
// (LatentsOf).
OpenedModel OpenDecoder(const std::string& path, const std::string& tokenizer = "");

// Throws RecipeError, which begins with `what`, when the decoder rotates or quantizes inputs beyond
// BitLinear's int8 (Decoder::inputs): nothing but a checkpoint says so.
void CheckPlainInputs(const model::Decoder& decoder, const std::string& what);

// What a model is, without its tensors.
struct ModelInfo {
  ModelConfig config;
  std::optional<text::Tokenizer> tokenizer;
  std::map<std::string, std::string> files;  // As in OpenedModel
  std::string sha256;                        // Of everything that its parameters come from
};

// The source's config as a decoder computes it, which has no sliding attention: the context is cut
// to the shortest window, within which that makes no difference; a message says so.
ModelConfig ConfigWithoutWindows(const engine::ModelSource& source);

// As OpenDecoder, but reads no tensors.
ModelInfo ReadModelInfo(const std::string& path, const std::string& tokenizer = "");

// True for a folder or state.h5 of WriteCheckpoint.
bool IsCheckpoint(const std::string& path);

// fp32 latents [N, K] that QuantizeTernary turns into these very codes and this very scale: +-v,
// where v times the share of weights that are not 0 is the scale, but for one weight in each block
// of the mean, which carries the rounding of its sum. Throws NumericError when none are found: all
// codes 0 with a scale above the floor; matrices of a few thousand weights, whose mean does not
// take every value of fp32.
at::Tensor LatentsOf(const engine::TernaryMatrix& matrix);

}  // namespace tern::transfer
