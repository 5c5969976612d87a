// See health.h.
#include "train/health.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "base/error.h"
#include "quant/ternary.h"

namespace tern::train {
namespace {

bool IsLinear(const model::Parameter& parameter) {
  return parameter.spec.role == ParameterRole::kLinear;
}

// Sums over the layers of one kind.
struct KindSums {
  int64_t zeros = 0, flips = 0, weights = 0, matrices = 0;
  double beta = 0, drift = 0, grad_squares = 0;
};

// What is counted in slices becomes the group's sum.
void SumSlices(parallel::Group& group, std::map<std::string, KindSums>* sums) {
  std::vector<double> mine;
  for (const auto& [kind, s] : *sums) {
    mine.push_back(static_cast<double>(s.zeros));
    mine.push_back(static_cast<double>(s.flips));
  }
  const auto all = group.GatherNumbers(mine);
  size_t next = 0;
  for (auto& [kind, s] : *sums) {
    s.zeros = s.flips = 0;
    for (const std::vector<double>& of_rank : all) {
      s.zeros += static_cast<int64_t>(of_rank[next]);
      s.flips += static_cast<int64_t>(of_rank[next + 1]);
    }
    next += 2;
  }
}

}  // namespace

std::string LayerKind(const std::string& parameter_name) {
  const size_t end = parameter_name.rfind(".weight");
  TERN_CHECK(end != std::string::npos && end > 0, parameter_name);
  const size_t begin = parameter_name.rfind('.', end - 1);
  return parameter_name.substr(begin + 1, end - begin - 1);
}

void ClipCounter::OnActivations(std::string_view group, const quant::Int8Rows& x) {
  const auto codes = x.q_MK.narrow(1, 0, x.k);
  Count& count = counts_.try_emplace(std::string(group)).first->second;
  count.clipped += ((codes == x.top) | (codes <= -x.top)).sum().item<int64_t>();
  count.all += codes.numel();
}

nlohmann::json ClipCounter::Shares() const {
  nlohmann::json shares;
  for (const auto& [group, count] : counts_) {
    shares[group] = static_cast<double>(count.clipped) / static_cast<double>(count.all);
  }
  return shares;
}

void ClipCounter::Sum(parallel::Group& group) {
  std::vector<double> mine;  // The same groups on every rank: the model's
  for (const auto& [name, count] : counts_) {
    mine.push_back(static_cast<double>(count.clipped));
    mine.push_back(static_cast<double>(count.all));
  }
  const auto all = group.GatherNumbers(mine);
  size_t next = 0;
  for (auto& [name, count] : counts_) {
    count = {};
    for (const std::vector<double>& of_rank : all) {
      count.clipped += static_cast<int64_t>(of_rank[next]);
      count.all += static_cast<int64_t>(of_rank[next + 1]);
    }
    next += 2;
  }
}

quant::TernaryWeight HealthProbe::Codes(const at::Tensor& w_NK,
                                        const at::Tensor& previous_NC) const {
  if (source_ == nullptr) return quant::QuantizeTernary(w_NK, previous_NC);
  quant::TernaryWeight w = source_->Ternary(w_NK);
  if (!previous_NC.defined()) return w;
  quant::TernaryWeight previous = w;
  previous.t2_NC = previous_NC;
  const at::Tensor now_NK = quant::Dequantize(w, 1.0f);
  w.zeros = now_NK.numel() - now_NK.count_nonzero().item<int64_t>();
  w.flips = (now_NK != quant::Dequantize(previous, 1.0f)).sum().item<int64_t>();
  return w;
}

void HealthProbe::BeforeUpdate(const std::vector<model::Parameter>& parameters,
                               const std::vector<double>& grad_squares, double loss_scale) {
  const at::NoGradGuard no_grad;
  before_.clear();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!IsLinear(parameters[i])) continue;
    const quant::TernaryWeight w = Codes(parameters[i].value, {});
    before_.push_back({w.t2_NC, w.beta, std::sqrt(grad_squares[i]) / loss_scale});
  }
}

nlohmann::json HealthProbe::AfterUpdate(const std::vector<model::Parameter>& parameters) const {
  const at::NoGradGuard no_grad;
  std::map<std::string, KindSums> sums;
  size_t next = 0;
  for (const model::Parameter& parameter : parameters) {
    if (!IsLinear(parameter)) continue;
    const Before& before = before_.at(next++);
    const quant::TernaryWeight now = Codes(parameter.value, before.codes_NC);
    KindSums& kind = sums[LayerKind(parameter.spec.name)];
    kind.zeros += now.zeros;
    kind.flips += now.flips;
    kind.weights += parameter.spec.Count();
    kind.matrices += 1;
    kind.beta += now.beta;
    kind.drift += std::abs(now.beta - before.beta) / before.beta;
    kind.grad_squares += before.grad_norm * before.grad_norm;
  }
  if (tensor_ != nullptr) SumSlices(*tensor_, &sums);
  nlohmann::json health;
  for (const auto& [kind, s] : sums) {
    const double weights = static_cast<double>(s.weights),
                 matrices = static_cast<double>(s.matrices);
    health[kind] = {{"zeros", static_cast<double>(s.zeros) / weights},
                    {"flips", static_cast<double>(s.flips) / weights},
                    {"beta", s.beta / matrices},
                    {"beta_drift", s.drift / matrices},
                    {"grad_norm", std::sqrt(s.grad_squares)}};
  }
  return health;
}

}  // namespace tern::train
