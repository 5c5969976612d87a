// Threads that turn batches of records into documents of tokens. Batches come back in the order in
// which they were given, whatever thread finished first, and so do errors. Internal to the module.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/instruction.h"
#include "data/record_file.h"
#include "data/token_source.h"
#include "text/tokenizer.h"

namespace tern::data {

struct RecordBatch {
  std::vector<Record> records;
  int64_t file = 0;            // Index of the file that all are from
  int64_t records_before = 0;  // How many records of it came before
  std::string path;
  RecordFormat format = RecordFormat::kText;
};

struct EncodedDocument {
  Split split = Split::kTrain;
  std::vector<int32_t> tokens;  // Empty: the record had no text
  std::vector<uint8_t> labels;  // As LabelledTokens
  int64_t text_bytes = 0;
};

struct EncodedBatch {
  std::vector<EncodedDocument> documents;  // One a record
  int64_t file = 0, records_before = 0;
};

struct EncodeOptions {
  std::string text_field;
  double validation_fraction = 0;
  uint64_t seed = 0;
  int threads = 1;
  InstructionOptions instruction;
};

class EncodePool {
 public:
  // `tokenizer` must live as long as this.
  EncodePool(const text::Tokenizer& tokenizer, const EncodeOptions& options);
  ~EncodePool();  // Ends the threads; what they have is dropped.
  EncodePool(const EncodePool&) = delete;
  EncodePool& operator=(const EncodePool&) = delete;

  // Batches given and not taken yet; more than `capacity` only waste memory.
  int64_t pending() const;
  int64_t capacity() const;
  void Give(RecordBatch batch);
  // The next batch, waiting for it. Rethrows what its thread threw. REQUIRES: pending() > 0.
  EncodedBatch Take();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::data
