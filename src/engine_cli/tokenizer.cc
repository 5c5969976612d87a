// tern tokenizer train | encode | decode | chat | shards.
#include <CLI/CLI.hpp>
#include <chrono>
#include <ctime>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/stop_signal.h"
#include "base/thread_pool.h"
#include "data/corpus.h"
#include "data/shards.h"
#include "engine/model_source.h"
#include "engine_cli/commands.h"
#include "engine_cli/model_options.h"
#include "engine_cli/token_ids.h"
#include "formats/strict_json.h"
#include "text/chat_template.h"
#include "text/train_tokenizer.h"
#include "text/unicode.h"

namespace tern::engine_cli {
namespace {

struct Flags {
  std::vector<std::string> files;
  std::string model, output, text;
  std::string bos_token, eos_token;
  int64_t vocab_size = 4096;
  std::string pre = "cl100k";
  bool bos = false, json_lines = false, time = false;
  int threads = 1;
  data::ShardOptions shards;
};

std::string StandardInput() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

// A tokenizer's own file, or the one inside a GGUF file or a Hugging Face folder.
text::Tokenizer Load(const Flags& flags) {
  const std::string& path = flags.model;
  if (path.ends_with(".tiktoken"))
    return text::Tokenizer::FromTiktoken(ReadFile(path), flags.pre, {});
  if (path.ends_with(".model") || path.ends_with(".json")) return text::Tokenizer::FromFile(path);
  auto tokenizer = engine::OpenModel(path)->Tokenizer();
  TERN_CHECK_INPUT(tokenizer.has_value(), path, " has no tokenizer");
  return std::move(*tokenizer);
}

// Lines of JSON, the text of each: what --json-lines reads.
std::vector<std::string> JsonLines() {
  std::vector<std::string> texts;
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto value = formats::ParseStrictJson(line, StrCat("line ", texts.size() + 1));
    TERN_CHECK_FORMAT(value.is_string(), "line ", texts.size() + 1, " is no JSON string");
    texts.push_back(value.get<std::string>());
  }
  return texts;
}

// A line of ids for each text. With --time also what encoding took, without reading, writing and a
// first text that warms up.
void EncodeLines(const Flags& flags, const text::Tokenizer& tokenizer) {
  const std::vector<std::string> texts = JsonLines();
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  ThreadPool pool(flags.threads);
  tokenizer.EncodeBatch({views.begin(), views.begin() + (views.empty() ? 0 : 1)}, pool.Runner());
  const auto begin = std::chrono::steady_clock::now();
  const std::clock_t processor = std::clock();
  const auto all = tokenizer.EncodeBatch(views, pool.Runner());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (flags.time) {
    const double used = static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC;
    std::cerr << seconds.count() << " " << used << "\n";
  }
  for (const std::vector<int32_t>& ids : all) {
    std::string line;
    for (const int32_t id : ids) line += StrCat(line.empty() ? "" : " ", id);
    std::cout << line << "\n";
  }
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
  const text::Tokenizer tokenizer = Load(flags);
  if (flags.json_lines) return EncodeLines(flags, tokenizer);
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
  const text::Tokenizer tokenizer = Load(flags);
  if (flags.json_lines) {  // A line of ids each, a JSON string out
    std::string line;
    while (std::getline(std::cin, line)) {
      const std::string text = tokenizer.Decode(ParseTokenIds(line, "standard input"));
      std::cout << nlohmann::json(text::ReplaceInvalidUtf8(text)).dump() << "\n";
    }
    return;
  }
  const std::vector<int32_t> ids = flags.text.empty()
                                       ? ParseTokenIds(StandardInput(), "standard input")
                                       : ParseTokenIds(flags.text, "--ids");
  std::cout << tokenizer.Decode(ids);
}

// A template's own file, or the one that a model brings.
text::ChatTemplate LoadChatTemplate(const Flags& flags) {
  if (flags.model.ends_with(".jinja"))
    return text::ChatTemplate(ReadFile(flags.model), flags.bos_token, flags.eos_token);
  const auto found = engine::OpenModel(flags.model)->ChatTemplate();
  TERN_CHECK_INPUT(found.has_value(), flags.model,
                   " has no chat template that this version reads; give one as a .jinja file");
  return *found;
}

// {"text": ...} for each line of variables, or {"error": ...} where the template refuses them.
void ChatLines(const text::ChatTemplate& chat) {
  std::string line;
  while (std::getline(std::cin, line)) {
    nlohmann::json row;
    try {
      row["text"] = chat.RenderJson(line);
    } catch (const InputError& error) {
      row["error"] = error.what();
    } catch (const FormatError& error) {
      row["error"] = error.what();
    }
    std::cout << row.dump() << "\n";
  }
}

void Chat(const Flags& flags) {
  const text::ChatTemplate chat = LoadChatTemplate(flags);
  if (flags.json_lines) return ChatLines(chat);
  std::cout << (flags.text.empty() ? chat.RenderJson(StandardInput())
                                   : chat.Render({{"user", flags.text}}, true));
}

void AddChatCommand(CLI::App& tokenizer, const std::shared_ptr<Flags>& flags) {
  CLI::App* chat = tokenizer.add_subcommand("chat", "Messages to the text that a model reads");
  chat->footer(
      "Examples:\n  tern tokenizer chat model.gguf --text \"To be?\"\n  echo '{\"messages\": "
      "[{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true}' | tern "
      "tokenizer chat model.gguf");
  chat->add_option("model", flags->model,
                   "GGUF file, Hugging Face folder, model file, or a template (.jinja)")
      ->required();
  chat->add_option("--text", flags->text,
                   "One message of the user. Default: a JSON object on standard input, with "
                   "messages, add_generation_prompt, and what else the template reads");
  chat->add_flag("--json-lines", flags->json_lines,
                 "Many: such an object a line; {\"text\": ...} or {\"error\": ...} a line");
  chat->add_option("--bos-token", flags->bos_token, "Of a .jinja file: its bos_token");
  chat->add_option("--eos-token", flags->eos_token, "Of a .jinja file: its eos_token");
  chat->callback([flags] { Chat(*flags); });
}

// Stopped by a signal it goes on when run again, as a training does.
void Shards(const Flags& flags) {
  InstallStopSignals();
  const text::Tokenizer tokenizer = Load(flags);
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
  AddThreadsOption(command, &shards.threads);
  command->callback([flags] { Shards(*flags); });
}

constexpr const char* kTokenizerHelp =
    "Tokenizer (.model, tokenizer.json, .tiktoken), GGUF file or Hugging Face folder";

void AddShared(CLI::App* verb, const std::shared_ptr<Flags>& flags) {
  verb->add_option("model", flags->model, kTokenizerHelp)->required();
  verb->add_option("--pre", flags->pre, "Pre-tokenizer of a .tiktoken file")->capture_default_str();
  verb->add_flag("--json-lines", flags->json_lines,
                 "Many texts: lines of JSON strings on one side, lines of ids on the other");
}

}  // namespace

void AddTokenizerCommand(CLI::App& app) {
  CLI::App* tokenizer =
      app.add_subcommand("tokenizer", "Train a tokenizer; encode and decode text, and chats");
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
  AddShared(encode, flags);
  encode->add_option("--threads", flags->threads, "For --json-lines")->capture_default_str();
  encode->add_flag("--time", flags->time,
                   "For --json-lines: seconds of encoding, and of processor time, on stderr");
  encode->add_option("--text", flags->text, "Default: standard input");
  encode->add_flag("--bos", flags->bos, "Begin with BOS, as models are run");
  encode->callback([flags] { Encode(*flags); });

  CLI::App* decode = tokenizer->add_subcommand("decode", "Token ids to text");
  decode->footer("Example: tern tokenizer decode my.model --ids \"45 12 7\"");
  AddShared(decode, flags);
  decode->add_option("--ids", flags->text, "Default: standard input");
  decode->callback([flags] { Decode(*flags); });

  AddChatCommand(*tokenizer, flags);
  AddShardsCommand(*tokenizer, flags);
}

}  // namespace tern::engine_cli
