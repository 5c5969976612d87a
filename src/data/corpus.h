// Text files as documents, and their split into training and validation: by whole documents, so
// that no validation text has a neighbour in training. The split is a pure function of names,
// sizes, share and seed. Everything is held in memory. Texts are taken as they are: checked (UTF-8,
// no NUL), never repaired, normalized or deduplicated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tern::data {

struct CorpusOptions {
  std::vector<std::string> files;  // Paths or globs; a document each
  // When not empty: these are held out and the share is ignored.
  std::vector<std::string> validation_files;
  double validation_fraction = 0.1;  // Share of the bytes; 0: no validation documents
  uint64_t seed = 42;
};

struct Document {
  std::string name;  // Path; a half of a single file says so: "one.txt[0:1234]" (bytes)
  std::string text;
};

struct Source {
  std::string path;
  int64_t size_bytes = 0;
  std::string sha256;
};

struct Corpus {
  std::vector<Document> train;  // In path order
  std::vector<Document> validation;
  std::vector<Source> sources;  // Every file read, in path order
  std::vector<std::string>
      notes;  // What a user should know, such as a single document that was cut in two
};

// Expands globs (?, *, [...]; a leading ~ is not special), sorts by path and drops repeats (./a and
// a are one). Throws InputError for a pattern that matches no file, and for a folder.
std::vector<std::string> ExpandGlobs(const std::vector<std::string>& patterns);

// Reads and splits. A file that both lists name is held out. One file and a share above 0: the file
// is cut in two documents at the paragraph border (or line, or word border, when there is none
// near) nearest to the share; the tail is validation, and a note says so. Throws InputError when a
// file is empty, not UTF-8 or binary (file and byte offset), or when a side would be empty;
// RecipeError for a share outside of [0, 1).
Corpus LoadCorpus(const CorpusOptions& options);

}  // namespace tern::data
