// One text at a time: a decoder with a cache of its own.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/decoder.h"

namespace tern::engine {

class Session {
 public:
  // `capacity`: tokens this sequence may hold, at most the model's context; 0: the whole context.
  // Its cache takes memory as tokens come; fp32 gives the trainer's numbers, fp16 and int8 less to
  // read. The engine must outlive the session.
  explicit Session(const Engine& engine, int64_t capacity = 0,
                   kernels::KvType cache = kernels::KvType::kF32);

  // Decoder::Run for this sequence.
  std::vector<float> Append(std::span<const int32_t> tokens, LogitsOf which = LogitsOf::kLast);

  int64_t size() const { return sequence_.size(); }
  int64_t capacity() const { return decoder_.capacity(); }

 private:
  KvCache cache_;
  Sequence sequence_;
  Decoder decoder_;
};

}  // namespace tern::engine
