// See import.h. The importer of each task is one line in one table; what they make of a record is
// in import_records.cc.
#include "tasks/import.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "data/record_file.h"
#include "formats/strict_json.h"
#include "tasks/import_records.h"

namespace tern::tasks {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kMaxCsvRow = size_t{1} << 20;

bool IsCsv(const std::string& path) { return fs::path(path).extension() == ".csv"; }

std::vector<std::string> FilesOf(const std::string& source) {
  if (!fs::is_directory(source)) return {source};
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(source)) {
    const std::string path = entry.path().string();
    if (entry.is_regular_file() && (IsCsv(path) || data::RecordFormatOf(path)))
      files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  TERN_CHECK_INPUT(!files.empty(), source, " has no dataset file (.jsonl, .json, .parquet, .csv)");
  return files;
}

// MMLU's own CSV: question, four choices, letter; the subject is the file's name without "_test".
void ReadCsv(const std::string& path,
             const std::function<void(const json&, const std::string&)>& add) {
  std::string subject = fs::path(path).stem().string();
  for (const char* split : {"_test", "_dev", "_val"}) {
    const size_t at = subject.rfind(split);
    if (at != subject.npos && at + std::string_view(split).size() == subject.size())
      subject.resize(at);
  }
  for (const CsvRow& row : ParseCsv(ReadFile(path), path)) {
    const std::string where = StrCat(path, ":", row.line);
    TERN_CHECK_FORMAT(row.fields.size() == 6, where, ": ", row.fields.size(),
                      " fields; want 6: question, four choices, letter");
    const std::vector<std::string> choices(row.fields.begin() + 1, row.fields.begin() + 5);
    add({{"question", row.fields[0]},
         {"choices", choices},
         {"answer", row.fields[5]},
         {"subject", subject}},
        where);
  }
}

void ReadRecords(const std::string& path,
                 const std::function<void(const json&, const std::string&)>& add) {
  data::RecordOptions options;
  options.max_record_bytes = kMaxItemBytes;
  data::RecordFile file(path, options);
  TERN_CHECK_INPUT(file.format() != data::RecordFormat::kText, path,
                   " is a plain text; want .jsonl, .json or .parquet");
  data::Record record;
  while (file.Next(&record)) {
    const std::string where = file.Where(record.number);
    add(formats::ParseStrictJson(record.text, where), where);
  }
}

}  // namespace

std::vector<CsvRow> ParseCsv(std::string_view text, const std::string& path) {
  CheckText(text, path);
  std::vector<CsvRow> rows;
  int64_t line = 1;
  for (size_t at = 0; at < text.size();) {
    CsvRow row{{""}, line};
    const size_t begin = at;
    bool ended = false;
    while (!ended && at < text.size()) {
      if (text[at] == '"' && row.fields.back().empty()) {
        // Quoted: to the quote that is not doubled.
        for (++at;; ++at) {
          TERN_CHECK_FORMAT(at < text.size(), path, ":", row.line, ": a quote that is not closed");
          if (text[at] == '"' && (at + 1 == text.size() || text[at + 1] != '"')) break;
          if (text[at] == '"') ++at;
          line += text[at] == '\n';
          row.fields.back() += text[at];
        }
        ++at;
        TERN_CHECK_FORMAT(
            at == text.size() || text[at] == ',' || text[at] == '\n' || text[at] == '\r', path, ":",
            line, ": text after a closing quote");
      } else if (text[at] == ',') {
        row.fields.emplace_back();
        ++at;
      } else if (text[at] == '\n' || text.substr(at, 2) == "\r\n") {
        at += text[at] == '\n' ? 1 : 2;
        ++line;
        ended = true;
      } else {
        row.fields.back() += text[at++];
      }
      TERN_CHECK_FORMAT(at - begin <= kMaxCsvRow, path, ":", row.line, ": a row of more than ",
                        kMaxCsvRow, " bytes");
    }
    if (row.fields.size() > 1 || !row.fields[0].empty()) rows.push_back(std::move(row));
  }
  return rows;
}

int64_t ImportTask(const std::string& task, const std::string& source, const std::string& output) {
  const Importer& importer = ImporterOf(task);
  AtomicFile file(output);
  int64_t count = 0;
  const auto add = [&](const json& record, const std::string& where) {
    TERN_CHECK_INPUT(++count <= kMaxItems, source, " has more than ", kMaxItems, " questions");
    const std::string line =
        TaskLine(importer.kind, importer.convert(RecordFields(record, where))) + "\n";
    file.Write(line.data(), line.size());
  };
  for (const std::string& path : FilesOf(source)) {
    TERN_CHECK_INPUT(!IsCsv(path) || task == "mmlu", path, ": only mmlu is read from CSV");
    if (IsCsv(path))
      ReadCsv(path, add);
    else
      ReadRecords(path, add);
  }
  TERN_CHECK_INPUT(count > 0, source, " has no records");
  file.Commit();
  return count;
}

}  // namespace tern::tasks
