// tern quantize: a float model to low-bit codes in a folder that engines load.
#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/stop_signal.h"
#include "cli/commands.h"
#include "cli/quantize_size.h"
#include "cli/threads.h"
#include "engine_cli/model_options.h"
#include "ptq/gguf_mix.h"
#include "ptq/quantize_model.h"
#include "ptq/scheme.h"

namespace tern::cli {
namespace {

constexpr const char* kVllmTypes = "int4,w8";  // That its kernels for integer weights have

struct Flags {
  ptq::QuantizeOptions options;
  CLI::Option* to = nullptr;  // --to
  std::string engine, order = "activation";
  std::string plot;    // --plot
  bool front = false;  // --front
  int64_t threads = 0;
  bool json = false;
};

void Print(const std::string& output, const ptq::QuantizeReport& r) {
  std::cout << output << ": " << r.matrices << " matrices of " << r.layers << " layers as "
            << r.scheme << ", " << r.bits_per_weight << " bits a weight, "
            << FormatBytes(static_cast<double>(r.size_bytes)) << " in all\n"
            << "  read again: all values are the quantizer's\n"
            << "  mean error " << r.error << " of the "
            << (r.calibration_tokens > 0 ? "outputs'" : "weights'") << " power (rounded to nearest "
            << r.error_rtn << ")\n";
  if (r.kl_tokens > 0) {
    std::cout << "  against the source on " << r.kl_tokens << " held-out tokens: mean KL "
              << r.mean_kl << ", the same first choice " << 100 * r.top1_agreement << " %\n";
  }
  if (r.fallbacks > 0)
    std::cout << "  " << r.fallbacks << " matrices fell back to rounding: see ledger.jsonl\n";
}

void CheckEngine(const Flags& flags) {
  const bool gguf = ptq::GgufMixByName(flags.options.to).has_value();
  if (!flags.engine.empty() && gguf != (flags.engine == "llama.cpp")) {
    throw UsageError(StrCat("--for ", flags.engine, ": it loads ",
                            gguf ? ptq::SchemeNames() : ptq::GgufMixNames(), "; not --to ",
                            flags.options.to));
  }
}

void CheckTarget(const Flags& flags) {
  if (flags.to->count() > 0)
    throw UsageError("--to-size and --to-bits choose types themselves; leave out --to");
  const bool gguf = ptq::MakesGguf(flags.options);
  if (!flags.engine.empty() && gguf != (flags.engine == "llama.cpp"))
    throw UsageError(StrCat("--for ", flags.engine, " loads ",
                            gguf ? "folders: want -o OUT" : "GGUF files: want -o OUT.gguf"));
}

// --front: what could be had, and nothing is made.
void ShowFront(const Flags& flags) {
  const ptq::SizePlan plan = ptq::MeasureFront(flags.options);
  if (!flags.plot.empty()) WriteFileAtomically(flags.plot, PlotFront(plan));
  if (flags.json) {
    std::cout << ptq::PlanJson(plan).dump() << "\n";
    return;
  }
  std::cout << DescribeFront(plan);
}

void Run(Flags flags) {
  if (!flags.front && !flags.plot.empty()) throw UsageError("--plot draws --front; give both");
  if (flags.front && !ptq::TargetOf(flags.options)) flags.options.to_bits = ptq::kAnyBits;
  if (ptq::TargetOf(flags.options)) {
    CheckTarget(flags);
    if (flags.engine == "vllm" && flags.options.types.empty()) flags.options.types = kVllmTypes;
  } else {
    CheckEngine(flags);
  }
  SetThreads(flags.threads);
  GiveBackLargeBlocks();
  InstallStopSignals();
  flags.options.threads = static_cast<int>(flags.threads);
  flags.options.gptq.activation_order = flags.order == "activation";
  if (flags.front) return ShowFront(flags);
  std::optional<ProgressLine> line;
  flags.options.progress = [&](int64_t done, int64_t layers) {
    if (!line) {
      ProgressLine::Options shown;
      shown.total = layers;
      shown.start = done;
      line.emplace("quantize", "layers", shown);
    }
    line->Update(done);
  };
  const ptq::QuantizeReport report = ptq::QuantizeModel(flags.options);
  if (line) line->Finish();
  if (flags.json) {
    std::cout << ptq::ReportJson(report).dump() << "\n";
    return;
  }
  Print(flags.options.output, report);
  if (report.plan) std::cout << DescribePlan(*report.plan);
}

// Of methods that train layers, and of the scales behind any method.
void AddTrainingOptions(CLI::App* command, ptq::QuantizeOptions* options) {
  ptq::QuantizeOptions& o = *options;
  command
      ->add_option(
          "--steps", o.layer_steps,
          StrCat("autoround, block_ap: steps of training a layer, each a forward and a backward "
                 "pass of --batch sequences; default: ",
                 recipe::kLayerSteps))
      ->check(CLI::Range(1, 100000));
  command
      ->add_option("--scale-steps", o.scale_steps,
                   "Steps of training the scales of integers behind any method, codes fixed, "
                   "against the float layers; each costs as one of --steps; 0: none")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command->add_option("--batch", o.batch, "Sequences of one of --steps or --scale-steps")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--weight-lr", o.block_ap.weight_lr, "block_ap: learning rate of weights")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--scale-lr", o.block_ap.scale_lr,
                   "block_ap: learning rate of scales and zero points")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
}

void AddMethodOptions(CLI::App* command, Flags* flags) {
  ptq::QuantizeOptions& o = flags->options;
  command->add_option(
      "--method", o.method,
      "rtn (round to nearest) | hqq (fits scales and zero points to the weights, integers only) | "
      "gptq (the default with --calibration) | autoround (learns the rounding layer by layer, "
      "integers only; minutes for 135M weights) | block_ap (EfficientQAT's: learns weights and "
      "scales, integers only); of GGUF rtn | imatrix (the default with --calibration)");
  command->add_option(
      "--calibration", o.calibration,
      "Text, JSONL, Parquet, *.tokens.h5 or Megatron *.idx of the kind that the model "
      "will read");
  command->add_option("--field", o.field, "Key of the text in JSONL and Parquet")
      ->capture_default_str();
  command->add_option("--calibration-tokens", o.calibration_tokens, "How many of it")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--sequence", o.sequence, "Tokens of a calibration sequence")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command
      ->add_option("--damping", o.gptq.damping,
                   "gptq: part of the Hessian's mean diagonal added to it; doubled, and said in "
                   "the ledger, where that is not enough")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str();
  command
      ->add_option("--order", flags->order,
                   "gptq: activation (columns with the largest inputs first) | file")
      ->check(CLI::IsMember({"activation", "file"}))
      ->capture_default_str();
  command
      ->add_option("--rounds", o.gptq.rounds,
                   "gptq: rounds of better scales and codes afterwards; 0: GPTQ as published")
      ->check(CLI::Range(0, 20))
      ->capture_default_str();
  AddTrainingOptions(command, &o);
  command->add_flag("--rotate", o.rotate,
                    "Puts Hadamard rotations into the weights first, which spread outliers; a tied "
                    "head becomes a matrix of its own");
  command->add_flag(
      "--channel-scales", o.channel_scales,
      "Scales columns of inputs and weights first: AWQ for weights alone, SmoothQuant "
      "for int8 and fp8; needs --calibration");
  command->add_flag("--min-max", o.min_max,
                    "Ranges from the largest weights, without the search for the least error");
}

}  // namespace

void AddQuantizeCommand(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("quantize", "Quantize a trained float model for an engine");
  command->footer(
      "Example: tern quantize SmolLM2-135M -o smollm2-int4 --to int4 --calibration notes.txt");
  auto flags = std::make_shared<Flags>();
  ptq::QuantizeOptions& o = flags->options;
  command
      ->add_option("model", o.source,
                   "GGUF file, Hugging Face folder, model file of tern import, or checkpoint")
      ->required();
  command->add_option("-o,--output", o.output, "The folder, or GGUF file, to make")->required();
  flags->to = command
                  ->add_option("--to", o.to,
                               StrCat("compressed-tensors folders: ", ptq::SchemeNames(),
                                      "; GGUF files: ", ptq::GgufMixNames()))
                  ->capture_default_str();
  AddSizeOptions(command, &o);
  command->add_flag("--front", flags->front,
                    "Shows sizes that could be had and their predicted KL, and makes nothing");
  command->add_option("--plot", flags->plot, "--front: also as a picture, FILE.svg");
  command
      ->add_option("--for", flags->engine,
                   "vllm | transformers | llama.cpp: refuses a --to that it does not load")
      ->check(CLI::IsMember({"vllm", "transformers", "llama.cpp"}));
  command->add_option("--group", o.group,
                      "Weights of a row that share a scale; 0: the row; default: 128, or 64 or 32 "
                      "where rows do not divide");
  command->add_option(
      "--container", o.container,
      StrCat("How the folder holds it: ", ptq::ContainerNames(), "; default: compressed-tensors"));
  AddMethodOptions(command, flags.get());
  command->add_option("--imatrix", o.imatrix,
                      "GGUF: importance matrix, as of llama-imatrix; read when it is there, else "
                      "written");
  command->add_flag("--pure", o.pure, "GGUF: one type for all matrices, as llama-quantize --pure");
  command->add_option("--memory", o.memory,
                      "Limit of memory (2GiB): activations of the calibration go to the disk where "
                      "they do not fit, and a limit that is too small is refused with what would do");
  command->add_flag("--allow-requantize", o.allow_requantize,
                    "Take a source that is quantized already");
  command->add_option("--max-kl", o.max_kl,
                      "Refuse a result whose mean KL to the source is larger (exit code 4)");
  command->add_option("--tokenizer", o.tokenizer, "tokenizer.model or tokenizer.json");
  engine_cli::AddThreadsOption(command, &flags->threads);
  command->add_flag("--json", flags->json, "The report as JSON");
  command->callback([flags] { Run(*flags); });
}

}  // namespace tern::cli
