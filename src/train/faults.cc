// See faults.h.
#include "train/faults.h"

#include <cmath>

#include "base/error.h"

namespace tern::train {
namespace {

constexpr double kWindow = 64;      // Steps the running mean remembers
constexpr int64_t kWarmSteps = 32;  // No spike is called before the variance means anything

}  // namespace

std::optional<Fault> FaultMonitor::Judge(double loss, double grad_norm,
                                         const std::string& where) const {
  if (!std::isfinite(loss) || !std::isfinite(grad_norm)) {
    return Fault{policy_.nonfinite, StrCat("loss ", loss, ", gradient norm ", grad_norm,
                                           ": not finite", where.empty() ? "" : " ", where)};
  }
  const double limit = mean_ + policy_.spike_sigmas * std::sqrt(variance_);
  if (policy_.spike_sigmas > 0 && seen_ >= kWarmSteps && loss > limit) {
    return Fault{policy_.spike, StrCat("loss ", loss, " is above ", limit, " = running mean ",
                                       mean_, " + ", policy_.spike_sigmas, " sigma")};
  }
  return std::nullopt;
}

std::optional<Fault> FaultMonitor::Check(double loss, double grad_norm, const std::string& where) {
  const std::optional<Fault> fault = Judge(loss, grad_norm, where);
  if (!fault) {
    const double rate = seen_ < static_cast<int64_t>(kWindow) ? 1.0 / static_cast<double>(seen_ + 1)
                                                              : 1.0 / kWindow;
    const double delta = loss - mean_;
    mean_ += rate * delta;
    variance_ = (1.0 - rate) * (variance_ + rate * delta * delta);
    ++seen_;
    return std::nullopt;
  }
  ++events_;
  if (fault->action == recipe::FaultAction::kStop) {
    throw NumericError(StrCat(
        "training stopped: ", fault->reason,
        ". The last checkpoint is untouched. Lower the learning rate, clip harder, or choose "
        "train.faults.nonfinite / spike: skip or rollback"));
  }
  if (events_ > policy_.max_events) {
    throw NumericError(StrCat("training stopped: ", events_,
                              " faults, train.faults.max_events allows ", policy_.max_events,
                              "; the last: ", fault->reason));
  }
  return fault;
}

nlohmann::json FaultMonitor::Save() const {
  return {{"mean", mean_}, {"variance", variance_}, {"seen", seen_}, {"events", events_}};
}

void FaultMonitor::Load(const nlohmann::json& state) {
  mean_ = state.at("mean").get<double>();
  variance_ = state.at("variance").get<double>();
  seen_ = state.at("seen").get<int64_t>();
  events_ = state.at("events").get<int64_t>();
}

}  // namespace tern::train
