// ledger.jsonl of a quantized output: how each matrix was made, then what the output consists of,
// so that any byte that changes later is found (docs/quantize.md). Lines, one JSON object each:
//   {"tensor": ...}         a matrix, by its parameter name, and its values' or blocks' SHA-256
//   {"stored": ...}         a tensor as it is named in the output, and the SHA-256 of its bytes
//   {"file": ...}           a file of the output with its size and SHA-256
//   {"ledger_sha256": ...}  the last line: the SHA-256 of all bytes before it
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tern::ptq {

struct Ledger {
  std::vector<nlohmann::json> matrices, stored, files;
};

// "OUT/ledger.jsonl" of a folder, "OUT.gguf.ledger.jsonl" of a file.
std::string LedgerPath(const std::string& output);

// Writes the lines of `matrices` and what is found on the disk: the tensors and files of the
// folder, or the GGUF file, `output`. Throws as the readers, ResourceError.
void WriteLedger(const std::string& output, const std::vector<nlohmann::json>& matrices,
                 const std::string& ledger_path);

// Throws InputError when there is none, FormatError when it is cut short or its last line is not
// the hash of what stands before.
Ledger ReadLedger(const std::string& ledger_path);

// Throw NumericError that names the first tensor, or file, of `output` that is not the ledger's.
void CheckStored(const std::string& output, const Ledger& ledger);
void CheckFiles(const std::string& output, const Ledger& ledger);

}  // namespace tern::ptq
