// See batch.h.
#include "data/batch.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/sha256.h"

namespace tern::data {
namespace {

constexpr int32_t kNoTarget = -1;

// Reads window [start, start + targets] into row `row`; columns past `targets` get token 0 and no
// target.
void FillRow(const TokenSource& tokens, Split split, int64_t start, int64_t targets, int64_t row,
             Batch* batch) {
  std::vector<int32_t> window(static_cast<size_t>(targets + 1));
  std::vector<uint8_t> labels(window.size());
  tokens.Copy(split, start, targets + 1, window.data());
  const int64_t at = row * batch->tokens;
  std::copy_n(window.begin(), targets, batch->inputs.begin() + at);
  tokens.CopyLabels(split, start, targets + 1, labels.data());
  for (size_t t = 0; t < static_cast<size_t>(targets); ++t)
    batch->targets[static_cast<size_t>(at) + t] = labels[t + 1] != 0 ? window[t + 1] : kNoTarget;
}

// Positions, document ids, and no target across a border.
void MarkDocuments(const TokenSource& tokens, Split split, int64_t start, int64_t row,
                   Batch* batch) {
  // Documents that begin after the first token; the last target may be one's first.
  const std::vector<int64_t> documents =
      tokens.DocumentsIn(split, start + 1, start + batch->tokens + 1);
  auto next = documents.begin();
  int32_t position = 0, document = 0;
  for (int64_t t = 0; t < batch->tokens; ++t) {
    if (next != documents.end() && start + t == *next) {
      ++next;
      ++document;
      position = 0;
    }
    const size_t at = static_cast<size_t>(row * batch->tokens + t);
    batch->positions[at] = position++;
    batch->document_ids[at] = document;
    if (next != documents.end() && start + t + 1 == *next) batch->targets[at] = kNoTarget;
  }
}

Batch EmptyBatch(int64_t rows, int64_t tokens, Packing packing) {
  Batch batch;
  batch.batch = rows;
  batch.tokens = tokens;
  const size_t size = static_cast<size_t>(rows * tokens);
  batch.inputs.assign(size, 0);
  batch.targets.assign(size, kNoTarget);
  if (packing == Packing::kDocuments) {
    batch.positions.assign(size, 0);
    batch.document_ids.assign(size, 0);
  }
  return batch;
}

}  // namespace

uint64_t Batch::Hash() const {
  Sha256 hash;
  const int64_t shape[] = {batch, tokens};
  hash.Update(shape, sizeof shape);
  hash.Update(inputs.data(), inputs.size() * sizeof(int32_t));
  hash.Update(targets.data(), targets.size() * sizeof(int32_t));
  return std::stoull(hash.HexDigest().substr(0, 16), nullptr, 16);
}

Batch MakeBatch(const TokenSource& tokens, Split split, const std::vector<int64_t>& starts,
                int64_t sequence_length, Packing packing) {
  Batch batch = EmptyBatch(static_cast<int64_t>(starts.size()), sequence_length, packing);
  for (size_t row = 0; row < starts.size(); ++row) {
    FillRow(tokens, split, starts[row], sequence_length, static_cast<int64_t>(row), &batch);
    if (packing == Packing::kDocuments)
      MarkDocuments(tokens, split, starts[row], static_cast<int64_t>(row), &batch);
  }
  return batch;
}

std::vector<EvalWindow> EvalWindows(const TokenSource& tokens, Split split,
                                    int64_t sequence_length) {
  const int64_t all = tokens.NumTokens(split);
  TERN_CHECK_INPUT(all >= 2, "the ", SplitName(split), " split has ", all,
                   " tokens; an evaluation needs 2. Hold out more text (data.validation_fraction)");
  std::vector<EvalWindow> windows;
  for (int64_t start = 0; start + 1 < all; start += sequence_length) {
    windows.push_back({start, std::min(sequence_length, all - 1 - start)});
  }
  return windows;
}

Batch MakeEvalBatch(const TokenSource& tokens, Split split, const std::vector<EvalWindow>& windows,
                    int64_t first, int64_t count, int64_t sequence_length, Packing packing) {
  Batch batch = EmptyBatch(count, sequence_length, packing);
  for (int64_t row = 0; row < count; ++row) {
    const EvalWindow& window = windows.at(static_cast<size_t>(first + row));
    FillRow(tokens, split, window.start, window.targets, row, &batch);
    if (packing == Packing::kDocuments) MarkDocuments(tokens, split, window.start, row, &batch);
  }
  return batch;
}

}  // namespace tern::data
