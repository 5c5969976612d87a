// See quantize_layer.h.
#include "ptq/quantize_layer.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"
#include "ptq/channel_scales.h"
#include "ptq/gptq.h"
#include "ptq/hessian.h"
#include "ptq/hqq.h"
#include "ptq/product.h"

namespace tern::ptq {
namespace {

using quant::RangeSearch;

// Lost part of the power of the outputs, or without a Hessian of the weights.
double ErrorOf(const at::Tensor& w_NK, const at::Tensor& v_NK, const at::Tensor& h_KK) {
  if (h_KK.defined()) return OutputError(w_NK, v_NK, h_KK);
  const double power = w_NK.square().sum(at::kDouble).item<double>();
  const double lost = (w_NK - v_NK).square().sum(at::kDouble).item<double>();
  return power > 0 ? lost / power : 0.0;
}

// Engines fuse the matrices of a step into one, which has one scale of the whole.
float SharedAmax(Step step, const BlockPass::Tensors& tensors) {
  float amax = 0;
  for (const std::string& name : MatricesOf(step))
    amax = std::max(amax, quant::MaxAbs(tensors.at(name)));
  return amax;
}

}  // namespace

RangeSearch RangeOf(const QuantizeOptions& options) {
  RangeSearch range;
  range.method = options.min_max ? RangeSearch::Method::kMinMax : RangeSearch::Method::kMse;
  return range;
}

std::string Sha256OfValues(const float* values, int64_t count) {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<float> piece(static_cast<size_t>(std::min(count, kPiece)));
  Sha256 hash;
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    const int64_t length = std::min(kPiece, count - begin);
    for (int64_t i = 0; i < length; ++i)
      piece[static_cast<size_t>(i)] = values[begin + i] + 0.0f;  // -0 + 0 is 0.
    hash.Update(piece.data(), static_cast<size_t>(length) * sizeof(float));
  }
  return hash.HexDigest();
}

LayerQuantizer::LayerQuantizer(const ModelConfig& config, const Scheme& scheme,
                               const QuantizeOptions& options, const SchemeMap* mixed,
                               ActivationRoom room)
    : config_(config),
      scheme_(scheme),
      options_(options),
      mixed_(mixed),
      rope_(nn::MakeRopeTables(
          std::max<int64_t>(options.sequence, 1), config.HeadDim(), config.rope_theta,
          RopeFactors(config.rope_scaling, config.HeadDim(), config.rope_theta))),
      room_(std::move(room)) {}

LayerQuantizer::Seen LayerQuantizer::See(BlockPass* pass, Step step) const {
  Seen seen;
  Hessian hessian;
  pass->Inputs(step, [&](const at::Tensor& x_MK) {
    hessian.Add(x_MK);
    if (!seen.x_MK.defined()) seen.x_MK = x_MK.clone();
    if (scheme_.static_activations) seen.amax = std::max(seen.amax, x_MK.abs().max().item<float>());
  });
  seen.h_KK = hessian.Mean();
  seen.tokens = hessian.tokens();
  return seen;
}

const Scheme& LayerQuantizer::SchemeOf(const std::string& prefix, Step step) const {
  return mixed_ != nullptr ? mixed_->at(prefix + MatricesOf(step).front()) : scheme_;
}

double LayerQuantizer::Fold(const Scheme& scheme, const std::vector<std::string>& matrices,
                            const std::string& before, const Seen& seen, const RangeSearch& range,
                            BlockPass::Tensors* tensors, at::Tensor* s_K) const {
  std::vector<at::Tensor> weights;
  for (const std::string& name : matrices) weights.push_back(tensors->at(name));
  const ChannelScales found = scheme.quantizes_activations
                                  ? FindSmoothScales(weights, seen.x_MK, scheme.weights, range)
                                  : FindAwqScales(weights, seen.h_KK, scheme.weights, range);
  for (const std::string& name : matrices)
    tensors->at(name) = (tensors->at(name) * found.s_K).contiguous();
  at::Tensor& source = tensors->at(before);
  source = (source / (source.dim() == 2 ? found.s_K.unsqueeze(1) : found.s_K)).contiguous();
  if (source.dim() == 1) source = AsStored(source, scheme);
  *s_K = found.s_K;
  return found.exponent;
}

void LayerQuantizer::ScaleChannels(const std::string& prefix, Step step, const RangeSearch& range,
                                   BlockPass* pass, BlockPass::Tensors* tensors, Seen* seen) const {
  at::Tensor s_K;
  if (step == Step::kQkv || step == Step::kGateUp) {
    const char* norm =
        step == Step::kQkv ? "input_layernorm.weight" : "post_attention_layernorm.weight";
    seen->exponent = Fold(scheme_, MatricesOf(step), norm, *seen, range, tensors, &s_K);
    seen->h_KK = (seen->h_KK / (s_K.unsqueeze(0) * s_K.unsqueeze(1))).contiguous();
  }
  // The inputs of down_proj are up_proj's outputs times a gate, so they are scaled before up_proj
  // is quantized.
  if (step == Step::kGateUp && !config_.HasOutputNorms()) {
    const Seen down = See(pass, Step::kDown);
    Fold(SchemeOf(prefix, Step::kDown), MatricesOf(Step::kDown), "mlp.up_proj.weight", down, range,
         tensors, &s_K);
  }
}

LayerQuantizer::Quantized LayerQuantizer::QuantizeMatrix(const std::string& name,
                                                         const at::Tensor& w_NK, const Seen& seen,
                                                         const RangeSearch& range) const {
  const at::Tensor& h_KK = seen.h_KK;
  const quant::WeightFormat& format = scheme_.weights;
  Quantized out{name, scheme_, w_NK, seen, {}, {}};
  nlohmann::json& line = out.line;
  line["format"] = format.Describe();
  if (options_.channel_scales) line["channel_exponent"] = seen.exponent;
  quant::QuantizedWeight rounded = quant::Quantize(w_NK, format, range);
  line["error_rtn"] = ErrorOf(w_NK, quant::Dequantize(rounded), h_KK);
  line["method"] = options_.method;
  line["fallback"] = nullptr;
  if (options_.method == "gptq") {
    const GptqOptions gptq{options_.gptq, range};
    GptqResult result = Gptq(w_NK, h_KK, format, gptq);
    out.weight = std::move(result.weight);
    line["damping"] = result.damping;
    line["dead_columns"] = result.dead_columns;
    if (!result.fallback.empty()) {
      line["method"] = "rtn";
      line["fallback"] = result.fallback;
    }
  } else if (options_.method == "hqq") {
    HqqResult result =
        Hqq(w_NK, rounded, range, h_KK.defined() ? h_KK.diagonal().contiguous() : at::Tensor());
    out.weight = std::move(result.weight);
    line["groups"] = result.groups;
    line["groups_improved"] = result.improved;
  } else {
    out.weight = std::move(rounded);
  }
  return out;
}

void LayerQuantizer::QuantizeSteps(const std::string& prefix, BlockPass* pass,
                                   BlockPass::Tensors* tensors,
                                   const std::function<void(Quantized)>& done) {
  RangeSearch range = RangeOf(options_);
  for (const Step step : kSteps) {
    if (mixed_ != nullptr) scheme_ = SchemeOf(prefix, step);
    range.amax.reset();  // The one before is of other matrices
    Seen seen;
    if (pass != nullptr) seen = See(pass, step);
    if (options_.channel_scales) ScaleChannels(prefix, step, range, pass, tensors, &seen);
    if (options_.channel_scales && scheme_.static_activations)
      seen.amax = See(pass, step).amax;  // Of the scaled inputs
    if (scheme_.weights.HasTensorScale()) range.amax = SharedAmax(step, *tensors);
    seen.x_MK = at::Tensor();
    for (const std::string& name : MatricesOf(step)) {
      at::Tensor& w_NK = tensors->at(name);
      Quantized matrix;
      try {
        matrix = QuantizeMatrix(name, w_NK, seen, range);
      } catch (const NumericError& error) {
        throw NumericError(StrCat(prefix, name, ": ", error.what()));
      }
      w_NK = quant::Dequantize(matrix.weight);
      done(std::move(matrix));
    }
    if (pass != nullptr && step != Step::kDown) pass->Finish(step);
  }
}

void LayerQuantizer::Train(int64_t layer, const LayerTraining& training,
                           BlockPass::Tensors* tensors, std::vector<Quantized>* matrices,
                           at::Tensor* x_BTD) const {
  BlockPass::Tensors w;
  LayerWeights weights;
  for (const Quantized& matrix : *matrices) {
    w[matrix.name] = matrix.w_NK;
    weights[matrix.name] = matrix.weight;
  }
  const nlohmann::json line = training.Run(layer, options_, *tensors, w, &weights);
  for (Quantized& matrix : *matrices) {
    matrix.weight = weights.at(matrix.name);
    tensors->at(matrix.name) = quant::Dequantize(matrix.weight);
    matrix.line.update(line);
  }
  training.WriteOutputs(*tensors, x_BTD);
}

void LayerQuantizer::Pack(const std::string& prefix, const at::Tensor& value_NK, Quantized* matrix,
                          LayerResult* out) const {
  const std::string name = prefix + matrix->name;
  const quant::QuantizedWeight& weight = matrix->weight;
  nlohmann::json& line = matrix->line;
  line["tensor"] = name;
  line["error_of"] = matrix->seen.h_KK.defined() ? "outputs" : "weights";
  line["calibration_tokens"] = matrix->seen.tokens;
  line["error"] = ErrorOf(matrix->w_NK, value_NK, matrix->seen.h_KK);
  line["scale_min"] = weight.scales.scale_RC.min().item<double>();
  line["scale_max"] = weight.scales.scale_RC.max().item<double>();
  line["values_sha256"] = Sha256OfValues(value_NK.const_data_ptr<float>(), value_NK.numel());
  for (NamedTensor& tensor : PackLinear(name, weight, matrix->scheme))
    out->tensors.push_back(std::move(tensor));
  if (matrix->scheme.static_activations) {
    out->tensors.push_back(PackInputScale(name, matrix->seen.amax));
    line["input_amax"] = matrix->seen.amax;
  }
  out->ledger.push_back(std::move(line));
}

LayerResult LayerQuantizer::Run(int64_t layer, BlockPass::Tensors* tensors, at::Tensor x_BTD) {
  const std::string prefix = StrCat("model.layers.", layer, ".");
  LayerResult out;
  for (auto& [name, value] : *tensors)
    if (value.dim() == 1) value = AsStored(value, scheme_);
  std::optional<BlockPass> pass;
  if (x_BTD.defined()) pass.emplace(config_, rope_, *tensors, x_BTD, room_);
  const auto pack = [&](Quantized matrix) {
    Pack(prefix, tensors->at(matrix.name), &matrix, &out);
  };
  BlockPass* const steps = pass ? &*pass : nullptr;
  if (TrainsLayers(options_)) {
    const LayerTraining training(config_, rope_, *tensors, x_BTD, room_);
    std::vector<Quantized> matrices;
    QuantizeSteps(prefix, steps, tensors,
                  [&](Quantized matrix) { matrices.push_back(std::move(matrix)); });
    Train(layer, training, tensors, &matrices, &x_BTD);
    for (Quantized& matrix : matrices) pack(std::move(matrix));
  } else {
    QuantizeSteps(prefix, steps, tensors, pack);
    if (steps != nullptr) steps->Finish(Step::kDown);
  }
  for (const auto& [name, value] : *tensors) {
    if (value.dim() == 1)
      out.tensors.push_back(
          PackFloats(prefix + name, value.sizes().vec(), value.const_data_ptr<float>(), scheme_));
  }
  return out;
}

}  // namespace tern::ptq
