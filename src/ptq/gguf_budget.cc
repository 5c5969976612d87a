// See gguf_budget.h.
#include "ptq/gguf_budget.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <sstream>

#include "base/error.h"
#include "ptq/bit_budget.h"

namespace tern::ptq {
namespace {

using formats::GgmlType;
using enum formats::GgmlType;

constexpr int64_t kAlignment = 32;  // Of tensors in the file
constexpr int64_t kRowGrain = 16;

struct Candidate {
  GgmlType type;
  uint32_t file_type;  // llama_ftype of a file of it
};
constexpr Candidate kCandidates[] = {
    {kQ2_K, 10}, {kQ3_K, 11}, {kQ4_0, 2},  {kQ4_1, 3}, {kQ4_K, 14},
    {kQ5_0, 8},  {kQ5_1, 9},  {kQ5_K, 16}, {kQ8_0, 7}, {kQ6_K, 18},
};
constexpr Candidate kUndivided = {kF16, 1};  // For rows that no block divides

struct MatrixOptions {
  ParameterSpec spec;
  std::vector<Candidate> candidates;
  std::vector<BitOption> costs;
};

// 1/2 sum_n s_n sum_k i_k e_nk^2 / sum_k i_k, with i the importance of the columns.
double PredictedKl(const at::Tensor& w_NK, GgmlType type, const std::vector<double>& sensitivity,
                   const std::vector<float>* importance) {
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  const float* w = w_NK.const_data_ptr<float>();
  const float* columns = importance != nullptr ? importance->data() : nullptr;
  double all = static_cast<double>(k);
  if (columns != nullptr) all = std::accumulate(columns, columns + k, 0.0);
  std::vector<double> lost(static_cast<size_t>(n));
  at::parallel_for(0, n, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> block(static_cast<size_t>(formats::RowBytes(type, k)));
    std::vector<float> back(static_cast<size_t>(k));
    for (int64_t row = begin; row < end; ++row) {
      const float* x = w + row * k;
      formats::EncodeRow(type, x, k, block.data(), columns);
      formats::DecodeRow(type, block.data(), k, back.data());
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double difference = double{x[i]} - double{back[static_cast<size_t>(i)]};
        sum += difference * difference * (columns != nullptr ? double{columns[i]} : 1.0);
      }
      lost[static_cast<size_t>(row)] = sum * sensitivity[static_cast<size_t>(row)];
    }
  });
  return all > 0 ? 0.5 * std::accumulate(lost.begin(), lost.end(), 0.0) / all : 0.0;
}

// "q4_0,Q6_K": those of kCandidates; empty: all.
std::vector<Candidate> Allowed(const std::string& types) {
  if (types.empty()) return {std::begin(kCandidates), std::end(kCandidates)};
  std::vector<Candidate> allowed;
  std::istringstream names(types);
  for (std::string name; std::getline(names, name, ',');) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    const auto found =
        std::find_if(std::begin(kCandidates), std::end(kCandidates),
                     [&](const Candidate& of) { return formats::InfoOf(of.type).name == name; });
    if (found == std::end(kCandidates)) {
      std::string known;
      for (const Candidate& of : kCandidates) known += StrCat(" ", formats::InfoOf(of.type).name);
      throw UsageError(StrCat("--types ", name, "; want some of", known));
    }
    allowed.push_back(*found);
  }
  return allowed;
}

// Those of `allowed` into whose blocks the matrix's rows divide.
std::vector<Candidate> CandidatesOf(const ParameterSpec& spec,
                                    const std::vector<Candidate>& allowed) {
  std::vector<Candidate> out;
  for (const Candidate& candidate : allowed) {
    if (spec.shape[1] % formats::InfoOf(candidate.type).block_weights == 0)
      out.push_back(candidate);
  }
  return out;
}

std::vector<MatrixOptions> CostsOf(FloatModel* model, const std::string& types,
                                   const Sensitivity& sensitivity, const Importance& importance) {
  const std::vector<Candidate> allowed = Allowed(types);
  std::vector<MatrixOptions> out;
  for (const ParameterSpec& spec : ParameterTable(model->config())) {
    if (spec.shape.size() != 2) continue;
    const at::Tensor w_NK = model->Read(spec).contiguous();
    const auto columns = importance.find(spec.name);
    MatrixOptions& of = out.emplace_back();
    of.spec = spec;
    of.candidates = CandidatesOf(spec, allowed);
    if (of.candidates.empty()) of.candidates.push_back(kUndivided);
    for (const Candidate& candidate : of.candidates) {
      of.costs.push_back({GgufTensorBytes(candidate.type, spec.shape),
                          PredictedKl(w_NK, candidate.type, sensitivity.at(spec.name),
                                      columns != importance.end() ? &columns->second : nullptr)});
    }
  }
  return out;
}

std::vector<GgufPlan::Point> Thinned(const std::vector<BitOption>& front, int64_t other_bytes,
                                     const BitBudget& budget) {
  std::vector<GgufPlan::Point> points;
  const int64_t least = front.front().bytes, most = front.back().bytes;
  for (int64_t i = 0; i < kFrontPoints; ++i) {
    const int64_t limit = least + (most - least) * i / (kFrontPoints - 1);
    const BitOption& total = front[static_cast<size_t>(budget.Within(limit))];
    if (points.empty() || points.back().size_bytes != total.bytes + other_bytes)
      points.push_back({total.bytes + other_bytes, total.loss});
  }
  return points;
}

uint32_t MostUsed(const std::vector<MatrixOptions>& matrices, const std::vector<size_t>& choice) {
  std::map<uint32_t, int64_t> weights;
  for (size_t m = 0; m < matrices.size(); ++m)
    weights[matrices[m].candidates[choice[m]].file_type] += matrices[m].spec.Count();
  return std::max_element(weights.begin(), weights.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

}  // namespace

void CheckGgufTypes(const std::string& types, const ModelConfig& config) {
  const std::vector<Candidate> allowed = Allowed(types);
  if (types.empty()) return;
  for (const ParameterSpec& spec : ParameterTable(config)) {
    TERN_CHECK_INPUT(spec.shape.size() != 2 || !CandidatesOf(spec, allowed).empty(), spec.name,
                     ": rows of ", spec.shape.back(),
                     " weights divide into the blocks of none of --types ", types);
  }
}

int64_t GgufTensorBytes(GgmlType type, const std::vector<int64_t>& shape) {
  const int64_t rows = shape.size() == 2 ? shape[0] : 1;
  const int64_t bytes = rows * formats::RowBytes(type, shape.back());
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

SizePlan SizePlanOf(const GgufPlan& plan) {
  SizePlan out;
  out.chosen = plan.chosen;
  out.front = plan.front;
  out.weights = plan.weights;
  for (const auto& [name, type] : plan.types)
    out.types[name] = std::string(formats::InfoOf(type).name);
  return out;
}

GgufPlan PlanGguf(FloatModel* model, const SizeTarget* target, int64_t other_bytes,
                  const std::string& types, const Sensitivity& sensitivity,
                  const Importance& importance) {
  const std::vector<MatrixOptions> matrices = CostsOf(model, types, sensitivity, importance);
  int64_t weights = 0;
  std::vector<std::vector<BitOption>> costs;
  for (const MatrixOptions& matrix : matrices) {
    weights += matrix.spec.Count();
    costs.push_back(matrix.costs);
  }
  const BitBudget budget(costs);
  const std::vector<BitOption>& front = budget.front();
  GgufPlan plan;
  plan.front = Thinned(front, other_bytes, budget);
  plan.weights = weights;
  if (target == nullptr) return plan;
  const int64_t limit = target->Limit(weights);
  const int64_t place = budget.Within(limit - other_bytes);
  if (place < 0) {
    const int64_t least = front.front().bytes + other_bytes;
    throw InputError(StrCat("a file of ", limit, " bytes: the smallest has ", least, " bytes, ",
                            8.0 * static_cast<double>(least) / static_cast<double>(weights),
                            " bits a weight"));
  }
  const BitOption& total = front[static_cast<size_t>(place)];
  const std::vector<size_t> choice = budget.Choice(place);
  for (size_t m = 0; m < matrices.size(); ++m)
    plan.types[matrices[m].spec.name] = matrices[m].candidates[choice[m]].type;
  plan.chosen = {total.bytes + other_bytes, total.loss};
  plan.file_type = MostUsed(matrices, choice);
  return plan;
}

}  // namespace tern::ptq
