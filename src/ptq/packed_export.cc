// See packed_export.h.
#include "ptq/packed_export.h"

#include <algorithm>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "arch/format_names.h"
#include "base/error.h"
#include "formats/safetensors.h"
#include "ptq/packed_tensors.h"
#include "ptq/scheme.h"
#include "qat/quantized_model.h"
#include "transfer/gguf_export.h"
#include "transfer/hf_export.h"
#include "transfer/import.h"

namespace tern::ptq {
namespace {

using Codes = transfer::LinearCodes;

using Inputs = std::map<std::string, nn::InputTransform>;

nn::InputTransform InputsOf(const Inputs& inputs, const std::string& name) {
  const auto found = inputs.find(name);
  return found == inputs.end() ? nn::InputTransform{} : found->second;
}

// Whether input_activations say what `inputs` are, beside weights of `format`.
bool HoldsInputs(const quant::WeightFormat& format, const nn::InputTransform& inputs) {
  if (inputs == nn::InputTransform{}) return true;
  const bool rows = format.block_n == 1 && format.block_k == 0, tensor = format.block_n == 0;
  const bool int8 =
      format.element == quant::Element::kInt && format.bits == 8 && format.symmetric && rows;
  const bool fp8 = format.element == quant::Element::kE4m3 && (rows || tensor);
  return !inputs.hadamard && ((int8 && inputs.codes == nn::InputCodes::kInt8Dynamic) ||
                              (fp8 && inputs.codes == nn::InputCodes::kFp8Dynamic));
}

std::string LayoutOf(const quant::WeightFormat& format, bool quantizes_activations) {
  switch (format.element) {
    case quant::Element::kInt:  // In words where weights are all that is quantized
      return quantizes_activations ? "int-quantized" : "pack-quantized";
    case quant::Element::kE4m3:
      return "float-quantized";
    case quant::Element::kE2m1:
      return format.has_global_scale ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized";
    case quant::Element::kE5m2:
      break;
  }
  throw BugError("no rule of fake quantization is E5M2");
}

Scheme SchemeOf(const quant::WeightFormat& format, const nn::InputTransform& inputs) {
  Scheme scheme;
  scheme.quantizes_activations = inputs.codes != nn::InputCodes::kNone;
  scheme.name = StrCat(format.Describe(), scheme.quantizes_activations ? " and inputs" : "");
  scheme.layout = LayoutOf(format, scheme.quantizes_activations);
  scheme.weights = format;
  return scheme;
}

SchemeMap SchemesOf(const model::Decoder& shipped, const Codes& codes) {
  SchemeMap schemes;
  for (const auto& [name, w] : codes)
    schemes[name] = SchemeOf(w.format, InputsOf(shipped.inputs(), name));
  return schemes;
}

nlohmann::json ConfigOf(const ModelConfig& model, const SchemeMap& schemes) {
  std::vector<std::string> ignore = {"lm_head"};
  for (const ParameterSpec& spec : ParameterTable(model)) {
    if (spec.role == ParameterRole::kLinear && !schemes.contains(spec.name))
      ignore.push_back(spec.name.substr(0, spec.name.rfind('.')));
  }
  return QuantizationConfig(schemes, ignore);
}

void WriteTensors(const model::Decoder& shipped, const Codes& codes, const SchemeMap& schemes,
                  const std::string& folder) {
  formats::SafetensorsWriter writer;
  std::deque<NamedTensor> packed;
  std::deque<at::Tensor> floats;
  for (const model::Parameter& parameter : shipped.parameters()) {
    const ParameterSpec& spec = parameter.spec;
    if (const auto found = codes.find(spec.name); found != codes.end()) {
      for (NamedTensor& tensor : PackLinear(spec.name, found->second, schemes.at(spec.name))) {
        const NamedTensor& kept = packed.emplace_back(std::move(tensor));
        writer.Add(kept.name, kept.dtype, kept.shape, kept.bytes.data());
      }
      continue;
    }
    const bool table = spec.role == ParameterRole::kEmbedding || spec.role == ParameterRole::kHead;
    const at::Tensor& kept = floats.emplace_back(
        parameter.value.detach().to(table ? at::kBFloat16 : at::kFloat).contiguous());
    writer.Add(spec.name, table ? "BF16" : "F32", kept.sizes().vec(), kept.const_data_ptr());
  }
  writer.WriteFolder(folder);
}

// q4_0 and q8_0 are the types that GGUF alone has, by their fp16 scales.
void CheckHolds(const std::string& format, const Codes& codes) {
  const bool gguf = format == kPackedGguf;
  for (const auto& [name, w] : codes) {
    if (transfer::GgufTypeOf(w.format).has_value() == gguf) continue;
    throw RecipeError(StrCat(name, " was trained as ", w.format.Describe(), ", which ", format,
                             " does not hold; want ", gguf ? kPackedFormat : kPackedGguf,
                             ", or hf/f32, which holds every value"));
  }
}

// As recipe's check of an export stage, of what the checkpoint says.
void CheckInputs(const model::Decoder& shipped, const std::string& format, const Codes& codes) {
  if (format == kPackedGguf) return transfer::CheckPlainInputs(shipped, format);
  std::map<std::string, std::pair<std::string, nn::InputTransform>> by_format;
  for (const auto& [name, inputs] : shipped.inputs()) {
    const auto found = codes.find(name);
    if (found != codes.end() && HoldsInputs(found->second.format, inputs)) continue;
    throw RecipeError(StrCat(
        format, " cannot hold how the inputs of ", name, " were quantized or rotated (quantize.",
        "rules); it holds inputs: int8_dynamic of weights: int8 with group: 0 or lsq8, and ",
        "fp8_dynamic of fp8 or fp8_tensor; only the checkpoint says this"));
  }
  for (const auto& [name, w] : codes) {
    if (w.format.element != quant::Element::kE4m3) continue;  // Others differ in their layout, too
    const nn::InputTransform inputs = InputsOf(shipped.inputs(), name);
    const auto [first, is_new] = by_format.try_emplace(w.format.Describe(), name, inputs);
    if (is_new || first->second.second == inputs) continue;
    throw RecipeError(StrCat(format, ": ", first->second.first, " and ", name,
                             " have the same weights (", first->first,
                             "), and only one has its inputs quantized, which could not be told ",
                             "apart when it is read"));
  }
}

}  // namespace

void ExportPacked(const checkpoint::CheckpointReader& checkpoint, const model::Decoder& shipped,
                  const transfer::ExportText& text, const transfer::ExportOptions& options,
                  const std::string& path) {
  const std::string& format = options.format;
  const std::string why = WhyFormatCannotHold(shipped.config(), format);
  if (!why.empty()) throw RecipeError(why);
  const Codes codes = qat::LoadCodes(checkpoint);
  if (codes.empty()) {
    throw RecipeError(StrCat(checkpoint.folder(),
                             " was trained without quantize.rules, so it has no ", "codes for ",
                             format, "; tern quantize makes some of any model"));
  }
  CheckHolds(format, codes);
  CheckInputs(shipped, format, codes);
  const SchemeMap schemes = SchemesOf(shipped, codes);
  const auto write = [&](const std::string& beside) {
    if (format == kPackedGguf) return transfer::WriteGguf(shipped, text, options, beside, codes);
    WriteTensors(shipped, codes, schemes, beside);
    nlohmann::json config = transfer::HfConfigJson(shipped.config(), "bfloat16");
    config["quantization_config"] = ConfigOf(shipped.config(), schemes);
    transfer::WriteHfCompanions(std::move(config), shipped.config().context_length, text, beside);
  };
  transfer::PutInPlace(write, shipped, text, format, path);
}

}  // namespace tern::ptq
