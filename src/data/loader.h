// Batches of training steps, prepared ahead by one thread. Step s takes the B samples of the
// MixtureSampler from s * B on, so the loader can start at any step and has no state to save.
// Micro-batch j of m is the B/m rows of the step from j * B/m on.
#pragma once

#include <cstdint>
#include <memory>

#include "data/batch.h"
#include "data/mixture.h"

namespace tern::data {

struct LoaderOptions {
  int64_t sequence_length = 256;    // T
  int64_t sequences_per_step = 16;  // B of a whole step, all ranks
  uint64_t seed = 42;
  Packing packing = Packing::kStream;
  int64_t first_step = 0;
  int64_t prefetch = 4;  // Steps prepared ahead at most
  Split split = Split::kTrain;
};

// The batch of one step, made on the spot: what BatchLoader gives for it.
Batch BatchOfStep(const TokenSource& tokens, const LoaderOptions& options, int64_t step);

// Rows [micro * B/micros, (micro + 1) * B/micros) of `batch`. REQUIRES: micros divides B.
Batch MicroBatch(const Batch& batch, int64_t micro, int64_t micros);

class BatchLoader {
 public:
  // `tokens` must live as long as this. Throws InputError when the split is shorter than one
  // window, or one of its parts is.
  BatchLoader(const TokenSource& tokens, const LoaderOptions& options);
  ~BatchLoader();  // Stops the thread, whatever it is at.
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  // The next step's batch, waiting for it if need be. Rethrows what the thread threw. For one
  // consumer thread.
  Batch Next();
  int64_t next_step() const;  // The step that Next() gives

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::data
