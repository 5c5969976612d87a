// See weight_table.h.
#include "engine/weight_table.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

struct NormPlace {
  const char* part;
  std::vector<float> LayerWeights::*member;
};
constexpr NormPlace kNorms[] = {{"input_layernorm", &LayerWeights::input_norm},
                                {"self_attn.q_norm", &LayerWeights::q_norm},
                                {"self_attn.k_norm", &LayerWeights::k_norm},
                                {"post_attention_layernorm", &LayerWeights::post_norm},
                                {"self_attn.attn_sub_norm", &LayerWeights::o_in},
                                {"mlp.ffn_sub_norm", &LayerWeights::down_in},
                                {"self_attn.q_proj.rms_norm", &LayerWeights::q_in},
                                {"self_attn.k_proj.rms_norm", &LayerWeights::k_in},
                                {"self_attn.v_proj.rms_norm", &LayerWeights::v_in},
                                {"self_attn.o_proj.rms_norm", &LayerWeights::o_in},
                                {"mlp.gate_proj.rms_norm", &LayerWeights::gate_in},
                                {"mlp.up_proj.rms_norm", &LayerWeights::up_in},
                                {"mlp.down_proj.rms_norm", &LayerWeights::down_in}};
struct LinearPlace {
  const char* part;
  LinearMatrix LayerWeights::*member;
};
constexpr LinearPlace kLinears[] = {
    {"self_attn.q_proj", &LayerWeights::q}, {"self_attn.k_proj", &LayerWeights::k},
    {"self_attn.v_proj", &LayerWeights::v}, {"self_attn.o_proj", &LayerWeights::o},
    {"mlp.gate_proj", &LayerWeights::gate}, {"mlp.up_proj", &LayerWeights::up},
    {"mlp.down_proj", &LayerWeights::down}};

struct BiasPlace {
  const char* part;
  std::vector<float> LayerWeights::*member;
};
constexpr BiasPlace kBiases[] = {{"self_attn.q_proj", &LayerWeights::q_bias},
                                 {"self_attn.k_proj", &LayerWeights::k_bias},
                                 {"self_attn.v_proj", &LayerWeights::v_bias}};

struct LayerName {
  size_t layer = 0;
  std::string part;  // "self_attn.q_proj"; empty for a name outside of the layers
};

LayerName Parse(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return {};
  LayerName out;
  const char* begin = name.data() + kPrefix.size();
  const char* end = std::from_chars(begin, name.data() + name.size(), out.layer).ptr;
  const size_t at = static_cast<size_t>(end - name.data()) + 1;
  out.part = name.substr(at, name.rfind('.') - at);
  return out;
}

template <class Places>
auto Find(const Places& places, const std::string& part, const std::string& name) {
  for (const auto& place : places) {
    if (part == place.part) return place.member;
  }
  throw BugError(StrCat("no place for ", name));
}

void CheckSize(const std::string& name, size_t found, int64_t want) {
  TERN_CHECK(static_cast<int64_t>(found) == want, name, " has ", found, " values; want ", want);
}

void CheckStorage(const std::string& name, const DenseMatrix& matrix) {
  CheckSize(name, matrix.values.size(), matrix.n * matrix.k);
}
void CheckStorage(const std::string& name, const TernaryMatrix& matrix) {
  CheckSize(name, matrix.t2.size(), matrix.n * kernels::T2RowBytes(matrix.k));
}
void CheckStorage(const std::string& name, const BlockMatrix& matrix) {
  CheckSize(name, matrix.bytes.size(), matrix.n * formats::RowBytes(matrix.type, matrix.k));
  TERN_CHECK(matrix.paired_head_dim == 0 ||
                 (matrix.paired_head_dim > 0 && matrix.n % matrix.paired_head_dim == 0),
             name, " has ", matrix.n, " rows in heads of ", matrix.paired_head_dim);
}

void CheckStorage(const std::string& name, const ScaledMatrix& matrix) {
  CheckSize(name, matrix.codes.size(), matrix.n * matrix.CodeRowBytes());
  CheckSize(name, matrix.scales.size(), matrix.ScaleBytes());
  if (!matrix.zero_points.empty())
    CheckSize(name, matrix.zero_points.size(), matrix.ZeroPointBytes());
}

void CheckStorage(const std::string& name, const Int4Matrix& matrix) {
  const int64_t scales = kernels::W4Groups(matrix.k) * matrix.n;
  CheckSize(name, matrix.codes.size(), matrix.n * kernels::W4RowBytes(matrix.k));
  CheckSize(name, matrix.scales_GN.size(), scales);
  if (!matrix.zeros_GN.empty()) CheckSize(name, matrix.zeros_GN.size(), scales);
}

template <class Variant>
void CheckMatrix(const ParameterSpec& spec, const Variant& matrix) {
  const auto check = [&](const auto& m) {
    TERN_CHECK(m.n == spec.shape[0] && m.k == spec.shape[1], spec.name, " is [", m.n, ", ", m.k,
               "]; want [", spec.shape[0], ", ", spec.shape[1], "]");
    CheckStorage(spec.name, m);
  };
  std::visit(check, matrix);
}

std::vector<float> Values(const DenseMatrix& matrix) { return matrix.values; }
template <class Matrix>  // BlockMatrix, ScaledMatrix, Int4Matrix
std::vector<float> Values(const Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.n * matrix.k));
  for (int64_t n = 0; n < matrix.n; ++n) matrix.Decode(n, values.data() + n * matrix.k);
  return values;
}
std::vector<float> Values(const TernaryMatrix&) {
  throw BugError("a ternary matrix is compared by its codes");
}

int64_t Bytes(const DenseMatrix& m) {
  return static_cast<int64_t>(m.values.size() * sizeof(float));
}
int64_t Bytes(const BlockMatrix& m) { return static_cast<int64_t>(m.bytes.size()); }
int64_t Bytes(const ScaledMatrix& m) {
  return static_cast<int64_t>(m.codes.size() + m.scales.size() + m.zero_points.size());
}
int64_t Bytes(const Int4Matrix& m) { return m.Bytes(); }
int64_t Bytes(const TernaryMatrix& m) { return static_cast<int64_t>(m.t2.size()); }

InputRounding::Code InputCodeOf(const LinearMatrix& linear) {
  const auto* matrix = std::get_if<ScaledMatrix>(&linear);
  return matrix == nullptr ? InputRounding::Code::kNone : matrix->input.code;
}

void CheckInputRounding(const ModelWeights& weights) {
  using Code = InputRounding::Code;
  for (const LayerWeights& layer : weights.layers) {
    for (const LinearPlace& place : kLinears) {
      const Code code = InputCodeOf(layer.*place.member);
      TERN_CHECK_INPUT(
          code != Code::kOther, weights.source, ": ", place.part,
          " wants inputs rounded in a way that is not done here, or groups of layers with equal "
          "weights differ in it; symmetric 8 bits, for a token, a group of columns, or by one "
          "scale, are. Leave --activations out");
    }
  }
  TERN_CHECK_INPUT(
      AsksForRoundedInputs(weights), weights.source,
      " does not ask for rounded activations (input_activations of a folder of INT8 or FP8 "
      "weights); leave --activations folder out");
}

// One parameter of a layer.
void Fill(const WeightSource& source, const ParameterSpec& spec, const std::string& part,
          LayerWeights* layer) {
  if (spec.role == ParameterRole::kLinear) {
    layer->*Find(kLinears, part, spec.name) = source.linear(spec);
  } else if (spec.role == ParameterRole::kNorm) {
    layer->*Find(kNorms, part, spec.name) = source.vector(spec);
  } else {
    layer->*Find(kBiases, part, spec.name) = source.vector(spec);
  }
}

}  // namespace

void FillWeights(const WeightSource& source, ModelWeights* weights) {
  weights->layers.resize(static_cast<size_t>(weights->config.num_layers));
  for (const ParameterSpec& spec : ParameterTable(weights->config)) {
    const LayerName name = Parse(spec.name);
    if (spec.role == ParameterRole::kEmbedding) {
      weights->embedding = source.table(spec);
    } else if (spec.role == ParameterRole::kHead) {
      weights->head = source.table(spec);
    } else if (name.part.empty()) {
      weights->final_norm = source.vector(spec);
    } else {
      Fill(source, spec, name.part, &weights->layers[name.layer]);
    }
  }
}

LayerWeights FillLayer(const WeightSource& source, const ModelConfig& config, int64_t layer) {
  LayerWeights weights;
  for (const ParameterSpec& spec : ParameterTable(config)) {
    const LayerName name = Parse(spec.name);
    if (!name.part.empty() && static_cast<int64_t>(name.layer) == layer)
      Fill(source, spec, name.part, &weights);
  }
  return weights;
}

const std::vector<float>& VectorOf(const ModelWeights& weights, const std::string& parameter_name) {
  const LayerName name = Parse(parameter_name);
  if (name.part.empty()) return weights.final_norm;
  if (parameter_name.ends_with(".bias"))
    return weights.layers.at(name.layer).*Find(kBiases, name.part, parameter_name);
  return weights.layers.at(name.layer).*Find(kNorms, name.part, parameter_name);
}

const LinearMatrix& LinearOf(const ModelWeights& weights, const std::string& parameter_name) {
  const LayerName name = Parse(parameter_name);
  return weights.layers.at(name.layer).*Find(kLinears, name.part, parameter_name);
}

std::vector<float> ValuesOf(const TableMatrix& matrix) {
  return std::visit([](const auto& m) { return Values(m); }, matrix);
}
std::vector<float> ValuesOf(const LinearMatrix& matrix) {
  return std::visit([](const auto& m) { return Values(m); }, matrix);
}

void DecodeToFloat(ModelWeights* weights) {
  const auto decode = [](auto* matrix) {
    if (std::holds_alternative<DenseMatrix>(*matrix)) return;
    const auto [n, k] = std::visit([](const auto& m) { return std::pair(m.n, m.k); }, *matrix);
    *matrix = DenseMatrix{ValuesOf(*matrix), n, k};
  };
  decode(&weights->embedding);
  if (weights->head) decode(&*weights->head);
  for (LayerWeights& layer : weights->layers) {
    for (const LinearPlace& place : kLinears) {
      LinearMatrix& matrix = layer.*place.member;
      if (!std::holds_alternative<TernaryMatrix>(matrix)) decode(&matrix);
    }
  }
}

bool AsksForRoundedInputs(const ModelWeights& weights) {
  for (const LayerWeights& layer : weights.layers)
    for (const LinearPlace& place : kLinears)
      if (InputCodeOf(layer.*place.member) != InputRounding::Code::kNone) return true;
  return false;
}

void SetActivations(CodeActivations activations, ModelWeights* weights) {
  weights->code_activations = activations;
  if (activations == CodeActivations::kFolder) CheckInputRounding(*weights);
  if (activations == CodeActivations::kFloat) DecodeToFloat(weights);
}

int64_t BytesOf(const TableMatrix& matrix) {
  return std::visit([](const auto& m) { return Bytes(m); }, matrix);
}
int64_t BytesOf(const LinearMatrix& matrix) {
  return std::visit([](const auto& m) { return Bytes(m); }, matrix);
}

int64_t BytesPerToken(const ModelWeights& weights) {
  int64_t bytes = BytesOf(weights.head ? *weights.head : weights.embedding);
  for (const LayerWeights& layer : weights.layers) {
    for (const LinearMatrix* matrix :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down})
      bytes += BytesOf(*matrix);
  }
  return bytes;
}

void CheckSizes(const ModelWeights& weights) {
  CheckSize("the list of layers", weights.layers.size(), weights.config.num_layers);
  for (const ParameterSpec& spec : ParameterTable(weights.config)) {
    switch (spec.role) {
      case ParameterRole::kEmbedding:
        CheckMatrix(spec, weights.embedding);
        break;
      case ParameterRole::kHead:
        TERN_CHECK(weights.head.has_value(), "the head is missing and not tied");
        CheckMatrix(spec, *weights.head);
        break;
      case ParameterRole::kLinear:
        CheckMatrix(spec, LinearOf(weights, spec.name));
        break;
      case ParameterRole::kNorm:
      case ParameterRole::kBias:
        CheckSize(spec.name, VectorOf(weights, spec.name).size(), spec.Count());
        break;
    }
  }
}

void CheckFinite(const std::vector<float>& values, const std::string& where) {
  for (size_t i = 0; i < values.size(); ++i) {
    TERN_CHECK_FORMAT(std::isfinite(values[i]), where, " holds ", values[i], " at ", i,
                      "; the file is damaged or the training diverged");
  }
}

}  // namespace tern::engine
