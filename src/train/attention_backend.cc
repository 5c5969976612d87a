// See attention_backend.h.
#include "train/attention_backend.h"

#include <ATen/Context.h>

#include "base/error.h"

namespace tern::train {

void SelectAttention(recipe::AttentionBackend backend, const std::string& key,
                     const c10::Device& device) {
  using recipe::AttentionBackend;
  const bool wants_gpu =
      backend == AttentionBackend::kMemoryEfficient || backend == AttentionBackend::kCudnn;
  if (wants_gpu && device.is_cpu()) {
    throw ResourceError(
        StrCat(key, ": found ", backend == AttentionBackend::kCudnn ? "cudnn" : "memory_efficient",
               ", which needs a GPU, and this stage trains on the CPU; want auto, math or flash"));
  }
  const bool all = backend == AttentionBackend::kAuto;
  at::Context& context = at::globalContext();
  context.setSDPUseMath(all || backend == AttentionBackend::kMath);
  context.setSDPUseFlash(all || backend == AttentionBackend::kFlash);
  context.setSDPUseMemEfficient(all || backend == AttentionBackend::kMemoryEfficient);
  context.setSDPUseCuDNN(all || backend == AttentionBackend::kCudnn);
}

}  // namespace tern::train
