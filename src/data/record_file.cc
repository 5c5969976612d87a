// See record_file.h.
#include "data/record_file.h"

#include "base/error.h"
#include "base/utf8.h"
#include "data/record_json.h"
#include "data/record_streams.h"

namespace tern::data {
namespace {

struct Ending {
  const char* text;
  RecordFormat format;
};
constexpr Ending kEndings[] = {{".txt", RecordFormat::kText},
                               {".jsonl", RecordFormat::kJsonl},
                               {".ndjson", RecordFormat::kJsonl},
                               {".json", RecordFormat::kJson},
                               {".parquet", RecordFormat::kParquet}};

RecordFormat FormatFor(const std::string& path, const RecordOptions& options) {
  TERN_CHECK_INPUT(!path.ends_with(".gz"), path,
                   " is packed by gzip, which is not read; unpack it, or pack it with zstd (.zst)");
  const std::optional<RecordFormat> format = options.format ? options.format : RecordFormatOf(path);
  TERN_CHECK_INPUT(format.has_value(), path,
                   ": the name does not say what the file is; want .txt, .jsonl, .ndjson or .json "
                   "(each also with .zst) or .parquet, or the format by name");
  TERN_CHECK_INPUT(*format != RecordFormat::kParquet || !path.ends_with(".zst"), path,
                   " is Parquet in zstd; unpack it (Parquet has its own compression)");
  return *format;
}

}  // namespace

const char* RecordFormatName(RecordFormat format) {
  switch (format) {
    case RecordFormat::kText:
      return "text";
    case RecordFormat::kJsonl:
      return "jsonl";
    case RecordFormat::kJson:
      return "json";
    case RecordFormat::kParquet:
      return "parquet";
  }
  __builtin_unreachable();
}

std::optional<RecordFormat> RecordFormatOf(const std::string& path) {
  std::string name = path;
  if (name.ends_with(".zst")) name.resize(name.size() - 4);
  for (const Ending& ending : kEndings) {
    if (name.ends_with(ending.text)) return ending.format;
  }
  return std::nullopt;
}

struct RecordFile::Impl {
  std::string path;
  RecordOptions options;
  RecordFormat format;
  std::unique_ptr<RecordStream> stream;
  int64_t records = 0;  // Given or passed over

  void Count(int64_t count) {
    records += count;
    TERN_CHECK_FORMAT(records <= options.max_records, path, ": more than ", options.max_records,
                      " records");
  }
};

RecordFile::RecordFile(const std::string& path, RecordOptions options)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->options = std::move(options);
  impl_->format = FormatFor(path, impl_->options);
  impl_->stream = impl_->format == RecordFormat::kParquet
                      ? OpenParquetRecords(path, impl_->options)
                      : OpenTextRecords(path, impl_->format, impl_->options);
}
RecordFile::RecordFile(RecordFile&&) noexcept = default;
RecordFile::~RecordFile() = default;

bool RecordFile::Next(Record* record) {
  if (!impl_->stream->Next(record)) return false;
  impl_->Count(1);
  if (!impl_->options.check) return true;
  if (impl_->format == RecordFormat::kText) {
    CheckText(record->text, impl_->path);
  } else {
    ParseRecord(record->text, nullptr, impl_->options.max_depth, Where(record->number));
  }
  return true;
}

void RecordFile::Skip(int64_t count) {
  const int64_t skipped = impl_->stream->Skip(count);
  impl_->Count(skipped);
  TERN_CHECK_FORMAT(skipped == count, impl_->path, " has ", impl_->records, " records; at least ",
                    impl_->records - skipped + count, " are wanted");
}

RecordFormat RecordFile::format() const { return impl_->format; }
const std::string& RecordFile::path() const { return impl_->path; }
int64_t RecordFile::bytes_read() const { return impl_->stream->bytes_read(); }
std::string RecordFile::Where(int64_t number) const {
  return WhereIn(impl_->path, impl_->format, number);
}

std::string TextOf(const std::string& record, RecordFormat format, const std::string& field,
                   const RecordOptions& options, const std::string& where) {
  std::string text = format == RecordFormat::kText
                         ? record
                         : ParseRecord(record, &field, options.max_depth, where);
  CheckText(text, where);
  return text;
}

}  // namespace tern::data
