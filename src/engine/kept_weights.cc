// See kept_weights.h.
#include "engine/kept_weights.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/weight_table.h"

namespace tern::engine {
namespace {

std::string TypeOf(const TernaryMatrix&) { return "T2"; }
std::string TypeOf(const DenseMatrix&) { return "F32"; }
std::string TypeOf(const BlockMatrix& matrix) {
  return std::string(formats::InfoOf(matrix.type).name);
}
std::string TypeOf(const Int4Matrix&) { return "INT4"; }
std::string TypeOf(const ScaledMatrix& matrix) {
  switch (matrix.code) {
    case ScaledCode::kInt4:
      return "INT4";
    case ScaledCode::kInt8:
      return "INT8";
    case ScaledCode::kFp8E4m3:
      return "FP8";
  }
  __builtin_unreachable();
}

}  // namespace

KeptWeights KeptBy(ModelSource& source) {
  source.LeaveUnchecked();  // Sizes alone are asked for; who loads the model looks at its values
  KeptWeights kept;
  std::map<std::string, int64_t> types;
  for (const ParameterSpec& spec : ParameterTable(source.config())) {
    switch (spec.role) {
      case ParameterRole::kEmbedding:
      case ParameterRole::kHead:
        kept.bytes += BytesOf(source.Table(spec));
        break;
      case ParameterRole::kLinear: {
        const LinearMatrix matrix = ReadRunnable(source, spec);
        const int64_t bytes = BytesOf(matrix);
        kept.bytes += bytes;
        types[std::visit([](const auto& m) { return TypeOf(m); }, matrix)] += bytes;
        break;
      }
      case ParameterRole::kNorm:
      case ParameterRole::kBias:
        kept.bytes += static_cast<int64_t>(source.Vector(spec).size() * sizeof(float));
        break;
    }
    source.DropPages();
  }
  std::vector<std::pair<std::string, int64_t>> sorted(types.begin(), types.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [name, bytes] : sorted) kept.types += (kept.types.empty() ? "" : ", ") + name;
  return kept;
}

}  // namespace tern::engine
