// The global order of a weighted mixture. Sample i comes from one part (TokenPart) and is that
// part's sample number c, c being how often the part came before: so each part is traversed without
// replacement, epoch by epoch, by its own Sampler. Which part it is, is a pure function of
// (weights, i): after any n samples, part p of weight share w has come n * w times, rounded down or
// up. The sequence is that of unit jobs with deadlines, earliest deadline first (Baruah et al.,
// "Proportionate progress", Algorithmica 15, 1996: on one processor windows [floor(c / w), ceil((c
// + 1) / w)) can always be met; Tijdeman's chairman assignment, 1980). One part: its Sampler's own
// order, unchanged.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/sampler.h"
#include "data/token_source.h"

namespace tern::data {

// Which part a sample comes from. Thread-safe. Memory: O(parts) for each 256 samples of a period
// (or of what was asked for, where weights have no short period); a look-up costs at most 256
// steps, consecutive ones a single step.
class MixtureOrder {
 public:
  // Weights are taken in proportion; each becomes a whole number of 2^-40 of their sum, or exactly
  // itself when all are decimals of up to 6 places. Throws InputError unless all are finite and
  // above 0.
  explicit MixtureOrder(const std::vector<double>& weights);
  ~MixtureOrder();

  struct Pick {
    int64_t part = 0;
    int64_t index = 0;  // How many samples before came from that part
  };
  Pick At(int64_t sample) const;
  // How many of samples [0, count) come from each part.
  std::vector<int64_t> Counts(int64_t count) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class MixtureSampler {
 public:
  // `parts` as TokenSource::Parts gives them. Throws InputError when a part has no window of
  // sequence_length + 1 tokens, or there is none.
  MixtureSampler(std::vector<TokenPart> parts, int64_t sequence_length, uint64_t seed);

  // First token, in the split, of sample `index` (>= 0).
  int64_t WindowStart(int64_t index) const;

  struct Share {
    std::string name;
    int64_t samples = 0;  // Of the first `count`
    double epochs = 0;    // How often that goes through the part
  };
  std::vector<Share> Shares(int64_t count) const;

 private:
  std::vector<TokenPart> parts_;
  std::vector<Sampler> samplers_;
  MixtureOrder order_;
};

}  // namespace tern::data
