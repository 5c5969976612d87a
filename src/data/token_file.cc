// See token_file.h. Layout: docs/formats/tokens.md.
#include "data/token_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "h5/h5.h"

namespace tern::data {
namespace {

constexpr int64_t kMaxU16Vocab = 65536;

struct SplitData {
  std::vector<uint16_t> narrow;  // One of the two is in use
  std::vector<uint32_t> wide;
  std::vector<int64_t> documents;
  int64_t text_bytes = 0;

  int64_t size() const { return static_cast<int64_t>(std::max(narrow.size(), wide.size())); }
};

std::string TokensName(Split split) { return StrCat("/", SplitName(split), "/tokens"); }
std::string DocumentsName(Split split) { return StrCat("/", SplitName(split), "/documents"); }

// The split's documents as one list: written in one go, because growing a dataset by many small
// documents would read and write its last chunk again for each of them.
template <class T>
void WriteTokens(h5::File& file, Split split, h5::Type type, const std::vector<Document>& documents,
                 const text::Tokenizer& tokenizer) {
  std::vector<T> tokens;
  std::vector<int64_t> offsets;
  int64_t text_bytes = 0;
  for (const Document& document : documents) {
    const std::vector<int32_t> ids = DocumentTokens(document.text, tokenizer);
    offsets.push_back(static_cast<int64_t>(tokens.size()));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    text_bytes += static_cast<int64_t>(document.text.size());
  }
  file.Write(TokensName(split), type, {static_cast<int64_t>(tokens.size())}, tokens.data());
  file.Write(DocumentsName(split), h5::Type::kI64, {static_cast<int64_t>(offsets.size())},
             offsets.data());
  file.SetAttribute(StrCat("/", SplitName(split)), "text_bytes", text_bytes);
}

void WriteSplit(h5::File& file, Split split, const std::vector<Document>& documents,
                const text::Tokenizer& tokenizer) {
  if (tokenizer.vocab_size() <= kMaxU16Vocab) {
    WriteTokens<uint16_t>(file, split, h5::Type::kU16, documents, tokenizer);
  } else {
    WriteTokens<uint32_t>(file, split, h5::Type::kU32, documents, tokenizer);
  }
}

std::string SourcesJson(const std::vector<Source>& sources) {
  nlohmann::json json = nlohmann::json::array();
  for (const Source& source : sources) {
    json.push_back(
        {{"path", source.path}, {"size_bytes", source.size_bytes}, {"sha256", source.sha256}});
  }
  return json.dump();
}

// Texts of any length are datasets of bytes, checksummed like all others.
void WriteText(h5::File& file, const std::string& name, const std::string& value) {
  file.Write(name, h5::Type::kU8, {static_cast<int64_t>(value.size())}, value.data());
}
std::string ReadText(const h5::File& file, const std::string& name) {
  const h5::DatasetInfo info = file.Info(name);
  TERN_CHECK_FORMAT(info.shape.size() == 1, file.path(), ": ", name, " is no text");
  std::string value(static_cast<size_t>(info.shape[0]), '\0');
  file.Read(name, h5::Type::kU8, value.data(), info.shape[0]);
  return value;
}

}  // namespace

std::vector<int32_t> DocumentTokens(const std::string& text, const text::Tokenizer& tokenizer) {
  TERN_CHECK_INPUT(tokenizer.bos_id() >= 0 || tokenizer.eos_id() >= 0,
                   "the tokenizer has neither a BOS nor an EOS piece; documents could not be told "
                   "apart");
  std::vector<int32_t> ids = tokenizer.Encode(text);
  if (tokenizer.bos_id() >= 0) ids.insert(ids.begin(), tokenizer.bos_id());
  if (tokenizer.eos_id() >= 0) ids.push_back(tokenizer.eos_id());
  return ids;
}

void WriteTokenFile(const std::string& path, const Corpus& corpus, const text::Tokenizer& tokenizer,
                    const TokenFileOptions& options) {
  const std::string beside = StrCat(path, ".tmp.", ::getpid());
  try {
    h5::File file = h5::File::Create(beside);
    WriteSplit(file, Split::kTrain, corpus.train, tokenizer);
    WriteSplit(file, Split::kValidation, corpus.validation, tokenizer);
    file.SetAttribute("/", "format_version", kTokenFileVersion);
    file.SetAttribute("/", "vocab_size", static_cast<int64_t>(tokenizer.vocab_size()));
    file.SetAttribute("/", "tokenizer_sha256", tokenizer.sha256());
    file.SetAttribute("/", "seed", options.seed);
    WriteText(file, "/sources", SourcesJson(corpus.sources));
    WriteText(file, "/recipe", options.recipe);
    file.Close();
    SyncPath(beside);
    if (std::rename(beside.c_str(), path.c_str()) != 0) {
      throw ResourceError(
          StrCat("cannot rename ", beside, " to ", path, ": ", std::strerror(errno)));
    }
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  SyncPath(folder.empty() ? "." : folder);
}

struct TokenFile::Impl {
  std::string path, tokenizer_sha256, recipe;
  int64_t vocab_size = 0, seed = 0;
  std::vector<Source> sources;
  std::array<SplitData, 2> splits;

  const SplitData& Of(Split split) const { return splits[static_cast<size_t>(split)]; }
  SplitData& Of(Split split) { return splits[static_cast<size_t>(split)]; }

  void ReadSplit(const h5::File& file, Split split) {
    SplitData& data = Of(split);
    const h5::DatasetInfo info = file.Info(TokensName(split));
    const h5::Type want = vocab_size <= kMaxU16Vocab ? h5::Type::kU16 : h5::Type::kU32;
    TERN_CHECK_FORMAT(info.shape.size() == 1 && info.type == want, path, ": ", TokensName(split),
                      " is no list of ", want == h5::Type::kU16 ? "uint16" : "uint32");
    if (want == h5::Type::kU16) {
      data.narrow.resize(static_cast<size_t>(info.shape[0]));
      file.Read(TokensName(split), want, data.narrow.data(), info.shape[0] * 2);
    } else {
      data.wide.resize(static_cast<size_t>(info.shape[0]));
      file.Read(TokensName(split), want, data.wide.data(), info.shape[0] * 4);
    }
    const h5::DatasetInfo offsets = file.Info(DocumentsName(split));
    TERN_CHECK_FORMAT(offsets.shape.size() == 1, path, ": ", DocumentsName(split), " is no list");
    data.documents.resize(static_cast<size_t>(offsets.shape[0]));
    file.Read(DocumentsName(split), h5::Type::kI64, data.documents.data(), offsets.shape[0] * 8);
    data.text_bytes = file.IntAttribute(StrCat("/", SplitName(split)), "text_bytes");
    CheckSplit(split);
  }

  void CheckSplit(Split split) const {
    const SplitData& data = Of(split);
    const auto bad = [&](const auto& ids) {
      return std::find_if(ids.begin(), ids.end(),
                          [&](auto id) { return id >= static_cast<uint64_t>(vocab_size); }) -
             ids.begin();
    };
    const int64_t at = data.narrow.empty() ? bad(data.wide) : bad(data.narrow);
    TERN_CHECK_FORMAT(at == data.size(), path, ": ", TokensName(split), ": token ", at,
                      " is not below the vocabulary of ", vocab_size);
    const auto& d = data.documents;
    const bool covers = d.empty() ? data.size() == 0
                                  : d.front() == 0 && d.back() < data.size() &&
                                        std::is_sorted(d.begin(), d.end()) &&
                                        std::adjacent_find(d.begin(), d.end()) == d.end();
    TERN_CHECK_FORMAT(covers, path, ": ", DocumentsName(split), " does not cover the tokens");
  }

  void ReadSources(const std::string& text) {
    try {
      for (const auto& source : nlohmann::json::parse(text)) {
        sources.push_back({source.at("path").get<std::string>(),
                           source.at("size_bytes").get<int64_t>(),
                           source.at("sha256").get<std::string>()});
      }
    } catch (const nlohmann::json::exception& error) {
      throw FormatError(StrCat(path, ": /sources: ", error.what()));
    }
  }
};

TokenFile::TokenFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenFile::TokenFile(TokenFile&&) noexcept = default;
TokenFile& TokenFile::operator=(TokenFile&&) noexcept = default;
TokenFile::~TokenFile() = default;

TokenFile TokenFile::Open(const std::string& path) {
  TERN_CHECK_INPUT(::access(path.c_str(), R_OK) == 0, "cannot read the token file ", path);
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  const h5::File file = h5::File::OpenForReading(path);
  TERN_CHECK_FORMAT(file.HasAttribute("/", "format_version"), path,
                    " is not a token file: no format_version");
  const int64_t version = file.IntAttribute("/", "format_version");
  TERN_CHECK_FORMAT(version == kTokenFileVersion, path, " has format version ", version,
                    "; this version reads ", kTokenFileVersion);
  impl->vocab_size = file.IntAttribute("/", "vocab_size");
  TERN_CHECK_FORMAT(impl->vocab_size > 0, path, ": vocab_size is ", impl->vocab_size);
  impl->tokenizer_sha256 = file.StringAttribute("/", "tokenizer_sha256");
  impl->seed = file.IntAttribute("/", "seed");
  impl->ReadSources(ReadText(file, "/sources"));
  impl->recipe = ReadText(file, "/recipe");
  for (const Split split : kSplits) impl->ReadSplit(file, split);
  return TokenFile(std::move(impl));
}

TokenFile TokenFile::Open(const std::string& path, const text::Tokenizer& tokenizer) {
  TokenFile file = Open(path);
  TERN_CHECK_FORMAT(file.tokenizer_sha256() == tokenizer.sha256(), path,
                    " was made with the tokenizer ", file.tokenizer_sha256(), ", this run has ",
                    tokenizer.sha256(), "; make the tokens again (--restart-from prepare)");
  return file;
}

TokenFile TokenFile::FromTokens(const std::vector<std::vector<int32_t>>& train,
                                const std::vector<std::vector<int32_t>>& validation,
                                int64_t vocab_size) {
  auto impl = std::make_unique<Impl>();
  impl->path = "tokens in memory";
  impl->vocab_size = vocab_size;
  for (const Split split : kSplits) {
    SplitData& data = impl->Of(split);
    for (const auto& document : split == Split::kTrain ? train : validation) {
      data.documents.push_back(static_cast<int64_t>(data.wide.size()));
      data.wide.insert(data.wide.end(), document.begin(), document.end());
    }
    impl->CheckSplit(split);
  }
  return TokenFile(std::move(impl));
}

int64_t TokenFile::NumTokens(Split split) const { return impl_->Of(split).size(); }

void TokenFile::Copy(Split split, int64_t begin, int64_t count, int32_t* out) const {
  const SplitData& data = impl_->Of(split);
  TERN_CHECK(begin >= 0 && count >= 0 && begin <= data.size() - count, "tokens [", begin, ", ",
             begin + count, ") of ", data.size());
  if (!data.narrow.empty()) {
    std::copy_n(data.narrow.begin() + begin, count, out);
  } else {
    std::copy_n(data.wide.begin() + begin, count, out);
  }
}

std::vector<int64_t> TokenFile::DocumentsIn(Split split, int64_t begin, int64_t end) const {
  const std::vector<int64_t>& all = impl_->Of(split).documents;
  return {std::lower_bound(all.begin(), all.end(), begin),
          std::lower_bound(all.begin(), all.end(), std::max(begin, end))};
}

const std::vector<int64_t>& TokenFile::Documents(Split split) const {
  return impl_->Of(split).documents;
}
int64_t TokenFile::TextBytes(Split split) const { return impl_->Of(split).text_bytes; }
int64_t TokenFile::vocab_size() const { return impl_->vocab_size; }
const std::string& TokenFile::tokenizer_sha256() const { return impl_->tokenizer_sha256; }
const std::vector<Source>& TokenFile::sources() const { return impl_->sources; }
const std::string& TokenFile::recipe() const { return impl_->recipe; }
int64_t TokenFile::seed() const { return impl_->seed; }
const std::string& TokenFile::path() const { return impl_->path; }

}  // namespace tern::data
