// tern bench decode | prefill | gemv | gemm | kernels: speed of the engine and its kernels, beside
// a peer in the same run.
#include <CLI/CLI.hpp>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <random>

#include "base/error.h"
#include "engine/decoder.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "engine_cli/bench.h"
#include "engine_cli/bench_device.h"
#include "engine_cli/bench_product.h"
#include "engine_cli/commands.h"
#include "engine_cli/model_options.h"

namespace tern::engine_cli {
namespace {

struct Flags {
  BenchFlags bench;
  std::string model;
  engine::CodeActivations activations = engine::CodeActivations::kInt16;
  int64_t prompt = 8, tokens = 32;
  std::vector<std::string> types{"tq2_0"}, shapes{"2560x2560", "6912x2560", "2560x6912"};
  std::vector<int64_t> batches{16, 64, 512}, sequences{1};
};

std::vector<int32_t> FixedTokens(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>((7 + 13 * i) % vocab_size));
  return tokens;
}

double TimedAppend(engine::Session& session, const std::vector<int32_t>& tokens) {
  const auto begin = std::chrono::steady_clock::now();
  session.Append(tokens);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Seconds of each step in which `sequences` texts get one token each, as tern serve runs them.
std::vector<double> TimedSteps(const engine::Engine& engine, const Flags& flags,
                               int64_t sequences) {
  const int64_t prompt = std::max<int64_t>(flags.prompt, 1), capacity = prompt + flags.tokens;
  engine::KvCache cache(engine.config(), sequences * engine::KvCache::PagesFor(capacity),
                        kernels::KvType::kF16);
  engine::Decoder decoder(engine, cache, capacity);
  const std::vector<int32_t> tokens = FixedTokens(prompt, engine.config().vocab_size);
  std::deque<engine::Sequence> texts;
  std::vector<engine::Decoder::Request> requests;
  for (int64_t i = 0; i < sequences; ++i) requests.push_back({&texts.emplace_back(cache), tokens});
  decoder.Run(requests);
  for (engine::Decoder::Request& request : requests) request.tokens = std::span(tokens).first(1);
  std::vector<double> seconds;
  for (int64_t i = 0; i < flags.tokens; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    decoder.Run(requests);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return seconds;
}

// Of a case; the default is not named.
std::string NameOf(const std::string& what, engine::CodeActivations activations) {
  return activations == engine::CodeActivations::kInt16 ? what
                                                        : StrCat(what, ", ", ToString(activations));
}

void RunDecode(const Flags& flags) {
  if (!flags.bench.against.empty() && flags.sequences != std::vector<int64_t>{1})
    throw UsageError("--against has one sequence; leave --batch out");
  const double bytes =
      static_cast<double>(engine::BytesPerToken(LoadWeights(flags.model, flags.activations)));
  const auto peer = [&](int threads) -> std::vector<std::string> {
    return {"decode", flags.model, std::to_string(threads), std::to_string(flags.prompt),
            std::to_string(flags.tokens)};
  };
  std::vector<BenchCase> cases;
  for (const int64_t sequences : flags.sequences) {
    const auto ours = [&flags, sequences](int threads) {
      return TimedSteps(engine::Engine(LoadWeights(flags.model, flags.activations), threads), flags,
                        sequences);
    };
    cases.push_back(
        {NameOf(sequences == 1 ? "decode" : StrCat("decode batch ", sequences), flags.activations),
         static_cast<double>(sequences), "tokens", bytes, ours, peer});
  }
  RunBench(flags.bench, cases);
}

void RunPrefill(const Flags& flags) {
  std::vector<BenchCase> cases;
  for (const int64_t batch : flags.batches) {
    const auto ours = [&flags, batch](int threads) {
      const engine::Engine engine(LoadWeights(flags.model, flags.activations), threads);
      const std::vector<int32_t> tokens = FixedTokens(batch, engine.config().vocab_size);
      std::vector<double> seconds;
      for (int i = 0; i < 4; ++i) {
        engine::Session session(engine, batch, kernels::KvType::kF16);
        const double time = TimedAppend(session, tokens);
        if (i > 0) seconds.push_back(time);
      }
      return seconds;
    };
    const auto peer = [&flags, batch](int threads) -> std::vector<std::string> {
      return {"prefill", flags.model, std::to_string(threads), std::to_string(batch), "3"};
    };
    cases.push_back({NameOf(StrCat("prefill ", batch), flags.activations),
                     static_cast<double>(batch), "tokens", 0, ours, peer});
  }
  RunBench(flags.bench, cases);
}

void RunProducts(const Flags& flags, const std::vector<int64_t>& batches) {
  if (flags.activations == engine::CodeActivations::kFloat) {
    throw UsageError(
        "--activations f32 decodes weights when a model is loaded; products alone have int8 and "
        "int16");
  }
  std::vector<BenchCase> cases;
  for (const std::string& type : flags.types) {
    for (const std::string& shape : flags.shapes) {
      for (const int64_t m : batches) {
        cases.push_back(ProductCase(type, shape, m, flags.activations));
        cases.back().name = NameOf(cases.back().name, flags.activations);
      }
    }
  }
  RunBench(flags.bench, cases);
}

void AddCommonFlags(CLI::App* command, const std::shared_ptr<Flags>& flags) {
  command->add_option("--threads", flags->bench.threads, "Numbers of threads, e.g. 1,2")
      ->delimiter(',')
      ->check(CLI::Range(1, kMaxThreads))
      ->capture_default_str();
  AddActivationsOption(command, &flags->activations);
  command->add_option("--rounds", flags->bench.rounds, "Turns of tern, the peer and a plain read")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option(
      "--against", flags->bench.against,
      "llama.cpp (tests/peers/build_llama), or a program that is called the same way");
  command->add_flag("--json", flags->bench.json, "Every timing, for machines");
}

void AddModelBench(CLI::App& bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App* decode = bench.add_subcommand("decode", "New tokens a second of a model");
  decode->add_option("model", flags->model, kModelHelp)->required();
  decode->add_option("--prompt", flags->prompt, "Tokens before the first timing")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  decode->add_option("-n,--tokens", flags->tokens, "Timed tokens a round")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  decode->add_option("--batch", flags->sequences, "Numbers of sequences at once, e.g. 1,8,32")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  AddCommonFlags(decode, flags);
  decode->callback([flags] { RunDecode(*flags); });

  CLI::App* prefill = bench.add_subcommand("prefill", "Prompt tokens a second of a model");
  prefill->add_option("model", flags->model, kModelHelp)->required();
  prefill->add_option("--batch", flags->batches, "Numbers of tokens, e.g. 16,64,512")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  AddCommonFlags(prefill, flags);
  prefill->callback([flags] { RunPrefill(*flags); });
}

void AddProductBench(CLI::App& bench, const char* name, const char* help, bool one_token) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand(name, help);
  command->add_option("--type", flags->types, StrCat("Of the weights: ", ProductTypes()))
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--shape", flags->shapes, "Outputs x inputs, e.g. 2560x6912")
      ->delimiter(',')
      ->capture_default_str();
  if (!one_token) {
    command->add_option("--batch", flags->batches, "Tokens at once")
        ->delimiter(',')
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
  }
  AddCommonFlags(command, flags);
  command->callback([flags, one_token] {
    RunProducts(*flags, one_token ? std::vector<int64_t>{1} : flags->batches);
  });
}

void AddDeviceBench(CLI::App& bench) {
  auto flags = std::make_shared<DeviceBenchFlags>();
  CLI::App* command = bench.add_subcommand(
      "kernels", "Times of a device's products (beside their bounds: scripts/gpu_check)");
  command->add_option("--device", flags->device, "cuda, cuda:INDEX, simt (slow)")
      ->capture_default_str();
  command->add_option("--shape", flags->shapes, "Outputs x inputs, e.g. 2560x6912")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--batch", flags->tokens, "Tokens at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  command->add_option("--rounds", flags->rounds, "The least time of so many")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "For machines");
  command->callback([flags] { RunDeviceBench(*flags); });
}

}  // namespace

CLI::App* AddBenchCommand(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed, beside another program if wanted");
  bench->require_subcommand(1);
  bench->footer("Example: tern bench decode model.gguf --threads 1,2 --against llama.cpp");
  AddModelBench(*bench);
  AddProductBench(*bench, "gemv", "One token times matrices beyond the caches", true);
  AddProductBench(*bench, "gemm", "Many tokens times a matrix", false);
  AddDeviceBench(*bench);
  return bench;
}

}  // namespace tern::engine_cli
