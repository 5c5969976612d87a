// See record_streams.h: plain text, lines, and objects by counting braces outside of strings.
#include "data/record_streams.h"

#include <cstring>
#include <vector>

#include "base/error.h"
#include "data/byte_stream.h"

namespace tern::data {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr const char* kBlanks = " \t\r\n";
constexpr const char* kByteOrderMark = "\xEF\xBB\xBF";

// A buffer over the stream, with the mark that some editors put first taken off.
class TextStream : public RecordStream {
 public:
  TextStream(const std::string& path, RecordFormat format, const RecordOptions& options)
      : path_(path), format_(format), limit_(options.max_record_bytes), bytes_(path) {
    Fill();
    if (buffer_.size() >= 3 && std::memcmp(buffer_.data(), kByteOrderMark, 3) == 0) at_ = 3;
  }
  int64_t bytes_read() const override { return bytes_.bytes_read(); }

 protected:
  // More bytes, what is left being kept; false at the end. One full buffer or the end: a short read
  // is no end.
  bool Fill() {
    buffer_.resize(kBufferBytes);
    size_t filled = 0;
    while (filled < kBufferBytes) {
      const size_t count = bytes_.Read(buffer_.data() + filled, kBufferBytes - filled);
      if (count == 0) break;
      filled += count;
    }
    buffer_.resize(filled);
    at_ = 0;
    return filled > 0;
  }
  bool Empty() const { return at_ == buffer_.size(); }
  void Append(size_t end, std::string* text) {
    const auto size = static_cast<int64_t>(text->size() + (end - at_));
    TERN_CHECK_FORMAT(size <= limit_, WhereIn(path_, format_, number_), ": more than ", limit_,
                      " bytes; want records up to that",
                      format_ == RecordFormat::kText ? " (split the file, or use JSONL)" : "");
    text->append(buffer_.data() + at_, end - at_);
    at_ = end;
  }

  const std::string path_;
  const RecordFormat format_;
  const int64_t limit_;
  ByteStream bytes_;
  std::vector<char> buffer_;
  size_t at_ = 0;
  int64_t number_ = 0;  // Of the record or line that is being read
};

class WholeText : public TextStream {
 public:
  using TextStream::TextStream;
  bool Next(Record* record) override {
    if (number_++ > 0) return false;
    record->text.clear();
    record->number = 1;
    do Append(buffer_.size(), &record->text);
    while (Fill());
    return true;
  }
};

class Lines : public TextStream {
 public:
  using TextStream::TextStream;
  bool Next(Record* record) override {
    std::string& text = record->text;
    do {
      text.clear();
      if (!ReadLine(&text)) return false;
    } while (text.find_first_not_of(kBlanks) == std::string::npos);
    record->number = number_;
    return true;
  }

 private:
  // False at the end of the file; the last line need not end.
  bool ReadLine(std::string* text) {
    if (Empty() && !Fill()) return false;
    ++number_;
    for (;;) {
      const char* begin = buffer_.data() + at_;
      const void* found = std::memchr(begin, '\n', buffer_.size() - at_);
      if (found != nullptr) {
        Append(at_ + static_cast<size_t>(static_cast<const char*>(found) - begin), text);
        ++at_;
        return true;
      }
      Append(buffer_.size(), text);
      if (!Fill()) return true;
    }
  }
};

// "[{...}, {...}]", or objects with blanks between them, as many .json files are.
class Objects : public TextStream {
 public:
  using TextStream::TextStream;
  bool Next(Record* record) override {
    if (ended_) return false;
    char next = Peek();
    if (number_ == 0 && next == '[') {
      in_array_ = true;
      ++at_;
      next = Peek();
      if (next == ']') return End();
    } else if (number_ > 0 && in_array_) {
      if (next == ']') return End();
      Want(next == ',', "a comma or ]");
      ++at_;
      next = Peek();
    } else if (next == '\0' && Empty()) {
      ended_ = true;
      return false;
    }
    ++number_;
    Want(next == '{', "an object");
    record->text.clear();
    record->number = number_;
    ReadObject(&record->text);
    return true;
  }

 private:
  void Want(bool met, const char* what) {
    TERN_CHECK_FORMAT(met, WhereIn(path_, format_, number_), ": ",
                      Empty() ? "the file ends" : "found another character", " where ", what,
                      " is wanted");
  }
  // The next character that is no blank, not taken; NUL at the end.
  char Peek() {
    for (;;) {
      while (!Empty() && std::strchr(kBlanks, buffer_[at_]) != nullptr && buffer_[at_] != '\0')
        ++at_;
      if (!Empty()) return buffer_[at_];
      if (!Fill()) return '\0';
    }
  }
  bool End() {
    ++at_;
    ended_ = true;
    Want(Peek() == '\0' && Empty(), "the end of the file");
    return false;
  }
  // From { to its }. What is between is checked by the parser later.
  void ReadObject(std::string* text) {
    int64_t depth = 0;
    bool in_string = false, escaped = false;
    for (;;) {
      for (size_t i = at_; i < buffer_.size(); ++i) {
        const char c = buffer_[i];
        if (in_string) {
          in_string = escaped || c != '"';
          escaped = !escaped && c == '\\';
        } else if (c == '"') {
          in_string = true;
        } else if (c == '{' || c == '[') {
          ++depth;
        } else if ((c == '}' || c == ']') && --depth == 0) {
          return Append(i + 1, text);
        }
      }
      Append(buffer_.size(), text);
      if (!Fill()) Want(false, "the end of an object");
    }
  }

  bool in_array_ = false, ended_ = false;
};

}  // namespace

int64_t RecordStream::Skip(int64_t count) {
  Record record;
  int64_t skipped = 0;
  while (skipped < count && Next(&record)) ++skipped;
  return skipped;
}

std::string WhereIn(const std::string& path, RecordFormat format, int64_t number) {
  switch (format) {
    case RecordFormat::kText:
      return path;
    case RecordFormat::kJsonl:
      return StrCat(path, ":", number);
    case RecordFormat::kJson:
      return StrCat(path, ": object ", number);
    case RecordFormat::kParquet:
      return StrCat(path, ": row ", number);
  }
  __builtin_unreachable();
}

std::unique_ptr<RecordStream> OpenTextRecords(const std::string& path, RecordFormat format,
                                              const RecordOptions& options) {
  if (format == RecordFormat::kText) return std::make_unique<WholeText>(path, format, options);
  if (format == RecordFormat::kJsonl) return std::make_unique<Lines>(path, format, options);
  return std::make_unique<Objects>(path, format, options);
}

}  // namespace tern::data
