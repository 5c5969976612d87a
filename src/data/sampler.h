// Which window of the token stream is sample i: a pure function of (number of tokens, T, seed, i).
// Nothing else enters: not ranks, not micro-batches, not accumulation, not what ran before. So a
// run resumes at any step, on any number of ranks, with the same samples in the same order. An
// epoch visits every window once, in the order of a keyed permutation (base/random.h); each epoch
// shifts all windows by its own offset, so that borders fall elsewhere.
#pragma once

#include <cstdint>
#include <string>

namespace tern::data {

class Sampler {
 public:
  // Windows have sequence_length + 1 tokens: inputs and next-token targets; neighbours share the
  // border token. `name` is for messages. `aligned`: windows begin at multiples of sequence_length
  // in every epoch, and the token behind the last one is there, too. Throws InputError when not
  // even one window fits.
  Sampler(int64_t num_tokens, int64_t sequence_length, uint64_t seed,
          const std::string& name = "the training text", bool aligned = false);

  // First token of sample `index` (>= 0); start + sequence_length < num_tokens.
  int64_t WindowStart(int64_t index) const;
  int64_t EpochOf(int64_t index) const { return index / windows_; }
  int64_t windows_per_epoch() const { return windows_; }
  int64_t sequence_length() const { return sequence_length_; }

 private:
  int64_t num_tokens_, sequence_length_, windows_;
  uint64_t seed_;
  bool aligned_;
};

}  // namespace tern::data
