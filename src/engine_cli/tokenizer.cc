// tern tokenizer train | encode | decode | shards.
#include <CLI/CLI.hpp>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/stop_signal.h"
#include "data/corpus.h"
#include "data/shards.h"
#include "engine/model_source.h"
#include "engine_cli/commands.h"
#include "engine_cli/token_ids.h"
#include "text/train_tokenizer.h"

namespace tern::engine_cli {
namespace {

struct Flags {
  std::vector<std::string> files;
  std::string model, output, text;
  int64_t vocab_size = 4096;
  bool bos = false;
  data::ShardOptions shards;
};

std::string StandardInput() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

// A SentencePiece model, or the tokenizer inside a GGUF file or a Hugging Face folder.
text::Tokenizer Load(const std::string& path) {
  if (path.ends_with(".model")) return text::Tokenizer::FromFile(path);
  engine::ModelWeights weights = engine::LoadModel(path);
  TERN_CHECK_INPUT(weights.tokenizer.has_value(), path, " has no tokenizer");
  return std::move(*weights.tokenizer);
}

void Train(const Flags& flags) {
  data::CorpusOptions options;
  options.files = flags.files;
  options.validation_fraction = 0;
  const data::Corpus corpus = data::LoadCorpus(options);
  std::vector<std::string_view> texts;
  for (const data::Document& document : corpus.train) texts.push_back(document.text);
  const text::Tokenizer tokenizer = text::TrainTokenizer(texts, {flags.vocab_size});
  tokenizer.Save(flags.output);
  std::cout << flags.output << ": " << tokenizer.vocab_size() << " pieces, SHA-256 "
            << tokenizer.sha256() << "\n";
}

void Encode(const Flags& flags) {
  const text::Tokenizer tokenizer = Load(flags.model);
  std::vector<int32_t> ids = tokenizer.Encode(flags.text.empty() ? StandardInput() : flags.text);
  if (flags.bos && tokenizer.bos_id() >= 0) ids.insert(ids.begin(), tokenizer.bos_id());
  const char* separator = "";
  for (const int32_t id : ids) {
    std::cout << separator << id;
    separator = " ";
  }
  std::cout << "\n";
}

void Decode(const Flags& flags) {
  const text::Tokenizer tokenizer = Load(flags.model);
  const std::vector<int32_t> ids = flags.text.empty()
                                       ? ParseTokenIds(StandardInput(), "standard input")
                                       : ParseTokenIds(flags.text, "--ids");
  std::cout << tokenizer.Decode(ids);
}

// Stopped by a signal it goes on when run again, as a training does.
void Shards(const Flags& flags) {
  InstallStopSignals();
  const text::Tokenizer tokenizer = Load(flags.model);
  const data::ShardTotals totals = data::MakeShards(flags.output, flags.shards, tokenizer);
  std::cout << flags.output << ": " << totals.train_tokens << " training tokens of "
            << totals.train_documents << " documents, " << totals.validation_tokens
            << " held out of " << totals.validation_documents << ", in " << totals.shards
            << " shards (" << totals.shards_before << " were there); " << totals.empty_records
            << " records without text left out\n";
}

void AddShardsCommand(CLI::App& tokenizer, const std::shared_ptr<Flags>& flags) {
  CLI::App* command = tokenizer.add_subcommand(
      "shards", "Text, JSONL (also .zst) and Parquet of any size to shards to train on");
  command->footer(
      "Example: tern tokenizer shards my.model web/*.jsonl.zst --held-out 0.001 -o shards/web\n"
      "Killed or stopped, the same command goes on. A recipe reads them as {files: "
      "[shards/web/manifest.json]}.");
  data::ShardOptions& shards = flags->shards;
  command->add_option("model", flags->model, "Tokenizer .model, GGUF file or Hugging Face folder")
      ->required();
  command->add_option("files", shards.files, "Files or globs (in quotes)")->required();
  command->add_option("-o,--output", flags->output, "Folder of the shards")->required();
  command->add_option("--field", shards.text_field, "Key or column that holds the text")
      ->capture_default_str();
  command->add_option("--held-out", shards.validation_fraction, "Share of the documents, by hash")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  command->add_option("--seed", shards.seed, "Of the held-out documents")->capture_default_str();
  command->add_option("--shard-tokens", shards.shard_tokens, "Length of a shard")
      ->check(CLI::Range(int64_t{1}, int64_t{2'000'000'000}))
      ->capture_default_str();
  command->add_option("--threads", shards.threads, "0: all processors")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->callback([flags] { Shards(*flags); });
}

}  // namespace

void AddTokenizerCommand(CLI::App& app) {
  CLI::App* tokenizer =
      app.add_subcommand("tokenizer", "Train a tokenizer; encode and decode text");
  tokenizer->require_subcommand(1);
  auto flags = std::make_shared<Flags>();

  CLI::App* train = tokenizer->add_subcommand("train", "BPE with byte fallback from text files");
  train->footer("Example: tern tokenizer train my/*.txt --vocab-size 4096 -o my.model");
  train->add_option("files", flags->files, "UTF-8 text files")->required();
  train->add_option("--vocab-size", flags->vocab_size, "Pieces, 256 bytes included")
      ->capture_default_str();
  train->add_option("-o,--output", flags->output, "Model file to write")->required();
  train->callback([flags] { Train(*flags); });

  CLI::App* encode = tokenizer->add_subcommand("encode", "Text to token ids");
  encode->footer(
      "Examples:\n  tern tokenizer encode my.model --text \"To be\"\n  tern tokenizer encode "
      "model.gguf < text.txt");
  encode->add_option("model", flags->model, "Tokenizer .model, GGUF file or Hugging Face folder")
      ->required();
  encode->add_option("--text", flags->text, "Default: standard input");
  encode->add_flag("--bos", flags->bos, "Begin with BOS, as models are run");
  encode->callback([flags] { Encode(*flags); });

  CLI::App* decode = tokenizer->add_subcommand("decode", "Token ids to text");
  decode->footer("Example: tern tokenizer decode my.model --ids \"45 12 7\"");
  decode->add_option("model", flags->model, "Tokenizer .model, GGUF file or Hugging Face folder")
      ->required();
  decode->add_option("--ids", flags->text, "Default: standard input");
  decode->callback([flags] { Decode(*flags); });

  AddShardsCommand(*tokenizer, flags);
}

}  // namespace tern::engine_cli
