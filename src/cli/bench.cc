// tern bench train: speed of training steps on random tokens.
#include "train/bench.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/ranks.h"
#include "engine_cli/model_options.h"

namespace tern::cli {
namespace {

struct BenchTrainFlags {
  std::string shape = "d256", precision = "bf16";
  std::string shard = "none", reduce = "fp32", device = "cpu";
  int64_t steps = 10, warmup = 3, threads = 0, ranks = 0, tensor = 1;
  bool dense = false, json = false;
};

constexpr const char* kShards[] = {"none", "zero1", "zero2", "zero3"};  // In recipe's order

recipe::ParallelConfig ParallelOf(const BenchTrainFlags& flags) {
  recipe::ParallelConfig parallel;
  const auto found = std::find(std::begin(kShards), std::end(kShards), flags.shard);
  parallel.shard = static_cast<recipe::Sharding>(found - std::begin(kShards));
  parallel.reduce = flags.reduce == "bf16" ? recipe::ReduceType::kBf16 : recipe::ReduceType::kFp32;
  if (flags.dense && parallel.shard == recipe::Sharding::kZero3) {
    throw UsageError("--shard zero3 spreads BitLinear layers; want zero2 with --dense");
  }
  parallel.tensor = flags.tensor;
  if (parallel.tensor > 1 && parallel.shard == recipe::Sharding::kZero3)
    throw UsageError("--tensor: found it with --shard zero3; want none, zero1 or zero2");
  if (parallel.tensor > 1 && flags.device == "cuda")
    throw UsageError("--tensor: found it with --device cuda; ranks share products on CPUs only");
  return parallel;
}

std::vector<std::string> RankArguments(const BenchTrainFlags& flags) {
  std::vector<std::string> arguments = {"bench",       "train",
                                        "--shape",     flags.shape,
                                        "--precision", flags.precision,
                                        "--shard",     flags.shard,
                                        "--reduce",    flags.reduce,
                                        "--device",    flags.device,
                                        "--steps",     StrCat(flags.steps),
                                        "--warmup",    StrCat(flags.warmup),
                                        "--threads",   StrCat(flags.threads),
                                        "--tensor",    StrCat(flags.tensor)};
  if (flags.dense) arguments.push_back("--dense");
  if (flags.json) arguments.push_back("--json");
  return arguments;
}

void RunBenchTrain(const BenchTrainFlags& flags, parallel::Group* group,
                   const c10::Device& device) {
  train::BenchOptions options;
  options.group = group;
  options.device = device;
  options.parallel = ParallelOf(flags);
  options.model = train::BenchShape(flags.shape);
  if (flags.dense) options.model.linear = LinearKind::kDense;
  options.precision = flags.precision == "fp32"   ? recipe::Precision::kFp32
                      : flags.precision == "bf16" ? recipe::Precision::kBf16
                                                  : recipe::Precision::kFp16;
  options.steps = flags.steps;
  options.warmup = flags.warmup;
  const train::BenchResult result = train::BenchTrain(options);
  const int ranks = group == nullptr ? 1 : group->size();
  const double share =
      result.tokens_per_second * result.flops_per_token / (result.gemm_flops * ranks);
  if (group != nullptr && !group->is_root()) return;
  if (flags.json) {
    std::cout << nlohmann::json{{"shape", flags.shape},
                                {"precision", flags.precision},
                                {"dense", flags.dense},
                                {"ranks", ranks},
                                {"device", flags.device},
                                {"shard", flags.shard},
                                {"reduce", flags.reduce},
                                {"sent_bytes", result.sent_bytes},
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
            << " % of this machine's fp32 GEMM peak (" << FormatSi(result.gemm_flops) << "FLOP/s"
            << (ranks > 1 ? " a rank" : "") << "), peak memory "
            << FormatBytes(static_cast<double>(result.peak_rss_bytes)) << "\n";
  for (const auto& [kind, bytes] : result.sent_bytes) {
    std::cout << "  a rank sends " << FormatBytes(bytes) << " of " << kind << " in a step\n";
  }
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
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  train->add_option("--warmup", flags->warmup, "Steps before")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  engine_cli::AddThreadsOption(train, &flags->threads);
  train->add_option("--ranks", flags->ranks, "Processes that share the batch")
      ->check(CLI::Range(1, 8));
  train->add_option("--tensor", flags->tensor, "Of them, ranks that share every product: 1 | 2 | 4")
      ->check(CLI::IsMember({1, 2, 4}))
      ->capture_default_str();
  train->add_option("--shard", flags->shard, "With ranks: none | zero1 | zero2 | zero3")
      ->check(CLI::IsMember({"none", "zero1", "zero2", "zero3"}))
      ->capture_default_str();
  train->add_option("--reduce", flags->reduce, "Sharded gradients travel as fp32 | bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  train->add_option("--device", flags->device, "cpu | cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  train->add_flag("--dense", flags->dense, "Dense linear layers instead of BitLinear");
  train->add_flag("--json", flags->json, "One JSON object instead of text");
  train->callback([flags] {
    if (StartRanks(flags->ranks, RankArguments(*flags))) return;
    RunAsRank({ParallelOf(*flags), flags->threads, {}, flags->device},
              [&](parallel::Group* group, const c10::Device& device) {
                RunBenchTrain(*flags, group, device);
              });
  });
}

}  // namespace tern::cli
