// See mapped_tokens.h: what the two formats share.
#include "data/mapped_tokens.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "data/token_array.h"

namespace tern::data {
namespace {

constexpr size_t kHeaderBytes = 256 * sizeof(int32_t);

struct LlmcKind {
  int32_t magic, version;
  TokenType type;
  int32_t document_start;  // The first token of each document
};
constexpr LlmcKind kLlmcKinds[] = {{20240520, 1, TokenType::kU16, 50256},
                                   {20240801, 7, TokenType::kU32, 128000}};

class LlmcFile : public TokenSource {
 public:
  LlmcFile(const std::string& path, Split split, int64_t vocab_size) : file_(path), split_(split) {
    const auto bytes = file_.bytes();
    TERN_CHECK_FORMAT(bytes.size() >= kHeaderBytes, path, " has ", bytes.size(),
                      " bytes; the header of an llm.c file has ", kHeaderBytes);
    int32_t header[3];
    std::memcpy(header, bytes.data(), sizeof header);
    for (const LlmcKind& kind : kLlmcKinds) {
      if (kind.magic == header[0]) kind_ = &kind;
    }
    TERN_CHECK_FORMAT(kind_ != nullptr, path, " is no llm.c token file: magic ", header[0],
                      "; want ", kLlmcKinds[0].magic, " (GPT-2) or ", kLlmcKinds[1].magic,
                      " (Llama-3)");
    TERN_CHECK_FORMAT(header[1] == kind_->version, path, ": version ", header[1], "; want ",
                      kind_->version);
    const auto data = bytes.subspan(kHeaderBytes);
    const size_t width = WidthOf(kind_->type);
    TERN_CHECK_FORMAT(header[2] >= 0 && data.size() == static_cast<size_t>(header[2]) * width, path,
                      ": the header tells of ", header[2], " tokens of ", width,
                      " bytes, and the file has ", data.size(), " bytes of them");
    tokens_ = TokenArray(data, kind_->type, vocab_size, path);
  }

  int64_t NumTokens(Split split) const override { return split == split_ ? tokens_.size() : 0; }
  void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const override {
    TERN_CHECK(begin >= 0 && count >= 0 && begin <= NumTokens(split) - count, "tokens [", begin,
               ", ", begin + count, ") of ", NumTokens(split));
    tokens_.Copy(begin, count, out);
  }
  // The format has no index: the tokens are looked through.
  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override {
    std::vector<int64_t> documents;
    end = std::min(end, NumTokens(split));
    for (int64_t at = begin; at < end; ++at) {
      if (at == 0 || tokens_.At(at) == kind_->document_start) documents.push_back(at);
    }
    return documents;
  }
  int64_t TextBytes(Split) const override { return 0; }

 private:
  MappedFile file_;
  const Split split_;
  const LlmcKind* kind_ = nullptr;
  TokenArray tokens_;
};

}  // namespace

TokenArray::TokenArray(std::span<const std::byte> bytes, TokenType type, int64_t vocab_size,
                       std::string path)
    : bytes_(bytes), type_(type), vocab_size_(vocab_size), path_(std::move(path)) {
  size_ = static_cast<int64_t>(bytes.size() / WidthOf(type));
}

int64_t TokenArray::At(int64_t index) const {
  const auto load = [&]<class T>(T value) {
    std::memcpy(&value, bytes_.data() + static_cast<size_t>(index) * sizeof value, sizeof value);
    return static_cast<int64_t>(value);
  };
  switch (type_) {
    case TokenType::kU8:
      return load(uint8_t{});
    case TokenType::kU16:
      return load(uint16_t{});
    case TokenType::kI16:
      return load(int16_t{});
    case TokenType::kI32:
      return load(int32_t{});
    case TokenType::kU32:
      return load(uint32_t{});
    case TokenType::kI64:
      return load(int64_t{});
  }
  __builtin_unreachable();
}

void TokenArray::Copy(int64_t begin, int64_t count, int32_t* out) const {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t id = At(begin + i);
    TERN_CHECK_FORMAT(id >= 0 && id < vocab_size_, path_, ": token ", begin + i, " is ", id,
                      "; the vocabulary has ", vocab_size_,
                      ". Was the file made with the tokenizer of this run?");
    out[i] = static_cast<int32_t>(id);
  }
}

std::unique_ptr<TokenSource> OpenLlmc(const std::string& path, Split split, int64_t vocab_size) {
  return std::make_unique<LlmcFile>(path, split, vocab_size);
}

}  // namespace tern::data
