// See calibration.h.
#include "ptq/calibration.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/sha256.h"
#include "data/mapped_tokens.h"
#include "data/record_file.h"
#include "data/token_file.h"

namespace tern::ptq {
namespace {

// Fewer inputs than this leave most of a Hessian to the damping.
constexpr int64_t kLeastWindows = 8;
// Texts are cut before they are tokenized: no more is needed than a few windows' choice.
constexpr size_t kMaxTextBytes = size_t{64} << 20;

std::vector<int32_t> AllOf(const data::TokenSource& source) {
  std::vector<int32_t> ids(static_cast<size_t>(source.NumTokens(data::Split::kTrain)));
  source.Copy(data::Split::kTrain, 0, static_cast<int64_t>(ids.size()), ids.data());
  return ids;
}

std::vector<int32_t> Ids(const std::string& path, const std::string& field,
                         const text::Tokenizer* tokenizer, int64_t vocab_size) {
  if (path.ends_with(".tokens.h5")) return AllOf(data::TokenFile::Open(path));
  if (path.ends_with(".idx"))
    return AllOf(*data::OpenMegatron(path, data::Split::kTrain, vocab_size));
  TERN_CHECK_INPUT(tokenizer != nullptr, path,
                   " is a text, and the model has no tokenizer that this version reads; give one "
                   "with --tokenizer, or a *.tokens.h5");
  const data::RecordOptions options;
  data::RecordFile file(path, options);
  std::vector<int32_t> ids;
  size_t bytes = 0;
  data::Record record;
  while (file.Next(&record) && bytes < kMaxTextBytes) {
    std::string text =
        data::TextOf(record.text, file.format(), field, options, file.Where(record.number));
    if (bytes > 0) text = "\n\n" + text;
    bytes += text.size();
    const std::vector<int32_t> more = tokenizer->Encode(text);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

}  // namespace

Calibration ReadCalibration(const std::string& path, const std::string& field,
                            const text::Tokenizer* tokenizer, int64_t vocab_size, int64_t sequence,
                            int64_t tokens) {
  TERN_CHECK_INPUT(sequence >= 16, "calibration sequences of ", sequence,
                   " tokens; want 16 or more");
  const std::vector<int32_t> ids = Ids(path, field, tokenizer, vocab_size);
  for (const int32_t id : ids) {
    TERN_CHECK_INPUT(id >= 0 && id < vocab_size, path, ": token ", id,
                     " is outside of the model's vocabulary of ", vocab_size);
  }
  const auto windows = static_cast<int64_t>(ids.size()) / sequence;
  TERN_CHECK_INPUT(windows > kLeastWindows, path, " has ", ids.size(), " tokens; want at least ",
                   (kLeastWindows + 1) * sequence, ", ", kLeastWindows + 1, " windows of ",
                   sequence, " (more text, or a smaller --sequence)");
  const int64_t wanted = std::max(kLeastWindows, (tokens + sequence - 1) / sequence);
  const int64_t count = std::min(wanted, windows - 1);
  if (count < wanted) {
    LogWarn(path, " has ", ids.size(), " tokens: calibrating with ", count * sequence,
            " instead of ", tokens);
  }
  Calibration out;
  out.tokens_BT = at::empty({count, sequence}, at::kLong);
  int64_t* to = out.tokens_BT.mutable_data_ptr<int64_t>();
  Sha256 hash;
  // The last window is held out; the others are chosen at equal distances before it.
  for (int64_t b = 0; b < count; ++b) {
    const int32_t* from = ids.data() + b * (windows - 1) / count * sequence;
    std::copy_n(from, sequence, to + b * sequence);
    hash.Update(from, static_cast<size_t>(sequence) * sizeof(int32_t));
  }
  const auto last = ids.begin() + (windows - 1) * sequence;
  out.held_out.assign(last, last + sequence);
  hash.Update(out.held_out.data(), out.held_out.size() * sizeof(int32_t));
  out.sha256 = hash.HexDigest();
  return out;
}

}  // namespace tern::ptq
