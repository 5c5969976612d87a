// Host launchers of attention on a GPU.
#include "kernels/attention/attention.cuh"
#include "kernels/attention/attention_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {
const char* LaunchAttention(const AttentionArgs& args, void* stream) {
  if (args.rows.m == 0) return nullptr;
  if (args.shape.head_width > kAttentionMaxWidth) return "LaunchAttention: heads wider than 256";
  const int64_t group = args.shape.heads / args.shape.kv_heads;
  const int64_t head_blocks = (group + kAttentionHeads - 1) / kAttentionHeads;
  const auto m = static_cast<unsigned>(args.rows.m);
  const simt::Grid segments{static_cast<unsigned>(args.max_segments),
                            static_cast<unsigned>(args.shape.kv_heads * head_blocks), m};
  if (args.cache.type == KvType::kF32) return "a device's cache is fp16 or int8, not fp32";
  const bool half = args.cache.type == KvType::kF16;
  const char* error =
      simt::LaunchKernel(half ? AttendSegmentsKernel<uint16_t> : AttendSegmentsKernel<int8_t>,
                         segments, kAttentionThreads, stream, args);
  if (error != nullptr) return error;
  return simt::LaunchKernel(JoinSegmentsKernel, {static_cast<unsigned>(args.shape.heads), m},
                            kAttentionThreads, stream, args);
}

}  // namespace tern::kernels
