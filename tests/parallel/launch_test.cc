// Which launcher is recognised from which variables, in which order, and what is refused.
#include "parallel/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace tern::parallel {
namespace {

using Variables = std::map<std::string, std::string>;

Topology Resolve(const Variables& variables) {
  return ResolveTopology([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string Refusal(const Variables& variables) {
  try {
    Resolve(variables);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

// As torchrun 2.15 sets them for the second of two ranks on the first of two machines.
const Variables kTorchrun = {{"RANK", "1"},
                             {"WORLD_SIZE", "4"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "node1"},
                             {"MASTER_PORT", "29400"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                             {"TORCHELASTIC_RUN_ID", "job7"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"},
                             {"OMP_NUM_THREADS", "1"}};
const Variables kSlurm = {{"SLURM_STEP_ID", "0"},      {"SLURM_PROCID", "5"},
                          {"SLURM_NTASKS", "8"},       {"SLURM_LOCALID", "1"},
                          {"SLURM_NNODES", "2"},       {"SLURM_JOB_NODELIST", "gpu[07-08]"},
                          {"SLURM_JOB_ID", "1234567"}, {"SLURM_NTASKS_PER_NODE", "4"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "2"},
                            {"OMPI_COMM_WORLD_SIZE", "3"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"}};

TEST(LaunchTest, NoVariablesMeanOneProcess) {
  const Topology t = Resolve({});
  EXPECT_EQ(t.launcher, "none");
  EXPECT_EQ(t.world, 1);
  EXPECT_TRUE(t.alone());
}

TEST(LaunchTest, TorchrunsAgentServesTheStore) {
  const Topology t = Resolve(kTorchrun);
  EXPECT_EQ(t.launcher, "torchrun");
  EXPECT_EQ(t.rank, 1);
  EXPECT_EQ(t.world, 4);
  EXPECT_EQ(t.local_rank, 1);
  EXPECT_EQ(t.local_world, 2);
  EXPECT_EQ(t.store_host, "node1");
  EXPECT_EQ(t.store_port, 29400);
  EXPECT_TRUE(t.store_is_launchers);
  EXPECT_EQ(t.run_id, "job7.2") << "a restart must not read its predecessor's keys";
}

TEST(LaunchTest, SlurmStep) {
  const Topology t = Resolve(kSlurm);
  EXPECT_EQ(t.launcher, "SLURM");
  EXPECT_EQ(t.rank, 5);
  EXPECT_EQ(t.world, 8);
  EXPECT_EQ(t.local_rank, 1);
  EXPECT_EQ(t.local_world, 4);
  EXPECT_EQ(t.store_host, "gpu07");
  EXPECT_EQ(t.store_port, 20000 + 1234567 % 10000);
  EXPECT_FALSE(t.store_is_launchers);
}

// A batch script carries SLURM_PROCID=0 and SLURM_NTASKS=8, but is one process.
TEST(LaunchTest, BatchScriptIsNoStep) {
  Variables batch = kSlurm;
  batch.erase("SLURM_STEP_ID");
  EXPECT_EQ(Resolve(batch).world, 1);
}

// As SLURM 22.05 sets them for the last of three tasks on two machines.
TEST(LaunchTest, SlurmStepOfUnequalMachines) {
  Variables v = {{"SLURM_STEP_ID", "0"},        {"SLURM_PROCID", "2"},
                 {"SLURM_NTASKS", "3"},         {"SLURM_LOCALID", "0"},
                 {"SLURM_STEP_NUM_TASKS", "3"}, {"SLURM_STEP_NUM_NODES", "2"},
                 {"SLURM_NODEID", "1"},         {"SLURM_STEP_TASKS_PER_NODE", "2,1"},
                 {"SLURM_JOB_ID", "3"},         {"SLURM_STEP_NODELIST", "n[1-2]"}};
  EXPECT_EQ(Resolve(v).local_world, 1);
  v["SLURM_NODEID"] = "0";
  EXPECT_EQ(Resolve(v).local_world, 2);
  v["SLURM_NODEID"] = "3";
  v["SLURM_STEP_TASKS_PER_NODE"] = "2(x3),1,5";
  EXPECT_EQ(Resolve(v).local_world, 1);
  // Not as SLURM writes it, or too short: what the counts say.
  for (const char* list : {"", "2", "2(x", "2(x9", "2(x3", "x", "2;1", "2(x3)1", ","}) {
    v["SLURM_STEP_TASKS_PER_NODE"] = list;
    EXPECT_EQ(Resolve(v).local_world, 2) << list;
  }
}

// A step of one task whose process is a shell, as salloc's and `srun --pty bash`, and one of Open
// MPI's daemons on the second and third of three machines: mpirun within it has started the ranks.
TEST(LaunchTest, MpirunWithinASlurmStep) {
  Variables v = kOpenMpi;
  v.insert({{"SLURM_STEP_ID", "4294967290"},
            {"SLURM_PROCID", "0"},
            {"SLURM_NTASKS", "3"},
            {"SLURM_LOCALID", "0"},
            {"SLURM_STEP_NUM_TASKS", "1"},
            {"SLURM_STEP_TASKS_PER_NODE", "1"},
            {"SLURM_NODEID", "0"}});
  EXPECT_EQ(Resolve(v).launcher, "mpirun");
  EXPECT_EQ(Resolve(v).rank, 2);
  v["SLURM_STEP_NUM_TASKS"] = "2";
  v["SLURM_STEP_TASKS_PER_NODE"] = "1(x2)";
  v["SLURM_STEP_NODELIST"] = "n[2-3]";
  EXPECT_EQ(Resolve(v).launcher, "mpirun");
  EXPECT_EQ(Resolve(v).world, 3);
  // srun's own PMI says what SLURM says.
  const Variables srun = {{"SLURM_STEP_ID", "0"},   {"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"},
                          {"SLURM_LOCALID", "0"},   {"SLURM_NNODES", "2"}, {"PMI_RANK", "1"},
                          {"SLURM_NODELIST", "n1"}, {"PMI_SIZE", "2"},     {"MASTER_ADDR", "n1"}};
  EXPECT_EQ(Resolve(srun).launcher, "SLURM");
}

TEST(LaunchTest, MpiOfTwoKinds) {
  EXPECT_EQ(Resolve(kOpenMpi).launcher, "mpirun");
  EXPECT_EQ(Resolve(kOpenMpi).rank, 2);
  EXPECT_EQ(Resolve(kOpenMpi).store_host, "127.0.0.1");
  const Topology pmi = Resolve({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}});
  EXPECT_EQ(pmi.rank, 1);
  EXPECT_EQ(pmi.world, 2);
}

TEST(LaunchTest, PrecedenceIsTorchrunSlurmMpi) {
  Variables all = kTorchrun;
  all.insert(kSlurm.begin(), kSlurm.end());
  all.insert(kOpenMpi.begin(), kOpenMpi.end());
  EXPECT_EQ(Resolve(all).launcher, "torchrun");
  all.erase("RANK");
  all.erase("WORLD_SIZE");
  EXPECT_EQ(Resolve(all).launcher, "SLURM");
  all.erase("SLURM_STEP_ID");
  EXPECT_EQ(Resolve(all).launcher, "mpirun");
  all = kTorchrun;
  all[kRanksVariable] = "1";
  EXPECT_EQ(Resolve(all).launcher, "--ranks");
}

TEST(LaunchTest, BadVariablesAreNamed) {
  Variables v = kTorchrun;
  v.erase("MASTER_ADDR");
  EXPECT_NE(Refusal(v).find("MASTER_ADDR"), std::string::npos) << Refusal(v);
  v = kTorchrun;
  v["RANK"] = "4";
  EXPECT_NE(Refusal(v).find("rank 4 of 4"), std::string::npos) << Refusal(v);
  v["RANK"] = "x";
  EXPECT_NE(Refusal(v).find("RANK is \"x\""), std::string::npos) << Refusal(v);
  v = kTorchrun;
  v.erase("WORLD_SIZE");
  EXPECT_NE(Refusal(v).find("WORLD_SIZE is not set"), std::string::npos) << Refusal(v);
  v = kTorchrun;
  v["LOCAL_RANK"] = "2";
  EXPECT_NE(Refusal(v).find("local rank 2 of 2"), std::string::npos) << Refusal(v);
  v = kTorchrun;
  v["MASTER_PORT"] = "70000";
  EXPECT_NE(Refusal(v).find("MASTER_PORT"), std::string::npos) << Refusal(v);
  v = kOpenMpi;
  v["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";
  v["OMPI_COMM_WORLD_LOCAL_RANK"] = "0";
  EXPECT_NE(Refusal(v).find("MASTER_ADDR"), std::string::npos) << Refusal(v);
}

TEST(LaunchTest, FirstHostOfNodeLists) {
  EXPECT_EQ(FirstHost("node7"), "node7");
  EXPECT_EQ(FirstHost("a,b"), "a");
  EXPECT_EQ(FirstHost("n[03-05,9],m1"), "n03");
  EXPECT_EQ(FirstHost("gpu-[12]"), "gpu-12");
  EXPECT_EQ(FirstHost("rack1-n[007,009]"), "rack1-n007");
  EXPECT_EQ(FirstHost("n[1-2]-ib,m3"), "n1-ib");
  EXPECT_EQ(FirstHost("rack[1-2]n[3,5]"), "rack1n3");
  EXPECT_THROW(FirstHost("n[03"), UsageError);
  EXPECT_THROW(FirstHost("n[03,4"), UsageError);
}

}  // namespace
}  // namespace tern::parallel
