// What a teacher says of the training data, kept on disk, so that later runs need no teacher in
// memory: of each token the k largest log-probabilities and their ids; the mass of all the others
// follows. A folder of shards `shard-000000.teacher.h5` (docs/formats/teacher_store.md), each whole
// or absent, so that making one can be killed and goes on. Samples are numbered as the sampler
// does (data/mixture.h), whatever the batch size; each keeps the hash of its tokens. A store of
// another teacher, tokenizer, seed, length, temperature or k, or of other data, is an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "data/batch.h"
#include "distill/logit_losses.h"
#include "distill/teacher.h"

namespace tern::distill {

// Everything but the data that what is kept depends on.
struct TeacherStoreKey {
  std::string teacher_sha256, tokenizer_sha256;
  int64_t seed = 0;
  int64_t sequence_length = 0;  // T
  int64_t k = 0;
  double temperature = 1;
  std::string packing;  // "stream", "documents" or "samples": what a token's context is
  // "fp32" or "bf16": of the teacher's products in libtorch; "engine": the engine's
  std::string precision;
  int64_t SamplesPerShard() const;
};

// The batch of samples [first, first + count).
using SampleBatches = std::function<data::Batch(int64_t first, int64_t count)>;

// Makes the shards that hold samples [0, count) where they are not there yet. `teacher` is asked
// for only then; `progress` is told of samples done and all. Throws InputError when shards of
// another key lie there, NumericError for a teacher whose logits are not finite, StoppedError after
// a stop signal, with whole shards kept.
void FillTeacherStore(const std::string& folder, const TeacherStoreKey& key, int64_t count,
                      const std::function<Teacher&()>& teacher, const SampleBatches& batches,
                      nn::ComputeType compute,
                      const std::function<void(int64_t, int64_t)>& progress = {});

class TeacherStore {
 public:
  // Throws InputError when samples [0, count) are not all there or the key is another, FormatError
  // for a damaged shard.
  TeacherStore(const std::string& folder, const TeacherStoreKey& key, int64_t count);
  ~TeacherStore();
  TeacherStore(TeacherStore&&) noexcept;

  // Of all tokens of rows [begin, begin + rows) of a batch whose first row is sample `sample`.
  // Throws InputError when the batch's tokens are not those that the store was made of.
  TeacherChunk Rows(const data::Batch& batch, int64_t begin, int64_t rows, int64_t sample) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::distill
