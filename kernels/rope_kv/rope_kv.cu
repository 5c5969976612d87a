// Host launcher of the rotary embedding with the cache's writing on a GPU.
#include "kernels/rope_kv/rope_kv.cuh"
#include "kernels/rope_kv/rope_kv_cuda.h"
#include "kernels/simt/launch.h"

namespace tern::kernels {

const char* LaunchRopeKv(const RopeKvArgs& args, void* stream) {
  if (args.rows.m == 0) return nullptr;
  if (args.cache.type == KvType::kF32) return "a device's cache is fp16 or int8, not fp32";
  const simt::Grid grid{static_cast<unsigned>(args.heads + 2 * args.kv_heads),
                        static_cast<unsigned>(args.rows.m)};
  const bool half = args.cache.type == KvType::kF16;
  return simt::LaunchKernel(half ? RopeKvKernel<uint16_t> : RopeKvKernel<int8_t>, grid,
                            kRopeKvThreads, stream, args);
}

}  // namespace tern::kernels
