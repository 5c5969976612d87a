// See shards.h.
#include "data/shards.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "base/stop_signal.h"
#include "data/corpus.h"
#include "data/encode_pool.h"
#include "data/mapped_tokens.h"
#include "data/shard_manifest.h"

namespace tern::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBatchBytes = int64_t{1} << 20;  // Of records; a longer one is a batch alone
constexpr int64_t kBatchRecords = 4096;
constexpr const char* kLabels = ".labels";  // Behind a shard's name
constexpr int64_t kLabelKinds = 2;

struct SourceFile {
  std::string path;
  int64_t size_bytes = 0, changed_ns = 0;
};

std::vector<SourceFile> FindFiles(const ShardOptions& options) {
  std::vector<SourceFile> files;
  for (const std::string& path : ExpandGlobs(options.files)) {
    struct stat status {};
    TERN_CHECK_INPUT(::stat(path.c_str(), &status) == 0, "cannot read ", path, ": ",
                     std::strerror(errno));
    files.push_back(
        {path, status.st_size, status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec});
  }
  TERN_CHECK_INPUT(!files.empty(), "no file to read; name at least one");
  return files;
}

std::string MadeFrom(const std::vector<SourceFile>& files, const ShardOptions& options) {
  nlohmann::ordered_json json = {
      {"text_field", options.text_field},
      {"format", options.format ? RecordFormatName(*options.format) : "auto"},
      {"validation_fraction", options.validation_fraction},
      {"seed", options.seed},
      {"shard_tokens", options.shard_tokens},
      {"files", nlohmann::ordered_json::array()}};
  const InstructionOptions& instruction = options.instruction;
  if (instruction.kind != RecordKind::kText) {  // Else as manifests have always been
    json["record"] = {{"kind", RecordKindName(instruction.kind)},
                      {"labels", !instruction.prompts_count},
                      {"messages_field", instruction.messages_field},
                      {"prompt_field", instruction.prompt_field},
                      {"completion_field", instruction.completion_field}};
    if (instruction.chat) json["record"]["chat_template"] = Sha256Hex(instruction.chat->source());
  }
  for (const SourceFile& file : files) {
    json["files"].push_back(
        {{"path", file.path}, {"size_bytes", file.size_bytes}, {"changed_ns", file.changed_ns}});
  }
  return json.dump();
}

bool HasLabels(const std::string& made_from) {
  const auto json = nlohmann::ordered_json::parse(made_from);
  return json.contains("record") && json["record"].value("labels", false);
}

// The first member that differs between two made_from, for a message.
std::string Difference(const std::string& before, const std::string& now) {
  const auto a = nlohmann::ordered_json::parse(before), b = nlohmann::ordered_json::parse(now);
  for (const auto& [key, value] : b.items()) {
    if (key != "files" && a.value(key, nlohmann::ordered_json()) != value)
      return StrCat(key, " was ", a.value(key, nlohmann::ordered_json()).dump(), ", now ",
                    value.dump());
  }
  const auto none = nlohmann::ordered_json::array();
  const auto old_files = a.value("files", none), new_files = b.value("files", none);
  for (size_t i = 0; i < std::max(old_files.size(), new_files.size()); ++i) {
    if (i >= old_files.size()) return StrCat("the file ", new_files[i].dump(), " is new");
    if (i >= new_files.size()) return StrCat("the file ", old_files[i].dump(), " is gone");
    if (old_files[i] != new_files[i])
      return StrCat("file ", i, " was ", old_files[i].dump(), ", now ", new_files[i].dump());
  }
  return "the manifest was written by another version";
}

// Batches of records, file after file, from a position on.
class Reader {
 public:
  Reader(const std::vector<SourceFile>& files, const ShardOptions& options, ShardPosition start)
      : files_(files), options_(options), at_(start) {
    for (int64_t i = 0; i < start.file; ++i) bytes_before_ += File(i).size_bytes;
  }

  bool Next(RecordBatch* batch) {
    while (at_.file < static_cast<int64_t>(files_.size())) {
      if (!file_) Open();
      *batch = {{}, at_.file, at_.records, file_->path(), file_->format()};
      int64_t bytes = 0;
      Record record;
      while (bytes < kBatchBytes && static_cast<int64_t>(batch->records.size()) < kBatchRecords &&
             file_->Next(&record)) {
        bytes += static_cast<int64_t>(record.text.size());
        batch->records.push_back(std::move(record));
      }
      at_.records += static_cast<int64_t>(batch->records.size());
      if (!batch->records.empty()) return true;
      bytes_before_ += File(at_.file).size_bytes;
      at_ = {at_.file + 1, 0};
      file_.reset();
    }
    return false;
  }

  int64_t bytes_read() const { return bytes_before_ + (file_ ? file_->bytes_read() : 0); }

 private:
  const SourceFile& File(int64_t index) const { return files_[static_cast<size_t>(index)]; }
  void Open() {
    RecordOptions options;
    options.format = options_.format;
    options.columns = {options_.text_field};
    options.check = false;  // The encoding threads do.
    file_.emplace(File(at_.file).path, options);
    file_->Skip(at_.records);
  }

  const std::vector<SourceFile>& files_;
  const ShardOptions& options_;
  ShardPosition at_;
  std::optional<RecordFile> file_;
  int64_t bytes_before_ = 0;
};

// The shard that is being written. Files of a split are there once it has a document.
class Writer {
 public:
  Writer(std::string folder, int64_t shard_tokens, ShardManifest* manifest)
      : folder_(std::move(folder)), shard_tokens_(shard_tokens), manifest_(manifest) {}

  void Add(const EncodedDocument& document, ShardPosition end) {
    shard_.end = end;
    if (document.tokens.empty()) {
      ++shard_.empty_records;
      return;
    }
    const auto split = static_cast<size_t>(document.split);
    if (!writers_[split]) Open(document.split);
    const auto count = static_cast<int64_t>(document.tokens.size());
    writers_[split]->AddDocument(document.tokens.data(), count);
    if (labels_[split]) {
      TERN_CHECK(document.labels.size() == document.tokens.size(), document.labels.size(),
                 " labels of ", count);
      const std::vector<int32_t> labels(document.labels.begin(), document.labels.end());
      labels_[split]->AddDocument(labels.data(), count);
    }
    ShardSplit& part = shard_.splits[split];
    part.tokens += count;
    part.documents += 1;
    part.text_bytes += document.text_bytes;
    tokens_ += count;
    if (tokens_ >= shard_tokens_) Finish(false);
  }

  // `complete`: all is read. A shard of nothing but empty records is kept only then.
  void Finish(bool complete) {
    for (auto* writers : {&labels_, &writers_}) {
      for (auto& writer : *writers) {
        if (writer) writer->Commit();
        writer.reset();
      }
    }
    if (tokens_ > 0 || shard_.empty_records > 0) manifest_->shards.push_back(shard_);
    manifest_->complete = complete;
    manifest_->Write(folder_);
    shard_ = {};
    tokens_ = 0;
  }

 private:
  void Open(Split split) {
    const auto index = static_cast<int64_t>(manifest_->shards.size());
    const std::string prefix = folder_ + "/" + ShardName(index, split);
    const auto i = static_cast<size_t>(split);
    writers_[i] = std::make_unique<MegatronWriter>(prefix, manifest_->vocab_size);
    if (HasLabels(manifest_->made_from))
      labels_[i] = std::make_unique<MegatronWriter>(prefix + kLabels, kLabelKinds);
  }

  const std::string folder_;
  const int64_t shard_tokens_;
  ShardManifest* manifest_;
  Shard shard_;
  std::array<std::unique_ptr<MegatronWriter>, 2> writers_, labels_;
  int64_t tokens_ = 0;
};

void WriteBatch(const EncodedBatch& batch, Writer* writer) {
  int64_t records = batch.records_before;
  for (const EncodedDocument& document : batch.documents)
    writer->Add(document, {batch.file, ++records});
}

ShardManifest StartOrGoOn(const std::string& folder, const std::string& made_from,
                          const text::Tokenizer& tokenizer) {
  if (!fs::exists(ShardManifest::PathIn(folder))) {
    ShardManifest fresh;
    fresh.made_from = made_from;
    fresh.tokenizer_sha256 = tokenizer.sha256();
    fresh.vocab_size = tokenizer.vocab_size();
    return fresh;
  }
  ShardManifest manifest = ShardManifest::Read(folder);
  const char* way_out = ". Remove the folder to make the shards again, or name another one";
  TERN_CHECK_INPUT(manifest.tokenizer_sha256 == tokenizer.sha256(), folder,
                   " holds shards of the tokenizer ", manifest.tokenizer_sha256, ", this run has ",
                   tokenizer.sha256(), way_out);
  TERN_CHECK_INPUT(manifest.made_from == made_from, folder,
                   " holds shards of other texts: ", Difference(manifest.made_from, made_from),
                   way_out);
  return manifest;
}

ShardTotals TotalsOf(const ShardManifest& manifest, int64_t shards_before) {
  ShardTotals totals;
  for (const Shard& shard : manifest.shards) {
    const auto& [train, validation] = shard.splits;
    totals.train_tokens += train.tokens;
    totals.train_documents += train.documents;
    totals.validation_tokens += validation.tokens;
    totals.validation_documents += validation.documents;
    totals.empty_records += shard.empty_records;
  }
  totals.shards = static_cast<int64_t>(manifest.shards.size());
  totals.shards_before = shards_before;
  return totals;
}

void Tokenize(const std::string& folder, const std::vector<SourceFile>& files,
              const ShardOptions& options, const text::Tokenizer& tokenizer,
              ShardManifest* manifest) {
  const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  EncodePool pool(tokenizer,
                  {options.text_field, options.validation_fraction, options.seed,
                   options.threads > 0 ? options.threads : processors, options.instruction});
  Reader reader(files, options,
                manifest->shards.empty() ? ShardPosition{} : manifest->shards.back().end);
  Writer writer(folder, options.shard_tokens, manifest);
  int64_t total = 0;
  for (const SourceFile& file : files) total += file.size_bytes;
  ProgressLine::Options line;
  line.total = total;
  line.start = reader.bytes_read();
  ProgressLine progress("tokenize", "B", line);
  bool more = true;
  while (more || pool.pending() > 0) {
    if (StopRequested()) {
      throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()), " with ",
                                manifest->shards.size(), " shards done in ", folder,
                                "; run again to go on"));
    }
    RecordBatch batch;
    if (more && pool.pending() < pool.capacity()) {
      more = reader.Next(&batch);
      if (more) pool.Give(std::move(batch));
      continue;
    }
    WriteBatch(pool.Take(), &writer);
    progress.Update(reader.bytes_read(), StrCat(manifest->shards.size(), " shards"));
  }
  writer.Finish(true);
  progress.Finish();
}

// Tokens with labels in a file of their own.
class LabelledShard : public TokenSource {
 public:
  LabelledShard(std::unique_ptr<TokenSource> tokens, std::unique_ptr<TokenSource> labels)
      : tokens_(std::move(tokens)), labels_(std::move(labels)) {}
  int64_t NumTokens(Split split) const override { return tokens_->NumTokens(split); }
  void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const override {
    tokens_->Copy(split, begin, count, out);
  }
  void CopyLabels(Split split, int64_t begin, int64_t count, uint8_t* out) const override {
    std::vector<int32_t> labels(static_cast<size_t>(count));
    labels_->Copy(split, begin, count, labels.data());
    std::copy(labels.begin(), labels.end(), out);
  }
  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override {
    return tokens_->DocumentsIn(split, begin, end);
  }
  int64_t TextBytes(Split split) const override { return tokens_->TextBytes(split); }

 private:
  std::unique_ptr<TokenSource> tokens_, labels_;
};

// Throws FormatError when there are not as many labels as tokens.
std::unique_ptr<TokenSource> WithLabels(std::unique_ptr<TokenSource> tokens,
                                        const std::string& prefix, Split split) {
  auto labels = OpenMegatron(prefix + kLabels, split, kLabelKinds);
  TERN_CHECK_FORMAT(labels->NumTokens(split) == tokens->NumTokens(split), prefix, kLabels, " has ",
                    labels->NumTokens(split), " labels; the tokens are ", tokens->NumTokens(split));
  return std::make_unique<LabelledShard>(std::move(tokens), std::move(labels));
}

// A source that knows how many bytes of text are behind it.
class ShardedText : public TokenSource {
 public:
  ShardedText(std::unique_ptr<TokenSource> tokens, std::array<int64_t, 2> text_bytes)
      : tokens_(std::move(tokens)), text_bytes_(text_bytes) {}
  int64_t NumTokens(Split split) const override { return tokens_->NumTokens(split); }
  void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const override {
    tokens_->Copy(split, begin, count, out);
  }
  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override {
    return tokens_->DocumentsIn(split, begin, end);
  }
  void CopyLabels(Split split, int64_t begin, int64_t count, uint8_t* out) const override {
    tokens_->CopyLabels(split, begin, count, out);
  }
  int64_t TextBytes(Split split) const override { return text_bytes_[static_cast<size_t>(split)]; }

 private:
  std::unique_ptr<TokenSource> tokens_;
  std::array<int64_t, 2> text_bytes_;
};

}  // namespace

ShardTotals MakeShards(const std::string& folder, const ShardOptions& options,
                       const text::Tokenizer& tokenizer) {
  TERN_CHECK(options.shard_tokens > 0, options.shard_tokens, " tokens a shard");
  const std::vector<SourceFile> files = FindFiles(options);
  MakeFolders(folder);
  const FileLock lock(folder + "/.lock");
  RemoveUnfinishedFiles(folder);
  ShardManifest manifest = StartOrGoOn(folder, MadeFrom(files, options), tokenizer);
  const auto before = static_cast<int64_t>(manifest.shards.size());
  if (!manifest.complete) Tokenize(folder, files, options, tokenizer, &manifest);
  const ShardTotals totals = TotalsOf(manifest, before);
  TERN_CHECK_INPUT(totals.train_documents + totals.validation_documents > 0, "no document in the ",
                   files.size(), " files from ", files.front().path, " to ", files.back().path,
                   " (", totals.empty_records, " records without text)");
  return totals;
}

std::unique_ptr<TokenSource> OpenShards(const std::string& folder,
                                        const text::Tokenizer& tokenizer) {
  const ShardManifest manifest = ShardManifest::Read(folder);
  TERN_CHECK_FORMAT(manifest.complete, folder,
                    ": the shards are not all made; run the prepare stage again to go on");
  TERN_CHECK_FORMAT(manifest.tokenizer_sha256 == tokenizer.sha256(), folder,
                    " was made with the tokenizer ", manifest.tokenizer_sha256, ", this run has ",
                    tokenizer.sha256());
  std::vector<std::unique_ptr<TokenSource>> sources;
  std::array<int64_t, 2> text_bytes{};
  for (size_t i = 0; i < manifest.shards.size(); ++i) {
    for (const Split split : kSplits) {
      const ShardSplit& part = manifest.shards[i].splits[static_cast<size_t>(split)];
      if (part.documents == 0) continue;
      const std::string prefix = StrCat(folder, "/", ShardName(static_cast<int64_t>(i), split));
      sources.push_back(OpenMegatron(prefix, split, tokenizer.vocab_size()));
      TERN_CHECK_FORMAT(sources.back()->NumTokens(split) == part.tokens, prefix, " has ",
                        sources.back()->NumTokens(split), " tokens; the manifest tells of ",
                        part.tokens);
      if (HasLabels(manifest.made_from))
        sources.back() = WithLabels(std::move(sources.back()), prefix, split);
      text_bytes[static_cast<size_t>(split)] += part.text_bytes;
    }
  }
  return std::make_unique<ShardedText>(JoinSources(std::move(sources)), text_bytes);
}

}  // namespace tern::data
