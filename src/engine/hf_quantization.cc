// See hf_quantization.h.
#include "engine/hf_quantization.h"

#include "base/log.h"
#include "engine/json_fields.h"

namespace tern::engine {
namespace {

using nlohmann::json;
using Kind = HfQuantization::Kind;

HfQuantization ReadBitnet(const JsonFields& q) {
  const std::string mode = q.GetOr<std::string>("quantization_mode", "offline");
  TERN_CHECK_FORMAT(mode == "offline" || mode == "online", q.where(), ": quantization_mode is ",
                    mode, "; want offline (packed) or online (latents)");
  const bool said = q.Has("linear_class");
  const std::string linear_class = q.GetOr<std::string>("linear_class", "bitlinear");
  TERN_CHECK_FORMAT(linear_class == "bitlinear" || linear_class == "autobitlinear", q.where(),
                    ": linear_class is ", linear_class,
                    "; want bitlinear or autobitlinear: the meaning of weight_scale depends on it");
  HfQuantization out;
  if (q.GetOr<bool>("use_rms_norm", false))
    out.own_norm_eps = q.GetOr<float>("rms_norm_eps", 1e-6f);
  if (mode == "online") {
    out.kind = Kind::kBitnetLatents;
    out.reason =
        "ternary, stored as latents that are quantized when they run: quantization_mode is "
        "online";
    return out;
  }
  const bool divide = linear_class == "bitlinear";
  out.kind = divide ? Kind::kBitnetDivide : Kind::kBitnetMultiply;
  out.reason = StrCat("packed ternary, products are ", divide ? "divided" : "multiplied",
                      " by weight_scale: linear_class is ", linear_class,
                      said ? "" : " where the key is absent, as in transformers");
  return out;
}

// "block_structure" and "weight_block_size": [rows, columns].
void ReadBlock(const json& object, const char* key, const std::string& where,
               ScaledScheme* scheme) {
  const auto size = [&](size_t i) {
    const bool fits = object.contains(key) && object[key].is_array() && object[key].size() == 2 &&
                      object[key][i].is_number_integer();
    const int64_t value = fits ? object[key][i].get<int64_t>() : 0;
    TERN_CHECK_FORMAT(value > 0, where, ": ", key, " is ",
                      object.contains(key) ? object[key].dump() : "missing",
                      "; want two numbers above 0, rows and columns");
    return value;
  };
  scheme->block_n = size(0);
  scheme->block_k = size(1);
}

using Packing = ScaledScheme::Packing;

// Formats whose matrices are decoded when they are read. Sets `scheme` and returns true for one.
bool SetPacking(const JsonFields& weights, const std::string& format, ScaledScheme* scheme) {
  const std::string type = weights.GetOr<std::string>("type", "int");
  const int64_t bits = weights.Get<int64_t>("num_bits");
  if (format == "pack-quantized" && type == "int" && bits >= 2 && bits <= 8 && bits != 4) {
    scheme->packing = Packing::kBits;
    scheme->bits = static_cast<int>(bits);
  } else if (format == "nvfp4-pack-quantized" && type == "float" && bits == 4) {
    scheme->packing = Packing::kNvfp4;
  } else if (format == "mxfp4-pack-quantized" && type == "float" && bits == 4) {
    scheme->packing = Packing::kMxfp4;
  }
  return scheme->packing != Packing::kNone;
}

ScaledCode CodeOf(const JsonFields& weights, const std::string& format) {
  const std::string type = weights.GetOr<std::string>("type", "int");
  const int64_t bits = weights.Get<int64_t>("num_bits");
  const bool any = format == "naive-quantized";
  if (format == "pack-quantized" && type == "int" && bits == 4) return ScaledCode::kInt4;
  if ((format == "int-quantized" || any) && type == "int" && bits == 8) return ScaledCode::kInt8;
  if ((format == "float-quantized" || any) && type == "float" && bits == 8)
    return ScaledCode::kFp8E4m3;
  throw FormatError(StrCat(weights.where(), ": the format ", format, " with weights of type ", type,
                           " in num_bits ", bits,
                           "; this version reads pack-quantized int 2 to 8, int-quantized int 8, "
                           "float-quantized float 8, nvfp4- and mxfp4-pack-quantized"));
}

ScaledScheme ReadGroup(const std::string& name, const json& group, const std::string& format,
                       const std::string& where) {
  TERN_CHECK_FORMAT(group.is_object() && group.contains("weights") && group["weights"].is_object(),
                    where, ": ", name, " has no weights");
  const json& object = group["weights"];
  const JsonFields weights(object, where);
  const std::string of_group = JsonFields(group, where).GetOr("format", format);
  ScaledScheme scheme{ScaledCode::kInt4};
  const bool packing = SetPacking(weights, of_group, &scheme);
  if (!packing) scheme.code = CodeOf(weights, of_group);
  scheme.symmetric = weights.GetOr<bool>("symmetric", true);
  TERN_CHECK_FORMAT(scheme.symmetric || scheme.code == ScaledCode::kInt4, where, ": symmetric of ",
                    name, " is false; this version reads zero points of 4-bit weights only");
  const std::string order = weights.GetOr<std::string>("actorder", "static");
  TERN_CHECK_FORMAT(order == "static" || order == "weight", where, ": actorder of ", name, " is ",
                    order, "; this version reads static (groups of adjacent columns)");
  const std::string strategy = weights.Get<std::string>("strategy");
  if (strategy == "group" || (strategy == "tensor_group" && packing)) {
    scheme.block_k = weights.Get<int64_t>("group_size");
    TERN_CHECK_FORMAT(scheme.block_k > 0, where, ": group_size of ", name, " is ", scheme.block_k,
                      "; want 1 or more");
  } else if (strategy == "block") {
    ReadBlock(object, "block_structure", where, &scheme);
  } else if (strategy == "tensor") {
    scheme.block_n = 0;
  } else {
    TERN_CHECK_FORMAT(strategy == "channel", where, ": strategy of ", name, " is ", strategy,
                      "; this version reads tensor, channel, group and block");
  }
  TERN_CHECK_FORMAT(scheme.block_n == 1 || scheme.code != ScaledCode::kInt4, where,
                    ": strategy of ", name, " is ", strategy,
                    "; this version reads channel and group for 4-bit weights");
  return scheme;
}

void SayActivationsStay(const std::string& where) {
  LogInfo(where,
          ": asks for rounded activations, which are floats but where they are asked for "
          "(--activations folder, a recipe's verify and generate)");
}

// input_activations of a config group.
void ReadInput(const json& object, const std::string& where, ScaledScheme* scheme) {
  const JsonFields input(object, where);
  using Code = InputRounding::Code;
  const std::string type = input.GetOr<std::string>("type", "int");
  const std::string strategy = input.GetOr<std::string>("strategy", "token");
  const json dynamic = object.value("dynamic", json(false));
  const bool is_dynamic = dynamic.is_boolean() && dynamic.get<bool>();
  scheme->input.code = Code::kOther;
  if (input.GetOr<int64_t>("num_bits", 8) != 8 || !input.GetOr<bool>("symmetric", true)) return;
  if (strategy == "group") {
    scheme->input.group = input.Get<int64_t>("group_size");
    if (scheme->input.group < 1) return;
  }
  scheme->static_input = strategy == "tensor" && !is_dynamic;
  if (!scheme->static_input && !(is_dynamic && (strategy == "token" || strategy == "group")))
    return;
  scheme->input.code = type == "float" ? Code::kFp8E4m3 : Code::kInt8;
}

HfQuantization ReadCompressedTensors(const json& object, const JsonFields& q) {
  const std::string& where = q.where();
  const std::string status = q.GetOr<std::string>("quantization_status", "compressed");
  TERN_CHECK_FORMAT(status == "compressed" || status == "frozen", where,
                    ": quantization_status is ", status, "; this version reads compressed");
  for (const char* key : {"kv_cache_scheme", "sparsity_config", "transform_config"}) {
    TERN_CHECK_FORMAT(!q.Has(key) || object[key].empty(), where, ": ", key, " is ",
                      q.Has(key) ? object[key].dump() : "",
                      "; this version reads folders without it");
  }
  const std::string format = q.Get<std::string>("format");
  TERN_CHECK_FORMAT(q.Has("config_groups") && object["config_groups"].is_object() &&
                        !object["config_groups"].empty(),
                    where, ": config_groups is missing or empty");
  HfQuantization out;
  out.kind = Kind::kScaled;
  bool activations = false;
  for (const auto& [name, group] : object["config_groups"].items()) {
    out.schemes.push_back(ReadGroup(name, group, format, where));
    if (!group.contains("input_activations") || !group["input_activations"].is_object()) continue;
    ReadInput(group["input_activations"], where, &out.schemes.back());
    activations = true;
  }
  if (activations) SayActivationsStay(where);
  return out;
}

// DeepSeek's form: a scale for a block of weights, in weight_scale_inv, which multiplies.
HfQuantization ReadFp8(const json& object, const JsonFields& q) {
  const std::string format = q.GetOr<std::string>("fmt", "e4m3");
  TERN_CHECK_FORMAT(format == "e4m3", q.where(), ": fmt is ", format, "; want e4m3");
  HfQuantization out;
  out.kind = Kind::kScaled;
  out.scale_name = "weight_scale_inv";
  out.schemes.push_back({ScaledCode::kFp8E4m3});
  ReadBlock(object, "weight_block_size", q.where(), &out.schemes[0]);
  const bool dynamic = q.GetOr<std::string>("activation_scheme", "dynamic") == "dynamic";
  out.schemes[0].input = {dynamic ? InputRounding::Code::kFp8E4m3 : InputRounding::Code::kOther,
                          out.schemes[0].block_k, 0};
  SayActivationsStay(q.where());
  return out;
}

ScaledScheme TransposedScheme(const JsonFields& q, Packing packing) {
  ScaledScheme scheme{ScaledCode::kInt4};
  scheme.packing = packing;
  scheme.symmetric = false;  // There are always zero points.
  const int64_t group = q.Get<int64_t>("group_size");
  TERN_CHECK_FORMAT(group == -1 || group > 0, q.where(), ": group_size is ", group,
                    "; want -1 (whole rows) or 1 or more");
  scheme.block_k = group == -1 ? 0 : group;
  return scheme;
}

HfQuantization ReadGptq(const JsonFields& q) {
  const int64_t bits = q.Get<int64_t>("bits");
  TERN_CHECK_FORMAT(bits == 2 || bits == 3 || bits == 4 || bits == 8, q.where(), ": bits is ", bits,
                    "; GPTQ has 2, 3, 4 and 8");
  const std::string format = q.GetOr<std::string>("checkpoint_format", "gptq");
  TERN_CHECK_FORMAT(format == "gptq" || format == "gptq_v2", q.where(), ": checkpoint_format is ",
                    format, "; this version reads gptq (zero points less one) and gptq_v2");
  const std::string words = q.GetOr<std::string>("pack_dtype", "int32");
  TERN_CHECK_FORMAT(words == "int32", q.where(), ": pack_dtype is ", words, "; want int32");
  HfQuantization out;
  out.kind = Kind::kScaled;
  out.schemes.push_back(
      TransposedScheme(q, format == "gptq" ? Packing::kGptqV1 : Packing::kGptqV2));
  out.schemes[0].bits = static_cast<int>(bits);
  return out;
}

HfQuantization ReadAwq(const JsonFields& q) {
  const int64_t bits = q.Get<int64_t>("bits");
  const std::string version = q.GetOr<std::string>("version", "gemm");
  TERN_CHECK_FORMAT(bits == 4 && version == "gemm", q.where(), ": AWQ of ", bits,
                    " bits in version ", version, "; this version reads 4 bits of gemm");
  TERN_CHECK_FORMAT(q.GetOr<bool>("zero_point", true), q.where(),
                    ": zero_point is false; this version reads AWQ with zero points");
  HfQuantization out;
  out.kind = Kind::kScaled;
  out.schemes.push_back(TransposedScheme(q, Packing::kAwq));
  return out;
}

}  // namespace

std::string ScaledScheme::Describe() const {
  if (packing == Packing::kGptqV1 || packing == Packing::kGptqV2)
    return StrCat(bits, "-bit integers of GPTQ");
  if (packing == Packing::kAwq) return "4-bit integers of AWQ";
  if (packing == Packing::kNvfp4) return "NVFP4 numbers";
  if (packing == Packing::kMxfp4) return "MXFP4 numbers";
  if (packing == Packing::kBits) return StrCat(bits, "-bit integers in words");
  const char* codes = code == ScaledCode::kInt4   ? "4-bit integers"
                      : code == ScaledCode::kInt8 ? "8-bit integers"
                                                  : "FP8 numbers";
  const auto size = [](int64_t block) { return block == 0 ? "all" : StrCat(block); };
  return StrCat(codes, symmetric ? "" : " with zero points", ", a scale for ", size(block_n), " x ",
                size(block_k), " weights");
}

HfQuantization ReadHfQuantization(const json& config, const std::string& path) {
  if (!JsonFields(config, path).Has("quantization_config")) return {};
  const json& object = config["quantization_config"];
  const JsonFields q(object, path);
  const std::string method = q.Get<std::string>("quant_method");
  if (method == "bitnet") return ReadBitnet(q);
  if (method == "fp8") return ReadFp8(object, q);
  if (method == "gptq") return ReadGptq(q);
  if (method == "awq") return ReadAwq(q);
  TERN_CHECK_FORMAT(method == "compressed-tensors", path, ": quant_method is ", method,
                    "; this version reads bitnet, compressed-tensors, fp8, gptq and awq");
  return ReadCompressedTensors(object, q);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += StrCat(text.empty() ? "" : ", ", size);
  return StrCat("[", text, "]");
}

}  // namespace tern::engine
