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

std::string LayoutOf(const quant::WeightFormat& format) {
  switch (format.element) {
    case quant::Element::kInt:
      return "pack-quantized";  // Of weights alone, 8 bits included
    case quant::Element::kE4m3:
      return "float-quantized";
    case quant::Element::kE2m1:
      return format.has_global_scale ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized";
    case quant::Element::kE5m2:
      break;
  }
  throw BugError("no rule of fake quantization is E5M2");
}

Scheme SchemeOf(const quant::WeightFormat& format) {
  Scheme scheme;
  scheme.name = format.Describe();
  scheme.layout = LayoutOf(format);
  scheme.weights = format;
  return scheme;
}

nlohmann::json ConfigOf(const ModelConfig& model, const Codes& codes) {
  SchemeMap schemes;
  std::vector<std::string> ignore = {"lm_head"};
  for (const ParameterSpec& spec : ParameterTable(model)) {
    if (spec.role != ParameterRole::kLinear) continue;
    const auto found = codes.find(spec.name);
    if (found == codes.end()) {
      ignore.push_back(spec.name.substr(0, spec.name.rfind('.')));
    } else {
      schemes[spec.name] = SchemeOf(found->second.format);
    }
  }
  return QuantizationConfig(schemes, ignore);
}

void WriteTensors(const model::Decoder& shipped, const Codes& codes, const std::string& folder) {
  formats::SafetensorsWriter writer;
  std::deque<NamedTensor> packed;
  std::deque<at::Tensor> floats;
  for (const model::Parameter& parameter : shipped.parameters()) {
    const ParameterSpec& spec = parameter.spec;
    if (const auto found = codes.find(spec.name); found != codes.end()) {
      for (NamedTensor& tensor :
           PackLinear(spec.name, found->second, SchemeOf(found->second.format))) {
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

}  // namespace

void ExportPacked(const checkpoint::CheckpointReader& checkpoint, const model::Decoder& shipped,
                  const transfer::ExportText& text, const transfer::ExportOptions& options,
                  const std::string& path) {
  const std::string& format = options.format;
  const std::string why = WhyFormatCannotHold(shipped.config(), format);
  if (!why.empty()) throw RecipeError(why);
  transfer::CheckPlainInputs(shipped, format);
  const Codes codes = qat::LoadCodes(checkpoint);
  if (codes.empty()) {
    throw RecipeError(StrCat(checkpoint.folder(),
                             " was trained without quantize.rules, so it has no ", "codes for ",
                             format, "; tern quantize makes some of any model"));
  }
  CheckHolds(format, codes);
  const auto write = [&](const std::string& beside) {
    if (format == kPackedGguf) return transfer::WriteGguf(shipped, text, options, beside, codes);
    WriteTensors(shipped, codes, beside);
    nlohmann::json config = transfer::HfConfigJson(shipped.config(), "bfloat16");
    config["quantization_config"] = ConfigOf(shipped.config(), codes);
    transfer::WriteHfCompanions(std::move(config), shipped.config().context_length, text, beside);
  };
  transfer::PutInPlace(write, shipped, text, format, path);
}

}  // namespace tern::ptq
