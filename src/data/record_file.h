// Records of dataset files, one after the other, in constant memory: JSONL (.jsonl, .ndjson), JSON
// (.json: an array of objects, or objects one after the other), Parquet (.parquet) and plain text
// (.txt: the file is one record); all but Parquet also as .zst. Files are not trusted: lengths,
// nesting, inflation and zstd's window have limits, and an error names file and line (or row). Does
// not interpret records beyond "a JSON object"; no repair, no schema.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tern::data {

enum class RecordFormat { kText, kJsonl, kJson, kParquet };
const char* RecordFormatName(RecordFormat format);  // "text", "jsonl", "json", "parquet"
// By the file's name; nothing for another ending. A last ".zst" is looked through.
std::optional<RecordFormat> RecordFormatOf(const std::string& path);

struct RecordOptions {
  std::optional<RecordFormat> format;           // Absent: by the file's name
  std::vector<std::string> columns;             // Parquet: read only these; empty: all
  int64_t max_record_bytes = int64_t{1} << 28;  // Of one record, as JSON or plain text
  int max_depth = 32;                           // Nesting of arrays and objects
  int64_t max_records = INT64_MAX;              // A file with more is refused
  // False: records of JSONL come as the line has them, for a caller whose threads check (TextOf).
  bool check = true;
};

struct Record {
  std::string text;    // JSON object; of plain text: the file itself
  int64_t number = 0;  // Line (JSONL), object (JSON) or row (Parquet), from 1
};

class RecordFile {
 public:
  // Throws InputError for a file that cannot be read or whose format is not known, ResourceError
  // when this build cannot read Parquet.
  explicit RecordFile(const std::string& path, RecordOptions options = {});
  RecordFile(RecordFile&&) noexcept;
  ~RecordFile();

  // The next record, or false at the end. Throws FormatError with Where(): not JSON, not an object,
  // not UTF-8, beyond a limit, a damaged or truncated file. Blank lines are no records.
  bool Next(Record* record);
  // Passes over `count` records (cheaper than reading them). Throws FormatError when there are
  // fewer.
  void Skip(int64_t count);

  RecordFormat format() const;
  const std::string& path() const;
  // Bytes of the file behind the reader, for progress; at the end the file's size.
  int64_t bytes_read() const;
  // "corpus.jsonl:12", "a.parquet: row 7".
  std::string Where(int64_t number) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The string under the key `field` of a JSON object; of plain text the text itself. `where` stands
// for the record in messages. Checks the whole record: JSON of at most options.max_depth levels, an
// object, `field` once, UTF-8 without NUL. Throws FormatError; InputError with the keys that are
// there when `field` is absent or no string.
std::string TextOf(const std::string& record, RecordFormat format, const std::string& field,
                   const RecordOptions& options, const std::string& where);

}  // namespace tern::data
