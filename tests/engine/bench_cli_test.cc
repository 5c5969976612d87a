// tern bench: what it prints, how it calls a peer, and what it refuses.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "engine_cli/commands.h"
#include "engine_cli/run_main.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using nlohmann::json;

class BenchCliTest : public ::testing::Test {
 protected:
  int Call(std::vector<std::string> args) {
    CLI::App app("test");
    app.require_subcommand(1);
    engine_cli::AddBenchCommand(app);
    args.insert(args.begin(), {"tern-engine", "bench"});
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = engine_cli::RunMain(app, static_cast<int>(argv.size()), argv.data());
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr();
    return code;
  }

  // A peer that writes down how it was called and prints `text`.
  std::string Peer(const std::string& text) {
    const std::string path = folder_ / "peer";
    WriteFileAtomically(
        path, "#!/bin/sh\necho \"$@\" >> " + (folder_ / "calls") + "\necho '" + text + "'\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }

  TempFolder folder_;
  std::string out_, err_;
};

TEST_F(BenchCliTest, ProductsBesideAPeer) {
  const std::string peer = Peer(R"({"peer": "other", "seconds": [0.5, 0.25, 0.75]})");
  ASSERT_EQ(Call({"gemv", "--type", "q4_k,tq2_0", "--shape", "64x256", "--threads", "1", "--rounds",
                  "2", "--against", peer, "--json"}),
            0)
      << err_;
  const json rows = json::parse(out_)["rows"];
  ASSERT_EQ(rows.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(rows[i]["program"], i % 2 == 0 ? "tern" : "other");
    EXPECT_EQ(rows[i]["case"], i < 2 ? "q4_k 64x256" : "tq2_0 64x256");
    EXPECT_GT(rows[i]["read_bandwidth_gb_per_second"], 0.1);
  }
  EXPECT_EQ(rows[1]["median_seconds"], 0.5);
  EXPECT_EQ(rows[1]["p10_seconds"], 0.25);
  EXPECT_DOUBLE_EQ(rows[1]["GMAC_per_second"].get<double>(), 64 * 256e-9 / 0.5);
  const double bytes = 64 * 144;
  EXPECT_DOUBLE_EQ(rows[0]["gb_per_second"].get<double>(),
                   bytes / rows[0]["median_seconds"].get<double>() * 1e-9);
  const std::string calls = ReadFile(folder_ / "calls");
  EXPECT_EQ(calls.rfind("gemm q4_k 1 64,256,1 ", 0), 0u) << calls;
  EXPECT_EQ(std::count(calls.begin(), calls.end(), '\n'), 4);
}

TEST_F(BenchCliTest, AModelsDecodingAndPrefill) {
  const TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama), 7);
  const std::string path = folder_ / "model.gguf";
  WriteGguf(model, ArchName::kLlama, path, {});
  ASSERT_EQ(Call({"decode", path, "--threads", "1,2", "--rounds", "1", "-n", "4", "--json"}), 0)
      << err_;
  json rows = json::parse(out_)["rows"];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["seconds"].size(), 4u);
  EXPECT_EQ(rows[1]["threads"], 2);
  ASSERT_EQ(Call({"prefill", path, "--threads", "1", "--rounds", "1", "--batch", "5,9"}), 0)
      << err_;
  EXPECT_NE(out_.find("prefill 5"), std::string::npos) << out_;
  EXPECT_NE(out_.find("prefill 9"), std::string::npos) << out_;
}

TEST_F(BenchCliTest, RefusesWhatMakesNoSense) {
  const std::vector<std::string> small{"gemv", "--shape",  "64x256", "--threads",
                                       "1",    "--rounds", "1"};
  const auto refused = [&](std::vector<std::string> more, ExitCode code, const std::string& part) {
    std::vector<std::string> args = small;
    args.insert(args.end(), more.begin(), more.end());
    EXPECT_EQ(Call(args), static_cast<int>(code));
    EXPECT_NE(err_.find(part), std::string::npos) << err_;
  };
  refused({"--type", "q9"}, ExitCode::kUsage,
          "no type of weights is called q9; there are tq2_0, f16");
  refused({"--shape", "64"}, ExitCode::kUsage, "want outputs x inputs");
  refused({"--shape", "64x100"}, ExitCode::kUsage, "a multiple of 256");
  refused({"--shape", "0x256"}, ExitCode::kUsage, "want outputs x inputs");
  refused({"--against", "/no/such/program"}, ExitCode::kInput, "cannot be started");
  refused({"--against", Peer("nothing")}, ExitCode::kInput, "want one JSON object");
  refused({"--against", Peer(R"({"peer": "x", "seconds": []})")}, ExitCode::kInput,
          "want one JSON");
  refused({"--against", Peer(R"({"peer": "x", "seconds": [0]})")}, ExitCode::kInput,
          "seconds above 0");
  EXPECT_EQ(Call({}), static_cast<int>(ExitCode::kUsage));
}

#if defined(TERN_HAVE_SIMT)
TEST_F(BenchCliTest, KernelsOfADevice) {
  ASSERT_EQ(Call({"kernels", "--device", "simt", "--shape", "64x256", "--batch", "1,9", "--rounds",
                  "1", "--json"}),
            0)
      << err_;
  const json rows = json::parse(out_)["rows"];
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["product"], "ternary");
  EXPECT_EQ(rows[1]["product"], "4-bit symmetric");
  EXPECT_EQ(rows[3]["tokens"], 9);
  for (const json& row : rows) EXPECT_GT(row["microseconds"], 0.0);
  EXPECT_EQ(Call({"kernels", "--device", "simt", "--shape", "64x100"}), 2);
  EXPECT_EQ(Call({"kernels", "--device", "simt", "--shape", "4294967296x256"}), 2);
}
#endif

}  // namespace
}  // namespace tern::testing
