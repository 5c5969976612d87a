// Rotations that a model cannot tell from none, fused into its weights before they are quantized
// (QuaRot, Ashkboos et al., arXiv 2404.00456; R1 and R2 of SpinQuant, Liu et al., arXiv
// 2405.16406): outliers of single columns are spread over all of them, for weights and inputs.
// With row vectors, an orthogonal Q of the model's width and R of a head's:
//   the residual stream is x Q: embedding E Q; of what reads the stream W diag(g) Q, with the
//   gain g of the norm before it, which becomes 1 (RMSNorm without a gain does not see Q); of what
//   writes it (o_proj, down_proj) Q^T W.
//   each head's values are v R: of v_proj R^T W and R^T b, of o_proj W R for each head.
// Biases of q and k and their norms stay. A tied head has another gain folded in than the
// embedding, so it becomes a matrix of its own. The inputs of down_proj stay as they are (R4 would
// cost a product at run time).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "arch/model_config.h"

namespace tern::ptq {

// [n, n] of +-1 with H H^T = n I, in fp64, for n = 1, 2 and multiples of 4 that are powers of two
// (Sylvester) or q + 1 or 2 (q + 1) of a prime q (Paley, J. Math. Phys. 12, 1933). Undefined for
// other n.
at::Tensor HadamardMatrix(int64_t n);

// A seeded orthogonal matrix of order n: random signs, then a Kronecker product of Hadamard
// matrices of order 64 at most, over sqrt(n); what of n is no order of such a product (an odd
// number, mostly 1) is a random orthogonal factor.
class Rotation {
 public:
  Rotation(int64_t n, uint64_t seed, const std::string& name);

  // x Q over the last axis, which is n long, or whose pieces of n each are rotated. fp32 or fp64.
  at::Tensor Apply(const at::Tensor& x) const;
  // "Hadamard 12 x 48", "Hadamard 4 x orthogonal 23"
  std::string Describe() const;

 private:
  int64_t n_;
  at::Tensor signs_N_;               // fp64
  std::vector<at::Tensor> factors_;  // fp64, orthogonal
  int64_t random_ = 1;               // Order of the factor that is no Hadamard matrix
};

class ModelRotation {
 public:
  explicit ModelRotation(const ModelConfig& config);

  // Of a model with these parameters: its head is no longer tied.
  static ModelConfig ConfigOf(ModelConfig config);
  // The norm whose gain goes into a parameter; empty: none does.
  std::string GainOf(const std::string& parameter) const;
  // Whether the parameter is such a gain, and so 1 from now on.
  bool IsFolded(const std::string& parameter) const;
  // `gain`: of GainOf, undefined when that is empty. Any parameter that is not folded.
  at::Tensor Rotate(const std::string& parameter, const at::Tensor& value,
                    const at::Tensor& gain) const;
  at::Tensor RotateStream(const at::Tensor& x) const { return stream_.Apply(x); }
  std::string Describe() const;  // For the ledger

 private:
  bool sub_norms_;
  Rotation stream_, heads_;
};

}  // namespace tern::ptq
