// See calibration.h.
#include "ptq/calibration.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/log.h"
#include "base/sha256.h"
#include "data/mapped_tokens.h"
#include "data/mixture.h"
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
  if (path.ends_with(".tokens.h5")) {
    return AllOf(tokenizer != nullptr ? data::TokenFile::Open(path, *tokenizer)
                                      : data::TokenFile::Open(path));
  }
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

// A stretch of the text that has its own share of the windows.
struct Part {
  int64_t begin = 0, tokens = 0, windows = 0;
  double weight = 1;
};

// Windows of each part by the parts' weights, at equal distances; the last window of the part with
// the largest weight is the held-out one.
std::vector<int64_t> ChooseWindows(const std::vector<Part>& parts, int64_t sequence, int64_t count,
                                   int64_t* held_out) {
  std::vector<double> weights;
  size_t largest = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    weights.push_back(parts[p].weight);
    const bool larger = parts[p].weight > parts[largest].weight || parts[largest].windows == 0;
    if (parts[p].windows > 0 && larger) largest = p;
  }
  const std::vector<int64_t> shares = data::MixtureOrder(weights).Counts(count);
  std::vector<int64_t> begins;
  for (size_t p = 0; p < parts.size(); ++p) {
    const int64_t free = parts[p].windows - (p == largest ? 1 : 0),
                  taken = std::min(shares[p], free);
    for (int64_t b = 0; b < taken; ++b)
      begins.push_back(parts[p].begin + b * free / taken * sequence);
  }
  *held_out = parts[largest].begin + (parts[largest].windows - 1) * sequence;
  return begins;
}

using CopyWindow = std::function<void(int64_t begin, int32_t* out)>;

Calibration Take(const std::vector<Part>& parts, const CopyWindow& copy, int64_t sequence,
                 int64_t tokens, const std::string& name) {
  TERN_CHECK_INPUT(sequence >= 16, "calibration sequences of ", sequence,
                   " tokens; want 16 or more");
  int64_t windows = 0, all = 0;
  for (const Part& part : parts) {
    windows += part.windows;
    all += part.tokens;
  }
  TERN_CHECK_INPUT(windows > kLeastWindows, name, " has ", all, " tokens; want at least ",
                   (kLeastWindows + 1) * sequence, ", ", kLeastWindows + 1, " windows of ",
                   sequence, " (more text, or a smaller --sequence)");
  const int64_t wanted = std::max(kLeastWindows, (tokens + sequence - 1) / sequence);
  int64_t held_out = 0;
  const std::vector<int64_t> begins = ChooseWindows(parts, sequence, wanted, &held_out);
  const auto count = static_cast<int64_t>(begins.size());
  TERN_CHECK_INPUT(count >= kLeastWindows, name, ": the weights of its parts leave ", count,
                   " windows of ", sequence, " tokens; want ", kLeastWindows,
                   " (more text in the part with the largest weight, or a smaller --sequence)");
  if (count < wanted) {
    LogWarn(name, " has ", all, " tokens: calibrating with ", count * sequence, " instead of ",
            tokens);
  }
  Calibration out;
  out.name = name;
  out.tokens_BT = at::empty({count, sequence}, at::kLong);
  int64_t* to = out.tokens_BT.mutable_data_ptr<int64_t>();
  std::vector<int32_t> window(static_cast<size_t>(sequence));
  Sha256 hash;
  for (size_t b = 0; b < begins.size(); ++b) {
    copy(begins[b], window.data());
    std::copy(window.begin(), window.end(), to + static_cast<int64_t>(b) * sequence);
    hash.Update(window.data(), window.size() * sizeof(int32_t));
  }
  out.held_out.resize(window.size());
  copy(held_out, out.held_out.data());
  hash.Update(out.held_out.data(), out.held_out.size() * sizeof(int32_t));
  out.sha256 = hash.HexDigest();
  return out;
}

void CheckIds(const int32_t* ids, size_t count, int64_t vocab_size, const std::string& name) {
  for (size_t i = 0; i < count; ++i) {
    TERN_CHECK_INPUT(ids[i] >= 0 && ids[i] < vocab_size, name, ": token ", ids[i],
                     " is outside of the model's vocabulary of ", vocab_size);
  }
}

}  // namespace

Calibration ReadCalibration(const std::string& path, const std::string& field,
                            const text::Tokenizer* tokenizer, int64_t vocab_size, int64_t sequence,
                            int64_t tokens) {
  const std::vector<int32_t> ids = Ids(path, field, tokenizer, vocab_size);
  CheckIds(ids.data(), ids.size(), vocab_size, path);
  const auto copy = [&](int64_t begin, int32_t* out) {
    std::copy_n(ids.data() + begin, sequence, out);
  };
  const int64_t windows = static_cast<int64_t>(ids.size()) / std::max<int64_t>(sequence, 1);
  Calibration out =
      Take({{0, static_cast<int64_t>(ids.size()), windows, 1}}, copy, sequence, tokens, path);
  out.name = std::filesystem::path(path).filename().string();
  return out;
}

Calibration ReadCalibration(const data::TokenSource& text, int64_t vocab_size, int64_t sequence,
                            int64_t tokens) {
  const std::string name = "the training text";
  std::vector<Part> parts;
  for (const data::TokenPart& part : text.Parts(data::Split::kTrain))
    parts.push_back(
        {part.begin, part.tokens, part.tokens / std::max<int64_t>(sequence, 1), part.weight});
  const auto copy = [&](int64_t begin, int32_t* out) {
    text.Copy(data::Split::kTrain, begin, sequence, out);
    CheckIds(out, static_cast<size_t>(sequence), vocab_size, name);
  };
  return Take(parts, copy, sequence, tokens, name);
}

std::optional<Calibration> CalibrationOf(const QuantizeOptions& options, const FloatModel& model) {
  const ModelConfig& config = model.config();
  const int64_t sequence = std::min(options.sequence, config.context_length);
  if (options.training_text)
    return ReadCalibration(options.training_text(), config.vocab_size, sequence,
                           options.calibration_tokens);
  if (options.calibration.empty()) return std::nullopt;
  return ReadCalibration(options.calibration, options.field,
                         model.tokenizer() ? &*model.tokenizer() : nullptr, config.vocab_size,
                         sequence, options.calibration_tokens);
}

}  // namespace tern::ptq
