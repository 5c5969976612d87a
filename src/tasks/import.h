// Task files out of the files that datasets come in: JSONL, JSON, Parquet (also .zst) and, of MMLU,
// CSV. Prompts are those of lm-evaluation-harness 0.4.13, so that numbers compare. The layouts that
// are read are in docs/tasks.md; a record of another layout is an error with file and line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tern::tasks {

// `source`: a file, or a folder all of whose files of these formats are read in the order of their
// names. Writes `output` atomically and returns the number of questions. Throws UsageError (no
// importer for the task), InputError, FormatError (file:line, what was found and wanted).
int64_t ImportTask(const std::string& task, const std::string& source, const std::string& output);

// HellaSwag's text without the marks of its source: "[title]" ends a sentence, other brackets go.
std::string CleanHellaSwag(std::string_view text);

// Rows of a CSV file (RFC 4180: quotes, doubled quotes, line ends within quotes). Throws
// FormatError with file and line for an unclosed quote, text after one, more than 2^20 bytes in a
// row.
struct CsvRow {
  std::vector<std::string> fields;
  int64_t line = 0;  // Of its beginning
};
std::vector<CsvRow> ParseCsv(std::string_view text, const std::string& path);

}  // namespace tern::tasks
