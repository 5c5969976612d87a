// The prepare stage: corpus -> tokenizer -> token file.
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "data/corpus.h"
#include "data/token_file.h"
#include "engine/model_source.h"
#include "job/process.h"
#include "job/stages.h"
#include "job/start.h"
#include "text/train_tokenizer.h"

namespace tern::job {
namespace {

constexpr const char* kFetched = "{fetched}";

// $TERN_CACHE, else ~/.cache/tern, else .cache/tern of the working directory.
std::string CacheFolder() {
  if (const char* cache = std::getenv("TERN_CACHE")) return cache;
  const char* home = std::getenv("HOME");
  return StrCat(home != nullptr ? home : ".", "/.cache/tern");
}

// Files with {fetched} replaced; fetches the corpus when any name needs it.
std::vector<std::string> ResolveFiles(const Context& context,
                                      const std::vector<std::string>& patterns) {
  std::vector<std::string> files;
  bool fetched = false;
  for (std::string pattern : patterns) {
    const size_t at = pattern.find(kFetched);
    if (at != std::string::npos) {
      const std::string& name = context.recipe().data.fetch;
      TERN_CHECK(!name.empty(), "CheckRecipe lets no {fetched} through without data.fetch");
      const std::string folder = StrCat(CacheFolder(), "/corpora/", name);
      if (!fetched) RunProcess({context.fetch_scripts + "/" + name, folder});
      fetched = true;
      pattern.replace(at, std::string(kFetched).size(), folder);
    }
    files.push_back(std::move(pattern));
  }
  return files;
}

text::Tokenizer GivenTokenizer(const Context& context) {
  if (const recipe::SourceModel* model = TokenizerModel(context.recipe()))
    return TokenizerOf(*model);
  const recipe::TokenizerConfig& config = context.recipe().data.tokenizer;
  text::Tokenizer tokenizer = text::Tokenizer::FromFile(config.file);
  if (tokenizer.vocab_size() != config.vocab_size) {
    throw RecipeError(StrCat("data.tokenizer.vocab_size is ", config.vocab_size, ", and ",
                             config.file, " has ", tokenizer.vocab_size(),
                             " pieces; set data.tokenizer.vocab_size=", tokenizer.vocab_size()));
  }
  return tokenizer;
}

text::Tokenizer MakeTokenizer(const Context& context, const data::Corpus& corpus) {
  const recipe::TokenizerConfig& config = context.recipe().data.tokenizer;
  if (!config.file.empty() || TokenizerModel(context.recipe()) != nullptr)
    return GivenTokenizer(context);
  std::vector<std::string_view> texts;
  for (const data::Document& document : corpus.train) texts.push_back(document.text);
  text::TokenizerTraining training;
  training.vocab_size = config.vocab_size;
  return text::TrainTokenizer(texts, training);
}

std::optional<data::RecordFormat> TextFormat(recipe::SourceFormat format) {
  switch (format) {
    case recipe::SourceFormat::kText:
      return data::RecordFormat::kText;
    case recipe::SourceFormat::kJsonl:
      return data::RecordFormat::kJsonl;
    case recipe::SourceFormat::kJson:
      return data::RecordFormat::kJson;
    case recipe::SourceFormat::kParquet:
      return data::RecordFormat::kParquet;
    default:
      return std::nullopt;
  }
}

std::optional<data::TokenFormat> TokensFormat(recipe::SourceFormat format) {
  switch (format) {
    case recipe::SourceFormat::kShards:
      return data::TokenFormat::kShards;
    case recipe::SourceFormat::kTokens:
      return data::TokenFormat::kTokens;
    case recipe::SourceFormat::kMegatron:
      return data::TokenFormat::kMegatron;
    case recipe::SourceFormat::kLlmc:
      return data::TokenFormat::kLlmc;
    default:
      return std::nullopt;
  }
}

// data.chat_template, or that of the model whose tokenizer is used. Throws InputError.
text::ChatTemplate TemplateOf(const Context& context) {
  const std::string& file = context.recipe().data.chat_template;
  const recipe::SourceModel* model = TokenizerModel(context.recipe());
  if (file.empty()) {
    std::optional<text::ChatTemplate> found;
    if (model != nullptr) found = engine::OpenModel(model->from)->ChatTemplate();
    TERN_CHECK_INPUT(found.has_value(), model == nullptr ? "the tokenizer" : model->from,
                     " has no chat template that is read, and messages need one; set "
                     "data.chat_template");
    return *found;
  }
  const text::Tokenizer tokenizer = GivenTokenizer(context);
  const auto spelled = [&](int32_t id) { return id < 0 ? std::string() : tokenizer.piece(id); };
  return text::ChatTemplate(ReadFile(file), spelled(tokenizer.bos_id()),
                            spelled(tokenizer.eos_id()));
}

data::InstructionOptions InstructionOf(const Context& context, const recipe::SourceConfig& source) {
  data::InstructionOptions options;
  options.kind = source.record == recipe::SourceRecord::kText       ? data::RecordKind::kText
                 : source.record == recipe::SourceRecord::kMessages ? data::RecordKind::kMessages
                                                                    : data::RecordKind::kCompletion;
  options.messages_field = source.messages_field;
  options.prompt_field = source.prompt_field;
  options.completion_field = source.completion_field;
  options.prompts_count = source.prompts_count;
  if (options.kind == data::RecordKind::kMessages) options.chat = TemplateOf(context);
  return options;
}

std::optional<data::Split> SplitOf(recipe::SourceSplit split) {
  if (split == recipe::SourceSplit::kAuto) return std::nullopt;
  return split == recipe::SourceSplit::kTrain ? data::Split::kTrain : data::Split::kValidation;
}

nlohmann::json PrepareSources(Context& context) {
  const text::Tokenizer tokenizer = GivenTokenizer(context);
  tokenizer.Save(context.TokenizerPath());
  nlohmann::json sources = nlohmann::json::object();
  for (const auto& source : data::PrepareDataset(DatasetOf(context), tokenizer)) {
    sources[source.name] = {{"kind", source.kind}};
    if (source.kind != "text") continue;
    const data::ShardTotals& totals = source.totals;
    sources[source.name].update({{"shards", totals.shards},
                                 {"train_documents", totals.train_documents},
                                 {"validation_documents", totals.validation_documents},
                                 {"empty_records", totals.empty_records}});
    LogInfo("prepare: ", source.name, ": ", totals.shards, " shards, ", totals.train_documents,
            " training and ", totals.validation_documents, " validation documents, ",
            totals.empty_records, " records without text left out");
  }
  const data::TokenSource& tokens = context.Tokens();
  return {{"train_tokens", tokens.NumTokens(data::Split::kTrain)},
          {"validation_tokens", tokens.NumTokens(data::Split::kValidation)},
          {"sources", sources},
          {"vocab_size", tokenizer.vocab_size()},
          {"tokenizer_sha256", tokenizer.sha256()}};
}

}  // namespace

data::DatasetOptions DatasetOf(const Context& context) {
  const recipe::DataConfig& config = context.recipe().data;
  data::DatasetOptions options;
  options.shards_folder = config.shards.empty() ? context.Path("data") : config.shards;
  options.validation_fraction = config.validation_fraction;
  options.seed = static_cast<uint64_t>(context.recipe().seed);
  options.shard_tokens = config.shard_tokens;
  options.threads = static_cast<int>(context.recipe().threads);
  for (const recipe::SourceConfig& source : config.sources) {
    options.sources.push_back({source.name, ResolveFiles(context, source.files),
                               TextFormat(source.format), TokensFormat(source.format),
                               source.text_field, SplitOf(source.split), source.weight,
                               InstructionOf(context, source)});
  }
  return options;
}

nlohmann::json RunStage(Context& context, const recipe::PrepareStage&) {
  const recipe::DataConfig& config = context.recipe().data;
  if (!config.sources.empty()) return PrepareSources(context);
  data::CorpusOptions options;
  options.files = ResolveFiles(context, config.files);
  options.validation_files = ResolveFiles(context, config.validation_files);
  options.validation_fraction = config.validation_fraction;
  options.seed = static_cast<uint64_t>(context.recipe().seed);
  const data::Corpus corpus = data::LoadCorpus(options);
  for (const std::string& note : corpus.notes) LogInfo(note);
  LogInfo("prepare: ", corpus.train.size(), " training and ", corpus.validation.size(),
          " validation documents");
  const text::Tokenizer tokenizer = MakeTokenizer(context, corpus);
  tokenizer.Save(context.TokenizerPath());
  data::WriteTokenFile(context.TokensPath(), corpus, tokenizer,
                       {context.resolved_yaml, context.recipe().seed});
  const data::TokenSource& tokens = context.Tokens();
  nlohmann::json held_out = nlohmann::json::array();
  for (const data::Document& document : corpus.validation) held_out.push_back(document.name);
  return {{"train_tokens", tokens.NumTokens(data::Split::kTrain)},
          {"validation_tokens", tokens.NumTokens(data::Split::kValidation)},
          {"train_documents", corpus.train.size()},
          {"validation_documents", held_out},
          {"vocab_size", tokenizer.vocab_size()},
          {"tokenizer_sha256", tokenizer.sha256()}};
}

}  // namespace tern::job
