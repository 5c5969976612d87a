// Runs a model on a device (kernels/device): the same steps as Session, with the weights, the
// key-value cache and all values in between in the device's memory. Of ternary models all steps
// have the numbers of the CPU kernels, so logits are those of a Session with the same type of cache
// (fp16 or int8) bit for bit; of models of floats and codes so are those of up to 8 tokens at once,
// beside a Session with fp32 activations. One allocation for a sequence, none a token; a step of
// one token is recorded once (a CUDA graph) and replayed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "engine/device_linear.h"
#include "engine/device_model.h"
#include "kernels/device/device.h"

namespace tern::engine {

struct DeviceSessionOptions {
  int64_t capacity = 0;  // Tokens; 0: the model's context
  kernels::KvType cache = kernels::KvType::kF16;
  int64_t choices = 0;  // Ids below this may come next; 0: all rows of the head
  int64_t top_k = 1;    // Logits that AppendTop gives
};

// One sequence. As Session, but that an exception of the device leaves it without use.
class DeviceSession {
 public:
  // Throws UsageError for an fp32 cache and for a top_k that is not 1 to 256 or above the choices,
  // ResourceError when the buffers do not fit.
  explicit DeviceSession(const DeviceModel& model, const DeviceSessionOptions& options = {});

  // Appends; the logits [V] after the last token, which stay until the next call. Throws as
  // Session::Append, and ResourceError.
  std::span<const float> Append(std::span<const int32_t> tokens);
  // The logits of every token, [T, V].
  std::vector<float> AppendAll(std::span<const int32_t> tokens);
  // Only the top_k highest logits of the choices leave the device: the highest first, of equals the
  // lowest id first; until the next call. A first id of -1: a logit is NaN or +Inf, or all are
  // -Inf.
  std::span<const kernels::TokenLogit> AppendTop(std::span<const int32_t> tokens);

  int64_t size() const { return size_; }
  int64_t capacity() const { return capacity_; }
  // Steps of one token that were replayed rather than queued kernel by kernel.
  int64_t replayed() const { return replayed_; }

 private:
  enum class Output { kNone, kLast, kAll, kTop };
  // Device pointers into memory_.
  struct Buffers {
    float *x, *y, *normed, *q, *k, *v, *attended, *gate, *up, *hidden, *logits;
    float *states, *rope_cos, *rope_sin;
    int32_t *ids, *positions, *pages;
    kernels::TokenLogit* best;
    std::vector<char*> caches;
  };
  // Host memory that the device copies from and to.
  struct Staging {
    int32_t *ids, *positions;
    kernels::TokenLogit* best;
    float* logits;
  };
  // A step of one token with room for some segments of attention.
  struct Step {
    bool ran = false;  // Its kernels are loaded
    kernels::DeviceRecording recording;
  };

  void CheckTokens(std::span<const int32_t> tokens) const;
  void PlaceBuffers(DeviceArena* arena);
  void PlaceStaging(DeviceArena* arena);
  void FillConstants();
  // In chunks; only the last gives kLast and kTop. take(tokens of the chunk) after each that
  // gives.
  template <class Take>
  void Run(std::span<const int32_t> tokens, Output output, const Take& take);
  void Replay(Step* step, Output output, int segments);
  // Queues all of a chunk of m tokens, from the copies of its ids to the copy of its result.
  void Queue(int64_t m, Output output, int segments);
  void Attention(const DeviceModel::Layer& layer, int64_t window, const kernels::KvPages& cache,
                 int64_t m, int segments);
  void FeedForward(const DeviceModel::Layer& layer, int64_t m);
  // Matrices that read one input, at_.x: see LayerPass::Project.
  struct Branch {
    const DeviceMatrix& w;
    const float* own_norm;
    float* y;
  };
  void Project(int64_t m, const float* pre_norm, std::initializer_list<Branch> branches);
  void Finish(int64_t m, Output output);

  const DeviceModel& model_;
  kernels::Device& device_;
  DeviceSessionOptions options_;
  int64_t capacity_, size_ = 0, pages_, segments_, replayed_ = 0;
  DeviceInput input_;
  kernels::DeviceMemory memory_, host_;
  Buffers at_;
  Staging host_at_;
  std::vector<Step> steps_[2];  // By output (kLast, kTop) and the power of two of segments
};

}  // namespace tern::engine
