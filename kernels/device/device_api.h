// What a device plug-in gives, as plain functions: memory, copies and the launchers of kernels. Two
// implementations: "simt" (the emulator, in this process) and "cuda" (libtern_kernels_cuda.so,
// opened at run time). The launchers' host code is one source, compiled for both. Functions never
// throw: they return an error text, or null when all is well. Used through device.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/absmax_quantize/absmax_quantize_cuda.h"
#include "kernels/attention/attention_cuda.h"
#include "kernels/elementwise/elementwise_cuda.h"
#include "kernels/gated_ffn/gated_ffn_cuda.h"
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/rms_norm_quantize/rms_norm_quantize.h"
#include "kernels/rope_kv/rope_kv_cuda.h"
#include "kernels/round_inputs/round_inputs_cuda.h"
#include "kernels/table/table.h"
#include "kernels/ternary_backward/ternary_backward.h"
#include "kernels/ternary_quantize/ternary_quantize_cuda.h"
#include "kernels/top_k/top_k_cuda.h"
#include "kernels/w4a16/w4a16_cuda.h"

namespace tern::kernels {

// Raised with every change of the structs below or of the structs that launchers take: a plug-in of
// another build is refused instead of misread.
inline constexpr int kDeviceApiVersion = 6;

struct DeviceInfo {
  char name[128] = {};
  int64_t total_bytes = 0, free_bytes = 0;
  int major = 0, minor = 0;  // Compute capability; 0.0 for the emulator
};

// BitLinear's product: y[m, n] = float(x . w) * out_scale[m], for any m. Device pointers; x and
// w_t2 aligned to 16 bytes, ldx a multiple of 16, x zero beyond k.
struct TernaryLinearArgs {
  const uint8_t* w_t2;     // [n, padded_k / 4]
  const int8_t* x;         // [m, ldx]
  const int32_t* x_sum;    // [m]
  const float* out_scale;  // [m]
  float* y;                // [m, ldy]
  int m, n, padded_k, ldx, ldy;
};

// Each that takes a stream returns as soon as its kernel is queued on it.
struct DeviceKernels {
  const char* (*gather_rows)(const TableView& table, const int32_t* ids, int64_t m, float* out,
                             void* stream);
  const char* (*table_product)(const TableView& table, const float* x, int64_t m, float* y,
                               void* stream);
  const char* (*expand_table)(const TableView& table, uint16_t* out, void* stream);
  const char* (*rms_norm)(const float* x, const float* g, int64_t m, int64_t d, float eps, float* y,
                          void* stream);
  const char* (*rms_norm_quantize)(const RmsNormQuantizeArgs& args, void* stream);
  const char* (*absmax_quantize)(const AbsmaxQuantizeArgs& args, void* stream);
  const char* (*out_scale)(const float* gamma, float beta, int64_t m, float* out_scale,
                           void* stream);
  const char* (*ternary_linear)(const TernaryLinearArgs& args, void* stream);
  const char* (*w4a16)(const W4A16CudaArgs& args, void* stream);
  const char* (*gemm)(const GemmArgs& args, void* stream);
  bool (*fp8_gemm_runs)(int64_t m, int64_t n, int64_t k);  // Queues nothing
  const char* (*round_inputs)(const RoundInputsArgs& args, void* stream);
  const char* (*scale_rows)(const ScaleRowsArgs& args, void* stream);
  const char* (*round_rows)(const RoundRowsArgs& args, void* stream);
  const char* (*rope_kv)(const RopeKvArgs& args, void* stream);
  const char* (*attention)(const AttentionArgs& args, void* stream);
  const char* (*gated_ffn)(GateActivation activation, const GatedFfnArgs& args, void* stream);
  const char* (*add)(float* x, const float* y, int64_t count, void* stream);
  const char* (*add_bias)(float* x, const float* bias, int64_t m, int64_t n, void* stream);
  const char* (*top_k)(const TopKArgs& args, void* stream);
  const char* (*ternary_scale)(const float* w, int64_t count, float* block_sums, float* beta,
                               void* stream);
  const char* (*ternary_quantize)(const TernaryQuantizeCudaArgs& args, void* stream);
  const char* (*round_gradient)(const RoundGradientArgs& args, void* stream);
  const char* (*ternary_input_gradient)(const TernaryInputGradientArgs& args, void* stream);
  const char* (*ternary_weight_gradient)(const TernaryWeightGradientArgs& args, void* stream);
};

struct DeviceApi {
  int version;
  // Takes device `index` and gives its stream.
  const char* (*open)(int index, DeviceInfo* info, void** stream);
  void (*close)(void* stream);
  const char* (*allocate)(size_t bytes, void** memory);  // Aligned to 256 bytes
  void (*release)(void* memory);
  // Host memory that the device copies from and to without a detour.
  const char* (*allocate_host)(size_t bytes, void** memory);
  void (*release_host)(void* memory);
  // In the order of the stream: `from` stays as it is and `to` is written after synchronize.
  const char* (*copy_in)(void* to, const void* from, size_t bytes, void* stream);
  const char* (*copy_out)(void* to, const void* from, size_t bytes, void* stream);
  const char* (*synchronize)(void* stream);
  // From begin_record to end_record what is queued on the stream is not done but recorded; replay
  // queues all of it at once, with the pointers and numbers of then. Host memory that was copied
  // from or to is so at every replay.
  const char* (*begin_record)(void* stream);
  const char* (*end_record)(void* stream, void** recording);
  const char* (*replay)(void* recording, void* stream);
  void (*release_recording)(void* recording);
  const char* dense_products;  // What `gemm` is
  DeviceKernels kernels;
};

// The table of launchers of the library that this is linked into.
DeviceKernels LinkedKernels();

// The only name that is looked up in libtern_kernels_cuda.so: a function that returns its table.
inline constexpr char kCudaApiSymbol[] = "TernCudaDeviceApi";
using DeviceApiFunction = const DeviceApi* (*)();

#if defined(TERN_HAVE_SIMT)
const DeviceApi& SimtDeviceApi();
#endif

}  // namespace tern::kernels
