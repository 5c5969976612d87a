// tern bench train: speed of training steps on random tokens.
#include "train/bench.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/commands.h"
#include "cli/threads.h"

namespace tern::cli {
namespace {

struct BenchTrainFlags {
  std::string shape = "d256", precision = "bf16";
  int64_t steps = 10, warmup = 3, threads = 0;
  bool dense = false, json = false;
};

void RunBenchTrain(const BenchTrainFlags& flags) {
  SetThreads(flags.threads);
  train::BenchOptions options;
  options.model = train::BenchShape(flags.shape);
  if (flags.dense) options.model.linear = LinearKind::kDense;
  options.precision = flags.precision == "fp32"   ? recipe::Precision::kFp32
                      : flags.precision == "bf16" ? recipe::Precision::kBf16
                                                  : recipe::Precision::kFp16;
  options.steps = flags.steps;
  options.warmup = flags.warmup;
  const train::BenchResult result = train::BenchTrain(options);
  const double share = result.tokens_per_second * result.flops_per_token / result.gemm_flops;
  if (flags.json) {
    std::cout << nlohmann::json{{"shape", flags.shape},
                                {"precision", flags.precision},
                                {"dense", flags.dense},
                                {"tokens_per_second", result.tokens_per_second},
                                {"step_seconds", result.step_seconds},
                                {"loss_first", result.first_loss},
                                {"loss_last", result.last_loss},
                                {"gemm_flops", result.gemm_flops},
                                {"share_of_gemm_peak", share},
                                {"peak_rss_bytes", result.peak_rss_bytes}}
                     .dump()
              << "\n";
    return;
  }
  std::cout << flags.shape << " " << flags.precision << (flags.dense ? " dense" : "") << ": "
            << FormatSi(result.tokens_per_second) << " tokens/s, " << static_cast<int>(100 * share)
            << " % of this machine's fp32 GEMM peak (" << FormatSi(result.gemm_flops)
            << "FLOP/s), peak memory " << FormatBytes(static_cast<double>(result.peak_rss_bytes))
            << "\n";
}

}  // namespace

void AddBenchTrainCommand(CLI::App& bench) {
  CLI::App* train = bench.add_subcommand("train", "Training steps on random tokens, batch 8 x 256");
  train->footer("Example: tern bench train --shape d512 --precision bf16 --threads 2");
  auto flags = std::make_shared<BenchTrainFlags>();
  train->add_option("--shape", flags->shape, "d256 | d512")
      ->check(CLI::IsMember({"d256", "d512"}))
      ->capture_default_str();
  train->add_option("--precision", flags->precision, "fp32 | bf16 | fp16")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
      ->capture_default_str();
  train->add_option("--steps", flags->steps, "Steps that count")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  train->add_option("--warmup", flags->warmup, "Steps before")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  train->add_option("--threads", flags->threads, "0: all processors")->capture_default_str();
  train->add_flag("--dense", flags->dense, "Dense linear layers instead of BitLinear");
  train->add_flag("--json", flags->json, "One JSON object instead of text");
  train->callback([flags] { RunBenchTrain(*flags); });
}

}  // namespace tern::cli
