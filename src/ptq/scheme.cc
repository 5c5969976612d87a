// See scheme.h.
#include "ptq/scheme.h"

#include <algorithm>

#include "base/error.h"
#include "ptq/gguf_mix.h"

namespace tern::ptq {
namespace {

using quant::Element;
using quant::IntFormat;
using quant::WeightFormat;

constexpr int64_t kOwnGroup = -1;

struct SchemeEntry {
  const char* name;
  const char* layout;
  WeightFormat weights;
  bool grouped;  // block_k is the user's
  bool activations;
};

std::vector<SchemeEntry> Schemes() {
  return {
      {"int4", "pack-quantized", IntFormat(4, 128), true, false},
      {"int4_asym", "pack-quantized", IntFormat(4, 128, false), true, false},
      {"w3", "pack-quantized", IntFormat(3, 128), true, false},
      {"w2", "pack-quantized", IntFormat(2, 128), true, false},
      {"nvfp4", "nvfp4-pack-quantized", quant::Nvfp4(), false, false},
      {"mxfp4", "mxfp4-pack-quantized", quant::Mxfp4(), false, false},
      {"int8", "int-quantized", IntFormat(8, 0), false, true},
      {"fp8", "float-quantized", quant::Fp8Rows(), false, true},
      {"fp8_block", "float-quantized", quant::Fp8Blocks(128, 128), false, true},
  };
}

std::vector<int64_t> RowLengths(const ModelConfig& config) {
  std::vector<int64_t> lengths;
  for (const ParameterSpec& spec : ParameterTable(config))
    if (spec.role == ParameterRole::kLinear) lengths.push_back(spec.shape[1]);
  return lengths;
}

int64_t LargestGroup(const ModelConfig& config) {
  const std::vector<int64_t> lengths = RowLengths(config);
  for (const int64_t group : {int64_t{128}, int64_t{64}, int64_t{32}}) {
    if (std::all_of(lengths.begin(), lengths.end(), [=](int64_t k) { return k % group == 0; }))
      return group;
  }
  throw InputError(
      "the model has rows that do not divide into groups of 128, 64 or 32; ask for whole rows with "
      "--group 0, or for --to fp8 or int8, which have a scale a row");
}

void CheckRows(const WeightFormat& format, const ModelConfig& config) {
  for (const ParameterSpec& spec : ParameterTable(config)) {
    if (spec.role == ParameterRole::kLinear) quant::CheckGroups(format, spec.shape[1], spec.name);
  }
}

void SetGroup(int64_t group, const SchemeEntry& entry, const ModelConfig& config,
              WeightFormat* format) {
  if (!entry.grouped) {
    if (group != kOwnGroup)
      throw UsageError(
          StrCat("--group ", group, ": ", entry.name, " has its own (", format->Describe(), ")"));
    CheckRows(*format, config);
    return;
  }
  TERN_CHECK_INPUT(group == kOwnGroup || group == 0 || group >= 8, "--group ", group,
                   "; want 0 (whole rows) or 8 or more");
  format->block_k = group == kOwnGroup ? LargestGroup(config) : group;
  CheckRows(*format, config);
}

int BitsOf(const WeightFormat& format) {
  if (format.element == Element::kInt) return format.bits;
  return format.element == Element::kE2m1 ? 4 : 8;
}

nlohmann::json Arguments(const WeightFormat& format) {
  const bool tensor = format.block_n == 0, rows = format.block_n == 1 && format.block_k == 0;
  const bool blocks = format.block_n > 1;
  nlohmann::json json = {{"num_bits", BitsOf(format)},
                         {"type", format.element == Element::kInt ? "int" : "float"},
                         {"symmetric", format.symmetric},
                         {"strategy", tensor                    ? "tensor"
                                      : rows                    ? "channel"
                                      : blocks                  ? "block"
                                      : format.has_global_scale ? "tensor_group"
                                                                : "group"},
                         {"dynamic", false}};
  if (blocks) json["block_structure"] = {format.block_n, format.block_k};
  if (!tensor && !rows && !blocks) json["group_size"] = format.block_k;
  if (format.scale_dtype == quant::ScaleDtype::kE4m3) json["scale_dtype"] = "torch.float8_e4m3fn";
  if (format.scale_dtype == quant::ScaleDtype::kE8m0) json["scale_dtype"] = "torch.uint8";
  return json;
}

nlohmann::json ActivationArguments(const Scheme& scheme) {
  if (!scheme.quantizes_activations) return nullptr;
  nlohmann::json json = {{"num_bits", 8},
                         {"type", scheme.weights.element == Element::kInt ? "int" : "float"},
                         {"symmetric", true},
                         {"strategy", "token"},
                         {"dynamic", true}};
  if (scheme.weights.block_n > 1) {  // The kernels of blockwise FP8 want a scale for 128 inputs.
    json["strategy"] = "group";
    json["group_size"] = scheme.weights.block_k;
  }
  return json;
}

}  // namespace

std::string SchemeNames() {
  std::string names;
  for (const SchemeEntry& entry : Schemes()) names += StrCat(names.empty() ? "" : ", ", entry.name);
  return names;
}

Scheme SchemeByName(const std::string& name, int64_t group, const ModelConfig& config) {
  for (const SchemeEntry& entry : Schemes()) {
    if (name != entry.name) continue;
    Scheme scheme{entry.name, entry.layout, entry.weights, entry.activations};
    SetGroup(group, entry, config, &scheme.weights);
    return scheme;
  }
  throw UsageError(
      StrCat("--to ", name, "; want one of ", SchemeNames(), "; or of GGUF: ", GgufMixNames()));
}

nlohmann::json QuantizationConfig(const Scheme& scheme, const std::vector<std::string>& ignore) {
  const nlohmann::json group = {{"targets", {"Linear"}},
                                {"weights", Arguments(scheme.weights)},
                                {"input_activations", ActivationArguments(scheme)},
                                {"output_activations", nullptr}};
  return {{"quant_method", "compressed-tensors"},
          {"format", scheme.layout},
          {"quantization_status", "compressed"},
          {"config_groups", {{"group_0", group}}},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr}};
}

}  // namespace tern::ptq
