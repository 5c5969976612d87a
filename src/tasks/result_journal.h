// Results of single questions as they come, in a file that only grows, so that an evaluation that
// was killed goes on where it was. A result is found by the hash of all that it depends on (model,
// task file, protocol), so a journal never gives a result of another evaluation. Numbers are kept
// exactly.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tern {
class AppendFile;
}

namespace tern::tasks {

// What a model gave for one question (or window): numbers whose meaning is the task's, and text.
struct ItemResult {
  std::vector<double> values;
  std::string text;
};

class ResultJournal {
 public:
  // Without a file: keeps nothing.
  ResultJournal();
  // Goes on with the file's results, or starts anew. Throws FormatError for a damaged line (a torn
  // last one is dropped), UsageError when not `resume` and the file has results.
  ResultJournal(const std::string& path, bool resume);
  ResultJournal(ResultJournal&&) noexcept;
  ResultJournal& operator=(ResultJournal&&) noexcept;
  ~ResultJournal();

  // Null: not there.
  const ItemResult* Find(const std::string& key, int64_t item) const;
  void Add(const std::string& key, int64_t item, const ItemResult& result);

 private:
  std::map<std::pair<std::string, int64_t>, ItemResult> found_;
  std::unique_ptr<AppendFile> file_;
};

}  // namespace tern::tasks
