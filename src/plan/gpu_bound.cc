// See gpu_bound.h.
#include "plan/gpu_bound.h"

#include <algorithm>
#include <array>
#include <iomanip>
#include <sstream>

#include "base/error.h"
#include "base/progress.h"

namespace tern::plan {
namespace {

// NVIDIA's data sheets of A100 80 GB SXM (NVLink 600 GB/s both ways) and H100 SXM (900 GB/s), those
// of DGX A100 and DGX H100 (a 200 and a 400 Gb/s port for each GPU); the Ada white paper, appendix
// A, for the RTX 4090, and PCI Express 4.0 x16.
constexpr std::array kGpus = {
    GpuPeaks{"a100", "A100 SXM 80 GB", 312e12, 80e9, 300e9, 25e9, 8},
    GpuPeaks{"h100", "H100 SXM 80 GB", 989.5e12, 80e9, 450e9, 50e9, 8},
    GpuPeaks{"rtx4090", "RTX 4090", 165.2e12, 24e9, 31.5e9, 0, 8},
};

}  // namespace

const GpuPeaks& GpuByName(const std::string& name) {
  for (const GpuPeaks& gpu : kGpus) {
    if (name == gpu.name) return gpu;
  }
  throw UsageError(StrCat("--device: found \"", name, "\"; want a100, h100 or rtx4090"));
}

GpuBound BoundOnGpus(const TrainPlan& plan, int64_t steps, const GpuPeaks& gpu) {
  const int64_t per_machine = std::min(gpu.per_machine, plan.ranks);
  TERN_CHECK(plan.ranks == 1 || plan.per_machine == per_machine, plan.per_machine,
             " ranks a machine");
  if (plan.ranks > gpu.per_machine && gpu.network_bytes == 0) {
    throw RecipeError(StrCat("--ranks: found ", plan.ranks, ", and a machine with ", gpu.title,
                             " has ", gpu.per_machine,
                             " and no network whose speed is published; "
                             "want up to ",
                             gpu.per_machine));
  }
  GpuBound bound;
  for (const auto& [kind, traffic] : plan.sent) {
    bound.near_bytes += traffic.near_bytes;
    bound.far_bytes += traffic.far_bytes;
  }
  const auto times = static_cast<double>(steps);
  bound.work_seconds = plan.flops / times / static_cast<double>(plan.ranks) / gpu.bf16_flops;
  bound.exchange_seconds = bound.near_bytes / gpu.link_bytes;
  if (bound.far_bytes > 0)
    bound.exchange_seconds = std::max(bound.exchange_seconds, bound.far_bytes / gpu.network_bytes);
  bound.seconds = times * std::max(bound.work_seconds, bound.exchange_seconds);
  bound.fits = plan.memory_bytes - plan.host_bytes <= gpu.memory_bytes;
  return bound;
}

std::string FormatBound(const TrainPlan& plan, const GpuPeaks& gpu, const GpuBound& bound) {
  std::ostringstream out;
  const auto line = [&](const char* what, double amount, const char* of, double speed) {
    out << "    " << std::left << std::setw(34) << what << std::right << std::setw(12)
        << StrCat(FormatSi(amount / speed), "s") << "  " << FormatSi(amount) << of << " at "
        << FormatSi(speed) << of << "/s\n";
  };
  out << "  bound        on " << plan.ranks << " x " << gpu.title
      << ", from published peaks; nothing was measured:\n";
  line("work of a step", bound.work_seconds * gpu.bf16_flops, "FLOP", gpu.bf16_flops);
  if (bound.near_bytes > 0)
    line("exchange inside the machine", bound.near_bytes, "B", gpu.link_bytes);
  if (bound.far_bytes > 0)
    line("exchange between machines", bound.far_bytes, "B", gpu.network_bytes);
  out << "    the stage takes at least " << FormatDuration(bound.seconds) << "; "
      << (bound.fits ? "it fits" : "it does not fit") << " into " << FormatSi(gpu.memory_bytes)
      << "B\n";
  return out.str();
}

}  // namespace tern::plan
