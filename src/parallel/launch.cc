// See launch.h.
#include "parallel/launch.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "base/error.h"

namespace tern::parallel {
namespace {

constexpr int kDefaultPort = 29500;  // torchrun's
constexpr int kMaxRanks = 1 << 20;

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  std::optional<std::string> Text(const char* name) const {
    const char* value = environment_(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  }
  bool Has(const char* name) const { return Text(name).has_value(); }

  // Throws UsageError for anything but a whole number in [low, high].
  std::optional<int> Number(const char* name, int low, int high) const {
    const std::optional<std::string> text = Text(name);
    if (!text) return std::nullopt;
    int value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size() || value < low || value > high) {
      throw UsageError(StrCat("environment: ", name, " is \"", *text,
                              "\"; want a whole number from ", low, " to ", high));
    }
    return value;
  }
  int Needed(const char* name, int low, int high, const char* launcher) const {
    const std::optional<int> value = Number(name, low, high);
    if (!value) {
      throw UsageError(StrCat("environment: ", launcher, " was recognised, but ", name,
                              " is not set; set it, or start tern without that launcher's other "
                              "variables"));
    }
    return *value;
  }

 private:
  const Environment& environment_;
};

void CheckRanks(const Topology& t) {
  const auto check = [&](const char* what, int rank, int world) {
    if (rank >= world) {
      throw UsageError(StrCat("environment: ", t.launcher, " says ", what, " ", rank, " of ", world,
                              "; want a rank below the number of ranks"));
    }
  };
  check("rank", t.rank, t.world);
  check("local rank", t.local_rank, t.local_world);
  if (t.local_world > t.world) {
    throw UsageError(StrCat("environment: ", t.launcher, " says ", t.local_world,
                            " ranks on this machine and ", t.world, " in all"));
  }
}

Topology FromTorchrun(const Variables& v) {
  Topology t;
  const bool own = v.Has(kRanksVariable);
  t.launcher = own ? "--ranks" : "torchrun";
  t.reason = own ? "tern started the ranks itself" : "RANK, WORLD_SIZE";
  const char* name = t.launcher.c_str();
  t.world = v.Needed("WORLD_SIZE", 1, kMaxRanks, name);
  t.rank = v.Needed("RANK", 0, kMaxRanks, name);
  t.local_world = v.Number("LOCAL_WORLD_SIZE", 1, kMaxRanks).value_or(1);
  t.local_rank = v.Number("LOCAL_RANK", 0, kMaxRanks).value_or(0);
  if (t.world > 1) {
    const std::optional<std::string> host = v.Text("MASTER_ADDR");
    if (!host) {
      throw UsageError(
          "environment: RANK and WORLD_SIZE are set, but MASTER_ADDR is not; set it to the machine "
          "of rank 0 (torchrun does), or start the ranks with tern run --ranks N");
    }
    t.store_host = *host;
    t.store_port = v.Number("MASTER_PORT", 1, 65535).value_or(kDefaultPort);
  }
  t.store_is_launchers = own || v.Text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  t.run_id = StrCat(v.Text("TORCHELASTIC_RUN_ID").value_or("0"), ".",
                    v.Number("TORCHELASTIC_RESTART_COUNT", 0, kMaxRanks).value_or(0));
  return t;
}

// Ports that users' programs take by themselves begin at 32768 on Linux: below it, by job.
int PortOfJob(const Variables& v) {
  constexpr int kFirst = 20000, kPorts = 10000;
  return kFirst + v.Number("SLURM_JOB_ID", 0, INT32_MAX).value_or(0) % kPorts;
}

// Tasks of machine `node` of SLURM's list, such as "2(x3),1": two on each of the first three.
// Nothing when the list is not so or too short.
std::optional<int> TasksOfNode(const std::string& list, int node) {
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at < end) {
    int tasks = 0, times = 1;
    auto [next, error] = std::from_chars(at, end, tasks);
    if (error != std::errc() || tasks < 1) return std::nullopt;
    if (end - next > 2 && next[0] == '(' && next[1] == 'x') {
      const auto [close, wrong] = std::from_chars(next + 2, end, times);
      if (wrong != std::errc() || close == end || *close != ')') return std::nullopt;
      next = close + 1;
    }
    if (node < times) return tasks;
    node -= times;
    if (next < end && *next++ != ',') return std::nullopt;
    at = next;
  }
  return std::nullopt;
}

// Ranks of the step on this machine.
int SlurmLocalWorld(const Variables& v, const Topology& t) {
  const std::optional<std::string> tasks = v.Text("SLURM_STEP_TASKS_PER_NODE");
  const std::optional<int> node = v.Number("SLURM_NODEID", 0, kMaxRanks);
  const std::optional<int> told = tasks && node ? TasksOfNode(*tasks, *node) : std::nullopt;
  if (told) return *told;
  const int nodes = v.Number("SLURM_STEP_NUM_NODES", 1, kMaxRanks)
                        .value_or(v.Number("SLURM_NNODES", 1, kMaxRanks).value_or(1));
  // As asked of the job: a step of fewer tasks has it, too.
  return std::min(v.Number("SLURM_NTASKS_PER_NODE", 1, kMaxRanks)
                      .value_or(std::max(t.local_rank + 1, (t.world + nodes - 1) / nodes)),
                  t.world);
}

Topology FromSlurm(const Variables& v) {
  Topology t;
  t.launcher = "SLURM";
  t.reason = "SLURM_STEP_ID, SLURM_PROCID, SLURM_NTASKS";
  const auto step_tasks = v.Number("SLURM_STEP_NUM_TASKS", 1, kMaxRanks);
  t.world = step_tasks ? *step_tasks : v.Needed("SLURM_NTASKS", 1, kMaxRanks, "SLURM");
  t.rank = v.Needed("SLURM_PROCID", 0, kMaxRanks, "SLURM");
  t.local_rank = v.Needed("SLURM_LOCALID", 0, kMaxRanks, "SLURM");
  t.local_world = SlurmLocalWorld(v, t);
  t.run_id = StrCat(v.Text("SLURM_JOB_ID").value_or("0"), ".", *v.Text("SLURM_STEP_ID"), ".",
                    v.Number("SLURM_RESTART_COUNT", 0, kMaxRanks).value_or(0));
  if (t.world == 1) return t;
  const auto host = v.Text("MASTER_ADDR");
  auto nodes_list = v.Text("SLURM_STEP_NODELIST");
  if (!nodes_list) nodes_list = v.Text("SLURM_JOB_NODELIST");
  if (!host && !nodes_list) {
    throw UsageError(
        "environment: SLURM was recognised, but neither MASTER_ADDR nor SLURM_JOB_NODELIST is set; "
        "set MASTER_ADDR to the machine of rank 0");
  }
  t.store_host = host ? *host : FirstHost(*nodes_list);
  t.store_port = v.Number("MASTER_PORT", 1, 65535).value_or(PortOfJob(v));
  return t;
}

Topology FromMpi(const Variables& v) {
  Topology t;
  const bool open_mpi = v.Has("OMPI_COMM_WORLD_SIZE");
  t.launcher = "mpirun";
  t.reason = open_mpi ? "OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE" : "PMI_RANK, PMI_SIZE";
  t.world = v.Needed(open_mpi ? "OMPI_COMM_WORLD_SIZE" : "PMI_SIZE", 1, kMaxRanks, "mpirun");
  t.rank = v.Needed(open_mpi ? "OMPI_COMM_WORLD_RANK" : "PMI_RANK", 0, kMaxRanks, "mpirun");
  const char* local_rank = open_mpi ? "OMPI_COMM_WORLD_LOCAL_RANK" : "MPI_LOCALRANKID";
  const char* local_size = open_mpi ? "OMPI_COMM_WORLD_LOCAL_SIZE" : "MPI_LOCALNRANKS";
  t.local_world = v.Number(local_size, 1, kMaxRanks).value_or(t.world);
  t.local_rank = v.Number(local_rank, 0, kMaxRanks).value_or(t.rank % t.local_world);
  if (t.world == 1) return t;
  const auto host = v.Text("MASTER_ADDR");
  if (!host && t.local_world < t.world) {
    throw UsageError(
        "environment: mpirun started ranks on several machines, and MASTER_ADDR is not set; set it "
        "to the machine of rank 0 (mpirun -x MASTER_ADDR=...)");
  }
  t.store_host = host.value_or("127.0.0.1");
  t.store_port = v.Number("MASTER_PORT", 1, 65535).value_or(kDefaultPort);
  return t;
}

// Whether mpirun was called within a SLURM step and started this process: a step of one task a
// machine then holds mpirun's daemons, or the shell that it was called in, and not the ranks.
bool IsMpiWithinStep(const Variables& v, const Topology& slurm) {
  if (!v.Has("OMPI_COMM_WORLD_SIZE") && !v.Has("PMI_SIZE")) return false;
  return slurm.local_world == 1 && FromMpi(v).world != slurm.world;
}

}  // namespace

std::string FirstHost(const std::string& node_list) {
  const size_t end = node_list.find_first_of(",[");
  if (end == std::string::npos || node_list[end] == ',') return node_list.substr(0, end);
  const size_t close = node_list.find(']', end);
  if (close == std::string::npos) {
    throw UsageError(StrCat("environment: the SLURM node list \"", node_list,
                            "\" has a bracket that does not end; set MASTER_ADDR"));
  }
  const size_t stop = node_list.find_first_of(",-]", end + 1);
  // What follows the bracket may have one of its own: "rack[1-2]n[1-3]", "n[1-2]-ib,m3".
  const std::string rest = node_list.substr(close + 1);
  return node_list.substr(0, end) + node_list.substr(end + 1, stop - end - 1) +
         (rest.empty() || rest[0] == ',' ? "" : FirstHost(rest));
}

Topology ResolveTopology(const Environment& environment) {
  const Variables v(environment);
  Topology t;
  if (v.Has("RANK") || v.Has("WORLD_SIZE") || v.Has(kRanksVariable)) {
    t = FromTorchrun(v);
  } else if (v.Has("SLURM_STEP_ID") && v.Has("SLURM_PROCID")) {
    t = FromSlurm(v);  // Not within a batch script itself: that is no step, and one process.
    if (IsMpiWithinStep(v, t)) t = FromMpi(v);
  } else if (v.Has("OMPI_COMM_WORLD_SIZE") || v.Has("PMI_SIZE")) {
    t = FromMpi(v);
  } else {
    t.reason = "no launcher's variables";
  }
  CheckRanks(t);
  return t;
}

Topology ResolveTopology() {
  return ResolveTopology([](const char* name) -> const char* { return std::getenv(name); });
}

std::string Describe(const Topology& t) {
  const std::string who = StrCat("launcher ", t.launcher, " (", t.reason,
                                 "; looked for in this order: --ranks, torchrun, SLURM, mpirun): ");
  if (t.alone()) return who + "one process";
  return StrCat(who, t.world, " ranks, ", t.local_world, " on this machine, meeting at ",
                t.store_host, ":", t.store_port);
}

}  // namespace tern::parallel
