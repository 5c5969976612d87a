// The dense product of a GPU by cuBLASLt. Needs the CUDA Toolkit; in libtern_kernels_cuda.so.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include "kernels/gemm/gemm_cuda.h"

namespace tern::kernels {
namespace {

const char* Text(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? nullptr : cublasLtGetStatusString(status);
}

// One for the process, never destroyed: at its end the driver may be gone already.
const char* Handle(cublasLtHandle_t* handle) {
  static cublasLtHandle_t shared = nullptr;
  static const cublasStatus_t status = cublasLtCreate(&shared);
  *handle = shared;
  return Text(status);
}

// What a product is described by; everything that was made is destroyed.
struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  ~Plan() {
    if (preference != nullptr) cublasLtMatmulPreferenceDestroy(preference);
    for (cublasLtMatrixLayout_t layout : {w, x, y})
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
  }
};

cudaDataType_t DataType(GemmType type) {
  switch (type) {
    case GemmType::kF32:
      return CUDA_R_32F;
    case GemmType::kF16:
      return CUDA_R_16F;
    case GemmType::kBf16:
      return CUDA_R_16BF;
    case GemmType::kE4m3:
      return CUDA_R_8F_E4M3;
  }
  return CUDA_R_32F;
}

// cuBLASLt's matrices are column-major: y^T [n, m] = (w^T [k, n])^T x^T [k, m], and each of ours,
// row-major, is its own transpose to it. Scales stay at 1 and fast accumulation off, as a new
// description has them.
cublasStatus_t Describe(const GemmArgs& args, Plan* plan) {
  const auto m = static_cast<uint64_t>(args.m), n = static_cast<uint64_t>(args.n),
             k = static_cast<uint64_t>(args.k);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const uint64_t workspace_bytes = 0;  // No allocation of its own
  cublasStatus_t status = cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const auto then = [&status](cublasStatus_t next) {
    if (status == CUBLAS_STATUS_SUCCESS) status = next;
  };
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  then(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                      sizeof(transposed)));
  then(cublasLtMatrixLayoutCreate(&plan->w, DataType(args.type), k, n, args.k));
  then(cublasLtMatrixLayoutCreate(&plan->x, DataType(args.type), k, m, args.k));
  then(cublasLtMatrixLayoutCreate(&plan->y, CUDA_R_32F, n, m, args.n));
  then(cublasLtMatmulPreferenceCreate(&plan->preference));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  then(cublasLtMatmulPreferenceSetAttribute(plan->preference,
                                            CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &workspace_bytes, sizeof(workspace_bytes)));
  return status;
}

// The way that cuBLASLt would take.
const char* Choose(const GemmArgs& args, cublasLtHandle_t* handle, Plan* plan,
                   cublasLtMatmulHeuristicResult_t* best) {
  if (const char* error = Handle(handle)) return error;
  if (const char* error = Text(Describe(args, plan))) return error;
  int found = 0;
  const char* error =
      Text(cublasLtMatmulAlgoGetHeuristic(*handle, plan->product, plan->w, plan->x, plan->y,
                                          plan->y, plan->preference, 1, best, &found));
  if (error != nullptr) return error;
  return found == 0 ? "cuBLASLt has no way to multiply matrices of this shape" : nullptr;
}

}  // namespace

bool Fp8GemmRuns(int64_t m, int64_t n, int64_t k) {
  int device = 0, major = 0, minor = 0;
  if (!Fp8GemmFits(n, k) || cudaGetDevice(&device) != cudaSuccess) return false;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
    return false;
  if (!HasFp8TensorCores(major, minor)) return false;
  GemmArgs args;
  args.type = GemmType::kE4m3;
  args.m = m;
  args.n = n;
  args.k = k;
  cublasLtHandle_t handle = nullptr;
  Plan plan;
  cublasLtMatmulHeuristicResult_t best = {};
  return Choose(args, &handle, &plan, &best) == nullptr;
}

const char* LaunchGemm(const GemmArgs& args, void* stream) {
  if (args.m == 0 || args.n == 0 || args.k == 0) return nullptr;
  cublasLtHandle_t handle = nullptr;
  Plan plan;
  cublasLtMatmulHeuristicResult_t best = {};
  if (const char* error = Choose(args, &handle, &plan, &best)) return error;
  const float one = 1.0f, zero = 0.0f;
  return Text(cublasLtMatmul(handle, plan.product, &one, args.w, plan.w, args.x, plan.x, &zero,
                             args.y, plan.y, args.y, plan.y, &best.algo, nullptr, 0,
                             static_cast<cudaStream_t>(stream)));
}

}  // namespace tern::kernels
