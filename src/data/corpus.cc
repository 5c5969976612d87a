// See corpus.h.
#include "data/corpus.h"

#include <glob.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/sha256.h"
#include "base/utf8.h"

namespace tern::data {
namespace {

namespace fs = std::filesystem;

Document ReadDocument(const std::string& path, Corpus* corpus) {
  Document document{path, ReadFile(path)};
  TERN_CHECK_INPUT(!document.text.empty(), path, " is empty; a document needs text");
  CheckText(document.text, path);
  corpus->sources.push_back(
      {path, static_cast<int64_t>(document.text.size()), Sha256Hex(document.text)});
  return document;
}

// The border nearest to `at` that follows `mark`, or npos when none is at most `reach` bytes away.
size_t NearestBorder(const std::string& text, const std::string& mark, size_t at, size_t reach) {
  const size_t before = text.rfind(mark, at), after = text.find(mark, at);
  size_t best = std::string::npos, best_distance = reach + 1;
  for (const size_t found : {before, after}) {
    const size_t border = found + mark.size();
    if (found == std::string::npos || border >= text.size()) continue;
    const size_t distance = border > at ? border - at : at - border;
    if (distance >= best_distance) continue;
    best = border;
    best_distance = distance;
  }
  return best;
}

// One document in two: the tail is held out. A better kind of border is taken only where it keeps
// the smaller side below twice its share; a title's blank line must not hold out a whole book.
void CutInTwo(Document document, double fraction, Corpus* corpus) {
  const size_t size = document.text.size();
  const auto kept = std::llround(static_cast<double>(size) * (1.0 - fraction));
  const size_t at = std::min(static_cast<size_t>(kept), size - 1);
  size_t border = std::string::npos;
  for (const size_t reach : {std::min(at, size - at), size}) {
    for (const char* mark : {"\n\n", "\n", " "}) {
      if (border == std::string::npos) border = NearestBorder(document.text, mark, at, reach);
    }
  }
  TERN_CHECK_INPUT(
      border != std::string::npos, document.name,
      " is the only document and has no border to cut it at for validation; give more files, or "
      "data.validation_fraction=0");
  corpus->validation.push_back(
      {StrCat(document.name, "[", border, ":", size, "]"), document.text.substr(border)});
  corpus->train.push_back(
      {StrCat(document.name, "[0:", border, "]"), document.text.substr(0, border)});
  corpus->notes.push_back(StrCat(document.name, " is the only document: its last ", size - border,
                                 " bytes are held out for validation"));
}

// Whole documents in a seeded order go to validation until their bytes come nearest to the share.
void SplitByShare(std::vector<Document> documents, const CorpusOptions& options, Corpus* corpus) {
  const size_t count = documents.size();
  const double all = std::accumulate(
      documents.begin(), documents.end(), 0.0,
      [](double sum, const Document& d) { return sum + static_cast<double>(d.text.size()); });
  const uint64_t key = RandomStream(options.seed, "data/split").At(0);
  std::set<size_t> held_out;
  double bytes = 0;
  for (size_t i = 0; i < count && held_out.size() + 1 < count; ++i) {
    const size_t index = PermuteIndex(i, count, key);
    const double next = bytes + static_cast<double>(documents[index].text.size());
    const double share = options.validation_fraction * all;
    // At least one document; after that only those that bring the total nearer to the share.
    if (!held_out.empty() && std::fabs(next - share) >= std::fabs(bytes - share)) continue;
    held_out.insert(index);
    bytes = next;
  }
  for (size_t i = 0; i < count; ++i) {
    (held_out.contains(i) ? corpus->validation : corpus->train).push_back(std::move(documents[i]));
  }
}

void SplitByName(const std::vector<std::string>& files, const std::vector<std::string>& held_out,
                 Corpus* corpus) {
  for (const std::string& path : held_out) corpus->validation.push_back(ReadDocument(path, corpus));
  for (const std::string& path : files) {
    if (std::find(held_out.begin(), held_out.end(), path) == held_out.end()) {
      corpus->train.push_back(ReadDocument(path, corpus));
    }
  }
  std::sort(corpus->sources.begin(), corpus->sources.end(),
            [](const Source& a, const Source& b) { return a.path < b.path; });
}

// The same text on both sides makes a validation loss mean little: said, not repaired.
void NoteLeaks(Corpus* corpus) {
  std::map<std::string_view, const std::string*> training;
  for (const Document& document : corpus->train) training[document.text] = &document.name;
  for (const Document& document : corpus->validation) {
    const auto found = training.find(document.text);
    if (found == training.end()) continue;
    corpus->notes.push_back(StrCat("validation document ", document.name, " has the same bytes as ",
                                   "training document ", *found->second));
  }
}

}  // namespace

std::vector<std::string> ExpandGlobs(const std::vector<std::string>& patterns) {
  std::set<std::string> files;
  for (const std::string& pattern : patterns) {
    glob_t found{};
    const int status = ::glob(pattern.c_str(), 0, nullptr, &found);
    const std::vector<std::string> paths(found.gl_pathv,
                                         found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
    ::globfree(&found);
    TERN_CHECK_INPUT(!paths.empty(), "data.files: ", pattern, " matches no file (in ",
                     fs::current_path().string(), ")");
    for (const std::string& path : paths) {
      TERN_CHECK_INPUT(!fs::is_directory(path), "data.files: ", path,
                       " is a folder; name its files, such as ", path, "/*.txt");
      files.insert(fs::path(path).lexically_normal().string());
    }
  }
  return {files.begin(), files.end()};
}

Corpus LoadCorpus(const CorpusOptions& options) {
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    throw RecipeError(StrCat("data.validation_fraction is ", options.validation_fraction,
                             "; want 0 up to below 1"));
  }
  Corpus corpus;
  const std::vector<std::string> files = ExpandGlobs(options.files);
  TERN_CHECK_INPUT(!files.empty(), "data.files is empty; name at least one text file");
  if (!options.validation_files.empty()) {
    SplitByName(files, ExpandGlobs(options.validation_files), &corpus);
    TERN_CHECK_INPUT(!corpus.train.empty(),
                     "data.validation_files name every file; nothing is left to train on");
    NoteLeaks(&corpus);
    return corpus;
  }
  std::vector<Document> documents;
  for (const std::string& path : files) documents.push_back(ReadDocument(path, &corpus));
  if (options.validation_fraction == 0) {
    corpus.train = std::move(documents);
  } else if (documents.size() == 1) {
    CutInTwo(std::move(documents.front()), options.validation_fraction, &corpus);
  } else {
    SplitByShare(std::move(documents), options, &corpus);
  }
  NoteLeaks(&corpus);
  return corpus;
}

}  // namespace tern::data
