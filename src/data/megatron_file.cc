// Indexed datasets of Megatron-LM (mapped_tokens.h), as its preprocess_data writes them. The .idx:
// "MMIDIDX\0\0", uint64 version 1, uint8 type, uint64 sequences S, uint64 document borders D; then
// int32 [S] tokens of each sequence, int64 [S] byte offset of each in the .bin, int64 [D] sequence
// in which each document begins, the last one S; then maybe int8 [S] modes, which are not read.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/file.h"
#include "data/mapped_tokens.h"
#include "data/token_array.h"

namespace tern::data {
namespace {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr uint64_t kVersion = 1;
constexpr size_t kHeaderBytes = sizeof kMagic + 8 + 1 + 8 + 8;
constexpr uint8_t kCodeI32 = 4, kCodeU16 = 8;
constexpr int64_t kMaxU16Vocab = 65536;
constexpr size_t kBufferBytes = size_t{1} << 20;

template <class T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

TokenType TypeOf(uint8_t code, const std::string& path) {
  switch (code) {
    case 1:
      return TokenType::kU8;
    case 3:
      return TokenType::kI16;
    case kCodeI32:
      return TokenType::kI32;
    case 5:
      return TokenType::kI64;
    case kCodeU16:
      return TokenType::kU16;
    default:
      throw FormatError(StrCat(path, ": tokens of type code ", int{code},
                               "; want 1 (uint8), 3 (int16), 4 (int32), 5 (int64) or 8 (uint16)"));
  }
}

std::string PrefixOf(const std::string& path) {
  const bool has_ending = path.ends_with(".bin") || path.ends_with(".idx");
  return has_ending ? path.substr(0, path.size() - 4) : path;
}

class MegatronFile : public TokenSource {
 public:
  MegatronFile(const std::string& prefix, Split split, int64_t vocab_size)
      : index_(prefix + ".idx"), data_(prefix + ".bin"), split_(split) {
    ReadHeader();
    tokens_ = TokenArray(data_.bytes(), type_, vocab_size, data_.path());
    CheckSequences();
    CheckDocuments();
  }

  int64_t NumTokens(Split split) const override { return split == split_ ? tokens_.size() : 0; }
  void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const override {
    TERN_CHECK(begin >= 0 && count >= 0 && begin <= NumTokens(split) - count, "tokens [", begin,
               ", ", begin + count, ") of ", NumTokens(split));
    tokens_.Copy(begin, count, out);
  }

  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override {
    std::vector<int64_t> documents;
    end = std::min(end, NumTokens(split));
    int64_t low = 0, high = borders_ - 1;  // First document that begins at `begin` or later
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (DocumentStart(middle) < begin) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    for (; low < borders_ - 1 && DocumentStart(low) < end; ++low) {
      const int64_t at = DocumentStart(low);  // Documents without tokens share theirs.
      if (documents.empty() || documents.back() != at) documents.push_back(at);
    }
    return documents;
  }
  int64_t TextBytes(Split) const override { return 0; }

 private:
  void ReadHeader() {
    const auto bytes = index_.bytes();
    const std::string& path = index_.path();
    TERN_CHECK_FORMAT(
        bytes.size() >= kHeaderBytes && std::memcmp(bytes.data(), kMagic, sizeof kMagic) == 0, path,
        " is no Megatron index: it does not begin with MMIDIDX");
    const std::byte* at = bytes.data() + sizeof kMagic;
    const auto version = Load<uint64_t>(at);
    TERN_CHECK_FORMAT(version == kVersion, path, ": version ", version, "; want ", kVersion);
    type_ = TypeOf(Load<uint8_t>(at + 8), path);
    const auto sequences = Load<uint64_t>(at + 9), borders = Load<uint64_t>(at + 17);
    // Each count is bounded by the file before sizes are computed from it.
    const uint64_t room = bytes.size() - kHeaderBytes;
    const bool fits = sequences <= room / 12 && borders <= room / 8;
    const uint64_t want = fits ? 12 * sequences + 8 * borders : 0;
    TERN_CHECK_FORMAT(fits && (room == want || room == want + sequences), path, ": ", sequences,
                      " sequences and ", borders, " document borders do not fit its ", bytes.size(),
                      " bytes; the file is cut off or damaged");
    sequences_ = static_cast<int64_t>(sequences);
    borders_ = static_cast<int64_t>(borders);
    lengths_ = bytes.data() + kHeaderBytes;
    pointers_ = lengths_ + 4 * sequences;
    documents_ = pointers_ + 8 * sequences;
  }

  int64_t Width() const { return static_cast<int64_t>(WidthOf(type_)); }

  // Sequences follow each other without gaps and fill the .bin: what makes it one stream.
  void CheckSequences() const {
    const auto size = static_cast<int64_t>(data_.bytes().size());
    int64_t expected = 0;
    for (int64_t i = 0; i < sequences_; ++i) {
      const auto length = Load<int32_t>(lengths_ + 4 * i);
      const auto pointer = Load<int64_t>(pointers_ + 8 * i);
      TERN_CHECK_FORMAT(length >= 0 && pointer == expected && length <= (size - pointer) / Width(),
                        index_.path(), ": sequence ", i, " has ", length, " tokens at byte ",
                        pointer, "; want byte ", expected, " and an end within the ", size,
                        " bytes of ", data_.path());
      expected += length * Width();
    }
    TERN_CHECK_FORMAT(expected == size, index_.path(), ": the sequences have ", expected,
                      " bytes, and ", data_.path(), " has ", size);
  }

  void CheckDocuments() const {
    bool good = borders_ > 0 && Border(0) == 0 && Border(borders_ - 1) == sequences_;
    for (int64_t i = 1; i < borders_ && good; ++i) good = Border(i - 1) <= Border(i);
    TERN_CHECK_FORMAT(good, index_.path(), ": the document borders do not rise from 0 to ",
                      sequences_, ", the number of sequences");
  }

  int64_t Border(int64_t i) const { return Load<int64_t>(documents_ + 8 * i); }
  int64_t DocumentStart(int64_t i) const {
    const int64_t sequence = Border(i);
    return sequence == sequences_ ? tokens_.size()
                                  : Load<int64_t>(pointers_ + 8 * sequence) / Width();
  }

  MappedFile index_, data_;
  const Split split_;
  TokenType type_ = TokenType::kU16;
  int64_t sequences_ = 0, borders_ = 0;
  const std::byte *lengths_ = nullptr, *pointers_ = nullptr, *documents_ = nullptr;
  TokenArray tokens_;
};

}  // namespace

std::unique_ptr<TokenSource> OpenMegatron(const std::string& path, Split split,
                                          int64_t vocab_size) {
  return std::make_unique<MegatronFile>(PrefixOf(path), split, vocab_size);
}

struct MegatronWriter::Impl {
  Impl(const std::string& prefix, int64_t vocab_size)
      : narrow(vocab_size <= kMaxU16Vocab), data(prefix + ".bin"), index(prefix + ".idx") {}
  const bool narrow;
  AtomicFile data, index;
  std::vector<int32_t> lengths;
  std::string buffer;  // Documents are short and writes are dear
  int64_t tokens = 0;

  void Flush() {
    data.Write(buffer.data(), buffer.size());
    buffer.clear();
  }
};

MegatronWriter::MegatronWriter(const std::string& prefix, int64_t vocab_size)
    : impl_(std::make_unique<Impl>(prefix, vocab_size)) {}
MegatronWriter::~MegatronWriter() = default;

void MegatronWriter::AddDocument(const int32_t* ids, int64_t count) {
  TERN_CHECK(count >= 0 && count <= INT32_MAX, count, " tokens in a document");
  const auto append = [&](const auto id) {
    impl_->buffer.append(reinterpret_cast<const char*>(&id), sizeof id);
  };
  for (int64_t i = 0; i < count; ++i) {
    impl_->narrow ? append(static_cast<uint16_t>(ids[i])) : append(ids[i]);
  }
  if (impl_->buffer.size() >= kBufferBytes) impl_->Flush();
  impl_->lengths.push_back(static_cast<int32_t>(count));
  impl_->tokens += count;
}

int64_t MegatronWriter::tokens() const { return impl_->tokens; }
int64_t MegatronWriter::documents() const { return static_cast<int64_t>(impl_->lengths.size()); }

void MegatronWriter::Commit() {
  impl_->Flush();
  const std::vector<int32_t>& lengths = impl_->lengths;
  const int64_t width = impl_->narrow ? 2 : 4;
  std::string index(kMagic, sizeof kMagic);
  const auto add = [&](const auto value) {
    index.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  add(kVersion);
  add(impl_->narrow ? kCodeU16 : kCodeI32);
  add(static_cast<uint64_t>(lengths.size()));
  add(static_cast<uint64_t>(lengths.size() + 1));
  for (const int32_t length : lengths) add(length);
  int64_t at = 0;
  for (const int32_t length : lengths) {
    add(at);
    at += length * width;
  }
  for (size_t i = 0; i <= lengths.size(); ++i) add(static_cast<int64_t>(i));
  impl_->index.Write(index.data(), index.size());
  impl_->data.Commit();
  impl_->index.Commit();
}

}  // namespace tern::data
