// See dataset.h.
#include "data/dataset.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "data/corpus.h"
#include "data/mapped_tokens.h"
#include "data/token_file.h"

namespace tern::data {
namespace {

namespace fs = std::filesystem;

const char* NameOf(TokenFormat format) {
  switch (format) {
    case TokenFormat::kShards:
      return "shards";
    case TokenFormat::kTokens:
      return "tokens";
    case TokenFormat::kMegatron:
      return "megatron";
    case TokenFormat::kLlmc:
      return "llmc";
  }
  __builtin_unreachable();
}

// By the name of one file; nothing when it is text or unknown.
std::optional<TokenFormat> TokenFormatOf(const std::string& path) {
  if (fs::path(path).filename() == "manifest.json") return TokenFormat::kShards;
  if (path.ends_with(".h5")) return TokenFormat::kTokens;
  if (path.ends_with(".idx")) return TokenFormat::kMegatron;
  if (!path.ends_with(".bin")) return std::nullopt;
  return fs::exists(path.substr(0, path.size() - 4) + ".idx") ? TokenFormat::kMegatron
                                                              : TokenFormat::kLlmc;
}

// The format of token files, or nothing for text.
std::optional<TokenFormat> FormatOf(const DatasetSource& source,
                                    const std::vector<std::string>& files) {
  if (source.token_format || source.text_format) return source.token_format;
  const std::optional<TokenFormat> format = TokenFormatOf(files.front());
  for (const std::string& path : files) {
    TERN_CHECK_INPUT(TokenFormatOf(path) == format, "data.sources.", source.name, ": ",
                     files.front(), " and ", path,
                     " are of different kinds; give each kind a source of its own");
    TERN_CHECK_INPUT(format || RecordFormatOf(path), "data.sources.", source.name, ": ", path,
                     ": the name does not say what the file is; set format");
  }
  return format;
}

std::string FolderOf(const DatasetOptions& options, const DatasetSource& source) {
  return options.shards_folder + "/" + source.name;
}

// Token files that know both sides, of which only one is wanted.
class OneSide : public TokenSource {
 public:
  // `split`: all that `tokens` has for training is on this side, and nothing else is there.
  OneSide(std::unique_ptr<TokenSource> tokens, Split split)
      : tokens_(std::move(tokens)), split_(split) {}
  int64_t NumTokens(Split split) const override {
    return split == split_ ? tokens_->NumTokens(Split::kTrain) : 0;
  }
  void Copy(Split, int64_t begin, int64_t count, int32_t* out) const override {
    tokens_->Copy(Split::kTrain, begin, count, out);
  }
  void CopyLabels(Split, int64_t begin, int64_t count, uint8_t* out) const override {
    tokens_->CopyLabels(Split::kTrain, begin, count, out);
  }
  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override {
    if (split != split_) return {};
    return tokens_->DocumentsIn(Split::kTrain, begin, end);
  }
  int64_t TextBytes(Split split) const override {
    return split == split_ ? tokens_->TextBytes(Split::kTrain) : 0;
  }

 private:
  std::unique_ptr<TokenSource> tokens_;
  const Split split_;
};

std::unique_ptr<TokenSource> OpenFile(TokenFormat format, const std::string& path, Split split,
                                      const text::Tokenizer& tokenizer) {
  switch (format) {
    case TokenFormat::kShards:
      return OpenShards(fs::path(path).parent_path().string(), tokenizer);
    case TokenFormat::kTokens:
      return std::make_unique<TokenFile>(TokenFile::Open(path, tokenizer));
    case TokenFormat::kMegatron:
      return OpenMegatron(path, split, tokenizer.vocab_size());
    case TokenFormat::kLlmc:
      return OpenLlmc(path, split, tokenizer.vocab_size());
  }
  __builtin_unreachable();
}

std::unique_ptr<TokenSource> OpenSource(const DatasetOptions& options, const DatasetSource& source,
                                        const text::Tokenizer& tokenizer) {
  const std::vector<std::string> files = ExpandGlobs(source.files);
  const std::optional<TokenFormat> format = FormatOf(source, files);
  std::vector<std::unique_ptr<TokenSource>> opened;
  if (!format) opened.push_back(OpenShards(FolderOf(options, source), tokenizer));
  for (const std::string& path : files) {
    // A dataset of Megatron is two files, and a glob finds both: the .bin stands for them.
    const bool second =
        format == TokenFormat::kMegatron && path.ends_with(".idx") &&
        std::binary_search(files.begin(), files.end(), path.substr(0, path.size() - 4) + ".bin");
    if (format && !second)
      opened.push_back(OpenFile(*format, path, source.split.value_or(Split::kTrain), tokenizer));
  }
  const bool has_both = !format || format == TokenFormat::kShards || format == TokenFormat::kTokens;
  std::unique_ptr<TokenSource> all = JoinSources(std::move(opened));
  if (has_both && source.split) all = std::make_unique<OneSide>(std::move(all), *source.split);
  return all;
}

}  // namespace

std::vector<PreparedSource> PrepareDataset(const DatasetOptions& options,
                                           const text::Tokenizer& tokenizer) {
  std::vector<PreparedSource> prepared;
  for (const DatasetSource& source : options.sources) {
    const std::optional<TokenFormat> format = FormatOf(source, ExpandGlobs(source.files));
    prepared.push_back({source.name, format ? NameOf(*format) : "text", {}});
    TERN_CHECK_INPUT(!format || source.instruction.kind == RecordKind::kText, "data.sources.",
                     source.name, ".record: found ", RecordKindName(source.instruction.kind),
                     ", and the files hold tokens already (", NameOf(*format),
                     "); want JSON, or no record");
    if (format) continue;
    ShardOptions shards;
    shards.files = source.files;
    shards.format = source.text_format;
    shards.text_field = source.text_field;
    shards.instruction = source.instruction;
    shards.validation_fraction = source.split ? 0 : options.validation_fraction;
    shards.seed = options.seed;
    shards.shard_tokens = options.shard_tokens;
    shards.threads = options.threads;
    prepared.back().totals = MakeShards(FolderOf(options, source), shards, tokenizer);
  }
  return prepared;
}

std::unique_ptr<TokenSource> OpenDataset(const DatasetOptions& options,
                                         const text::Tokenizer& tokenizer) {
  std::vector<std::unique_ptr<TokenSource>> sources;
  std::vector<std::string> names;
  std::vector<double> weights;
  for (const DatasetSource& source : options.sources) {
    sources.push_back(OpenSource(options, source, tokenizer));
    names.push_back("data.sources." + source.name);
    weights.push_back(source.weight);
  }
  return JoinSources(std::move(sources), std::move(names), std::move(weights));
}

}  // namespace tern::data
