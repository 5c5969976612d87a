// A batch of windows as plain arrays, cut from a split's tokens. Row-major [batch, tokens].
// B = batch, T = tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "data/token_source.h"

namespace tern::data {

enum class Packing {
  kStream,     // Windows of the concatenated documents; attention may look across a border
  kDocuments,  // As kStream, but attention and positions stop at document borders
};

struct Batch {
  int64_t batch = 0;            // B
  int64_t tokens = 0;           // T
  std::vector<int32_t> inputs;  // [B, T]
  // [B, T]: the token after each input; -1: nothing is predicted here (a border of documents, a
  // prompt that does not count, padding).
  std::vector<int32_t> targets;
  // kDocuments: [B, T], from 0 at each document's start or the window's; else empty.
  std::vector<int32_t> positions;
  std::vector<int32_t> document_ids;  // kDocuments: [B, T], 0, 1, ... within a window; else empty

  // First 64 bits of the SHA-256 of B, T (int64), inputs and targets (int32), little-endian: what
  // the journal keeps of a step's data.
  uint64_t Hash() const;
};

// Rows that start at `starts`; each reads T + 1 tokens. With kDocuments a target across a document
// border is -1 (the BOS of the next document is not predicted from the EOS of the last). REQUIRES:
// windows in range.
Batch MakeBatch(const TokenSource& tokens, Split split, const std::vector<int64_t>& starts,
                int64_t sequence_length, Packing packing);

// Windows of evaluation: consecutive from the split's first token, T apart, T + 1 tokens each, so
// that every token but the first is the target of exactly one window. The last may be shorter than
// the others.
struct EvalWindow {
  int64_t start = 0;
  int64_t targets = 0;  // Predicted tokens: T, or fewer in the last window
};
// Throws InputError when the split has fewer than two tokens.
std::vector<EvalWindow> EvalWindows(const TokenSource& tokens, Split split,
                                    int64_t sequence_length);

// Windows [first, first + count) as one batch of T tokens; rows past a short last window are padded
// with token 0 and target -1.
Batch MakeEvalBatch(const TokenSource& tokens, Split split, const std::vector<EvalWindow>& windows,
                    int64_t first, int64_t count, int64_t sequence_length,
                    Packing packing = Packing::kStream);

}  // namespace tern::data
