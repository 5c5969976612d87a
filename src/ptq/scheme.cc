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
  bool static_activations = false;
};

std::vector<SchemeEntry> Schemes() {
  return {
      {"int4", "pack-quantized", IntFormat(4, 128), true, false},
      {"int4_asym", "pack-quantized", IntFormat(4, 128, false), true, false},
      {"w3", "pack-quantized", IntFormat(3, 128), true, false},
      {"w3_asym", "pack-quantized", IntFormat(3, 128, false), true, false},
      {"w2", "pack-quantized", IntFormat(2, 128), true, false},
      {"w2_asym", "pack-quantized", IntFormat(2, 128, false), true, false},
      {"w8", "pack-quantized", IntFormat(8, 128), true, false},
      {"nvfp4", "nvfp4-pack-quantized", quant::Nvfp4(), false, false},
      {"mxfp4", "mxfp4-pack-quantized", quant::Mxfp4(), false, false},
      {"int8", "int-quantized", IntFormat(8, 0), false, true},
      {"fp8", "float-quantized", quant::Fp8Rows(), false, true},
      {"fp8_static", "float-quantized", quant::Fp8Tensor(), false, true, true},
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
    if (spec.role != ParameterRole::kLinear) continue;
    quant::CheckGroups(format, spec.shape[1], spec.name);
    // Engines scale the inputs of such layers in groups of as many, which must fill a row.
    TERN_CHECK_INPUT(format.block_n <= 1 || spec.shape[1] % format.block_k == 0, spec.name,
                     ": rows of ", spec.shape[1], " weights do not divide by ", format.block_k,
                     "; --to fp8 has a scale a row");
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
                         {"strategy", scheme.static_activations ? "tensor" : "token"},
                         {"dynamic", !scheme.static_activations}};
  if (scheme.weights.block_n > 1) {  // The kernels of blockwise FP8 want a scale for 128 inputs.
    json["strategy"] = "group";
    json["group_size"] = scheme.weights.block_k;
  }
  return json;
}

struct ContainerEntry {
  const char* name;
  Container container;
};
constexpr ContainerEntry kContainers[] = {{"compressed-tensors", Container::kCompressedTensors},
                                          {"gptq", Container::kGptq},
                                          {"gptq_v2", Container::kGptqV2},
                                          {"awq", Container::kAwq},
                                          {"fp8", Container::kFp8}};

// Empty, or why the container cannot hold the scheme.
std::string WhyNot(Container container, const Scheme& scheme) {
  const WeightFormat& w = scheme.weights;
  const bool integers = w.element == Element::kInt && !scheme.quantizes_activations;
  switch (container) {
    case Container::kCompressedTensors:
      return "";
    case Container::kGptq:
      if (integers && !w.symmetric)
        return "it stores zero points less one, which has no place for 0: --container gptq_v2 has, "
               "or --to int4";
      [[fallthrough]];
    case Container::kGptqV2:
      return integers ? ""
                      : "it holds int4, w2, w3 and w8; gptq_v2 also int4_asym, w3_asym, w2_asym";
    case Container::kAwq:
      return integers && w.bits == 4 ? "" : "it holds int4 and int4_asym";
    case Container::kFp8:
      return w.element == Element::kE4m3 && w.block_n > 1 ? "" : "it holds fp8_block";
  }
  throw BugError("no such container");
}

// Outputs and inputs are packed into whole 32-bit words.
void CheckWords(const Scheme& scheme, const ModelConfig& config) {
  for (const ParameterSpec& spec : ParameterTable(config)) {
    if (spec.role != ParameterRole::kLinear) continue;
    for (const int64_t size : spec.shape) {
      TERN_CHECK_INPUT(size * scheme.weights.bits % 32 == 0, spec.name, " is ", spec.shape[0],
                       " x ", spec.shape[1], "; ", scheme.weights.bits, "-bit codes of ", size,
                       " do not fill whole 32-bit words, as GPTQ and AWQ want; "
                       "--container compressed-tensors holds them");
    }
  }
}

void SetContainer(const std::string& name, const ModelConfig& config, Scheme* scheme) {
  for (const ContainerEntry& entry : kContainers) {
    if (!name.empty() && name != entry.name) continue;
    const std::string why = WhyNot(entry.container, *scheme);
    if (!why.empty())
      throw UsageError(StrCat("--container ", name, " with --to ", scheme->name, ": ", why));
    scheme->container = entry.container;
    if (scheme->IsHalf()) {
      scheme->weights.scale_dtype = quant::ScaleDtype::kF16;
      CheckWords(*scheme, config);
    }
    if (entry.container == Container::kFp8) scheme->weights.scale_dtype = quant::ScaleDtype::kF32;
    return;
  }
  throw UsageError(StrCat("--container ", name, "; want one of ", ContainerNames()));
}

nlohmann::json GptqConfig(const Scheme& scheme) {
  const bool v2 = scheme.container == Container::kGptqV2;
  return {{"quant_method", "gptq"},
          {"bits", scheme.weights.bits},
          {"group_size", scheme.weights.block_k == 0 ? -1 : scheme.weights.block_k},
          {"desc_act", false},
          {"sym", scheme.weights.symmetric},
          {"lm_head", false},
          {"pack_dtype", "int32"},
          {"checkpoint_format", v2 ? "gptq_v2" : "gptq"}};
}

nlohmann::json AwqConfig(const Scheme& scheme, const std::vector<std::string>& ignore) {
  return {{"quant_method", "awq"},
          {"bits", scheme.weights.bits},
          {"group_size", scheme.weights.block_k == 0 ? -1 : scheme.weights.block_k},
          {"zero_point", true},
          {"version", "gemm"},
          {"modules_to_not_convert", ignore}};
}

nlohmann::json Fp8Config(const Scheme& scheme, const std::vector<std::string>& ignore) {
  return {{"quant_method", "fp8"},
          {"fmt", "e4m3"},
          {"activation_scheme", "dynamic"},
          {"weight_block_size", {scheme.weights.block_n, scheme.weights.block_k}},
          {"modules_to_not_convert", ignore}};
}

nlohmann::json CompressedTensorsConfig(const Scheme& scheme,
                                       const std::vector<std::string>& ignore) {
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

}  // namespace

bool Scheme::IsHalf() const {
  return container == Container::kGptq || container == Container::kGptqV2 ||
         container == Container::kAwq;
}

double Scheme::BitsPerWeight(int64_t n, int64_t k) const {
  WeightFormat stored = weights;
  if (IsHalf()) stored.symmetric = false;
  return stored.BitsPerWeight(n, k);
}

std::string ContainerNames() {
  std::string names;
  for (const ContainerEntry& entry : kContainers)
    names += StrCat(names.empty() ? "" : ", ", entry.name);
  return names;
}

std::string SchemeNames() {
  std::string names;
  for (const SchemeEntry& entry : Schemes()) names += StrCat(names.empty() ? "" : ", ", entry.name);
  return names;
}

Scheme SchemeByName(const std::string& name, int64_t group, const ModelConfig& config,
                    const std::string& container) {
  for (const SchemeEntry& entry : Schemes()) {
    if (name != entry.name) continue;
    Scheme scheme{entry.name, entry.layout, entry.weights, entry.activations,
                  entry.static_activations};
    SetGroup(group, entry, config, &scheme.weights);
    SetContainer(container, config, &scheme);
    return scheme;
  }
  throw UsageError(
      StrCat("--to ", name, "; want one of ", SchemeNames(), "; or of GGUF: ", GgufMixNames()));
}

nlohmann::json QuantizationConfig(const Scheme& scheme, const std::vector<std::string>& ignore) {
  switch (scheme.container) {
    case Container::kCompressedTensors:
      return CompressedTensorsConfig(scheme, ignore);
    case Container::kGptq:
    case Container::kGptqV2:
      return GptqConfig(scheme);
    case Container::kAwq:
      return AwqConfig(scheme, ignore);
    case Container::kFp8:
      return Fp8Config(scheme, ignore);
  }
  throw BugError("no such container");
}

nlohmann::json QuantizationConfig(const SchemeMap& schemes,
                                  const std::vector<std::string>& ignore) {
  std::map<std::string, const Scheme*> by_name;
  std::map<std::string, std::vector<std::string>> modules;
  for (const auto& [parameter, scheme] : schemes) {
    by_name[scheme.name] = &scheme;
    modules[scheme.name].push_back(parameter.substr(0, parameter.rfind('.')));
  }
  nlohmann::json config = QuantizationConfig(*by_name.begin()->second, ignore);
  if (by_name.size() == 1) return config;
  nlohmann::json groups = nlohmann::json::object();
  for (const auto& [name, scheme] : by_name) {
    nlohmann::json group = QuantizationConfig(*scheme, {})["config_groups"]["group_0"];
    group["targets"] = modules[name];
    group["format"] = scheme->layout;
    if (scheme->layout != config["format"]) config["format"] = "mixed-precision";
    groups[StrCat("group_", groups.size())] = std::move(group);
  }
  config["config_groups"] = std::move(groups);
  return config;
}

}  // namespace tern::ptq
