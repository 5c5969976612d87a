// See ranks.h.
#include "cli/ranks.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "cli/threads.h"
#include "parallel/gpu.h"
#include "parallel/launch.h"
#include "parallel/processors.h"
#include "parallel/spawn.h"

namespace tern::cli {
namespace {

constexpr const char* kThisProgram = "/proc/self/exe";

// For torchrun: the reason of a failure, in the form it shows (torch.distributed.elastic).
void WriteErrorFile(const std::string& reason) {
  const char* path = std::getenv("TORCHELASTIC_ERROR_FILE");
  if (path == nullptr || *path == '\0') return;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const nlohmann::json extra = {{"py_callstack", ""},
                                {"timestamp", std::to_string(seconds.count())}};
  try {
    WriteFileAtomically(
        path, nlohmann::json{{"message", {{"message", reason}, {"extraInfo", extra}}}}.dump());
  } catch (const Error& error) {
    LogWarn("cannot write ", path, ": ", error.what());
  }
}

// The main thread may hang in a collective for as long as its time limit: this does not.
[[noreturn]] void EndBecauseLost(const std::string& message) {
  std::cerr << "error: stopped because " << message
            << ". Nothing after the last complete checkpoint is kept; run again to go on from it"
            << std::endl;
  WriteErrorFile(message);
  ::_exit(static_cast<int>(ExitCode::kResource));
}

// Threads from what all ranks may use of their machines.
void SetRankThreads(int64_t threads, const std::string& launcher, parallel::Group* group) {
  const parallel::ProcessorShare share =
      parallel::ShareProcessors(group->GatherTexts(parallel::ProcessorPlace()), group->rank());
  SetThreads(threads > 0 ? threads : share.threads());
  group->ResetTraffic();
  const int64_t machine = ::sysconf(_SC_NPROCESSORS_ONLN);
  if (!group->is_root() || !share.bound || share.by_all >= machine) return;
  LogWarn(launcher, " has bound the ranks of this machine to ", share.by_all, " of its ", machine,
          " processors; if they are all for this job, let ranks use them (mpirun --bind-to none; "
          "srun --cpus-per-task)");
}

}  // namespace

bool StartRanks(int64_t ranks, const std::vector<std::string>& arguments) {
  if (ranks <= 0 || std::getenv(parallel::kRanksVariable) != nullptr) return false;
  const parallel::Topology topology = parallel::ResolveTopology();
  if (!topology.alone()) {
    throw UsageError(StrCat("--ranks ", ranks, " below ", topology.launcher, " (", topology.reason,
                            "), which has started ", topology.world,
                            " ranks already; leave --ranks out"));
  }
  parallel::SpawnOptions options;
  options.ranks = static_cast<int>(ranks);
  std::vector<char> path(4096);
  const ssize_t length = ::readlink(kThisProgram, path.data(), path.size());
  if (length <= 0) throw ResourceError(StrCat("cannot read ", kThisProgram));
  options.command = {std::string(path.data(), static_cast<size_t>(length))};
  options.command.insert(options.command.end(), arguments.begin(), arguments.end());
  const parallel::SpawnResult result = parallel::RunRanks(options);
  if (result.exit_code == static_cast<int>(ExitCode::kStopped)) {
    throw StoppedError(
        "all ranks stopped with everything saved; run the same command again to go on");
  }
  if (result.exit_code != 0) {
    throw Error(static_cast<ExitCode>(result.exit_code),
                StrCat("rank ", result.failed_rank, " failed; its own words are above"));
  }
  return true;
}

void RunAsRank(const RankedJob& ranked,
               const std::function<void(parallel::Group*, const c10::Device&)>& job) {
  if (std::getenv(parallel::kRanksVariable) != nullptr) parallel::DieWithLauncher();
  const parallel::Topology topology = parallel::ResolveTopology();
  const c10::Device device = parallel::TakeDevice(ranked.device, topology);
  // Until it is known what the others may use.
  SetThreads(ranked.threads > 0 || topology.alone() ? ranked.threads : 1);
  if (topology.alone()) return job(nullptr, device);
  if (topology.rank != 0) ::setenv("TERN_LOG", "warn", /*overwrite=*/0);  // Said once, by rank 0
  LogInfo(parallel::Describe(topology));
  parallel::GroupOptions options;
  options.start_timeout_s = ranked.parallel.start_timeout_s;
  options.first_step_timeout_s = ranked.parallel.first_step_timeout_s;
  options.step_timeout_s = ranked.parallel.step_timeout_s;
  options.lost_s = ranked.parallel.lost_after_s;
  options.must_agree = ranked.must_agree;
  options.must_agree["build of tern"] = Sha256OfFile(kThisProgram);
  options.must_agree["kind of device"] = c10::DeviceTypeName(device.type(), /*lower_case=*/true);
  options.device = device;
  options.on_lost = EndBecauseLost;
  try {
    parallel::Group group(topology, options);
    try {
      SetRankThreads(ranked.threads, topology.launcher, &group);
      job(&group, device);
    } catch (const parallel::RankLost&) {
      throw;  // Another rank is the cause, and has said so or cannot.
    } catch (const StoppedError&) {
      throw;
    } catch (const std::exception& error) {
      group.PostFailure(error.what());
      throw;
    }
  } catch (const StoppedError&) {
    throw;
  } catch (const std::exception& error) {
    WriteErrorFile(error.what());
    throw;
  }
}

}  // namespace tern::cli
