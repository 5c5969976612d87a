// See sampler.h.
#include "data/sampler.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace tern::data {

Sampler::Sampler(int64_t num_tokens, int64_t sequence_length, uint64_t seed,
                 const std::string& name, bool aligned)
    : num_tokens_(num_tokens), sequence_length_(sequence_length), seed_(seed), aligned_(aligned) {
  TERN_CHECK_INPUT(sequence_length > 0, "sequence_length is ", sequence_length);
  if (aligned) {
    TERN_CHECK(num_tokens > 0 && num_tokens % sequence_length == 0, name, " has ", num_tokens);
    windows_ = num_tokens / sequence_length;
    return;
  }
  TERN_CHECK_INPUT(num_tokens > sequence_length, name, " has ", num_tokens,
                   " tokens; a window of sequence_length ", sequence_length, " needs ",
                   sequence_length + 1, ". Give more text or lower train.sequence_length");
  // One window less than fits, so that an epoch can be shifted by a window's length and more.
  windows_ = std::max<int64_t>(1, (num_tokens - 1) / sequence_length - 1);
}

int64_t Sampler::WindowStart(int64_t index) const {
  TERN_CHECK(index >= 0, "sample ", index);
  const uint64_t epoch = static_cast<uint64_t>(EpochOf(index));
  const int64_t window = index % windows_;
  const RandomStream keys(seed_, "data/order");
  const uint64_t permutation = keys.At(2 * epoch);
  // What the windows of an epoch leave, up to 2T - 1 tokens, may lie before and behind them in any
  // way, so that no token is out of reach of all epochs.
  const int64_t room = aligned_ ? 0 : num_tokens_ - 1 - windows_ * sequence_length_;
  const int64_t shift =
      static_cast<int64_t>(keys.At(2 * epoch + 1) % static_cast<uint64_t>(room + 1));
  const uint64_t place =
      PermuteIndex(static_cast<uint64_t>(window), static_cast<uint64_t>(windows_), permutation);
  return shift + static_cast<int64_t>(place) * sequence_length_;
}

}  // namespace tern::data
