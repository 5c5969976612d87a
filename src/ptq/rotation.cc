// See rotation.h.
#include "ptq/rotation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace tern::ptq {
namespace {

constexpr uint64_t kSeed = 42;
constexpr int64_t kMaxFactor = 64;  // Larger factors cost more products than their pieces do

bool IsPowerOfTwo(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

bool IsPrime(int64_t q) {
  if (q < 2) return false;
  for (int64_t d = 2; d * d <= q; ++d)
    if (q % d == 0) return false;
  return true;
}

// [q, q]: 1 where i - j is a square modulo the odd prime q, -1 where it is none, 0 on the diagonal.
at::Tensor Jacobsthal(int64_t q) {
  std::vector<double> residue(static_cast<size_t>(q), -1.0);
  residue[0] = 0;
  for (int64_t x = 1; x < q; ++x) residue[static_cast<size_t>(x * x % q)] = 1;
  at::Tensor out = at::empty({q, q}, at::kDouble);
  double* values = out.mutable_data_ptr<double>();
  for (int64_t i = 0; i < q; ++i)
    for (int64_t j = 0; j < q; ++j)
      values[i * q + j] = residue[static_cast<size_t>((i - j + q) % q)];
  return out;
}

// The Jacobsthal matrix with a first row of 1 and a first column of `column`, 0 where they meet.
at::Tensor Bordered(int64_t q, double column) {
  at::Tensor out = at::zeros({q + 1, q + 1}, at::kDouble);
  out.slice(0, 1).slice(1, 1).copy_(Jacobsthal(q));
  out[0].slice(0, 1).fill_(1);
  out.slice(0, 1).select(1, 0).fill_(column);
  return out;
}

at::Tensor TwoByTwo(double a, double b, double c, double d) {
  at::Tensor out = at::empty({2, 2}, at::kDouble);
  double* values = out.mutable_data_ptr<double>();
  values[0] = a;
  values[1] = b;
  values[2] = c;
  values[3] = d;
  return out;
}

bool HasHadamard(int64_t n) {
  if (IsPowerOfTwo(n)) return true;
  if (n % 4 != 0) return false;
  return IsPrime(n - 1) || ((n / 2 - 1) % 4 == 1 && IsPrime(n / 2 - 1));
}

// Orders of Hadamard matrices of at most kMaxFactor whose product is n; empty: there are none.
std::vector<int64_t> HadamardFactors(int64_t n) {
  if (n <= kMaxFactor && HasHadamard(n)) return {n};
  for (int64_t order = kMaxFactor; order > 1; --order) {
    if (n % order != 0 || !HasHadamard(order)) continue;
    std::vector<int64_t> rest = HadamardFactors(n / order);
    if (rest.empty()) continue;
    rest.push_back(order);
    return rest;
  }
  return {};
}

// Columns of standard normal numbers made orthonormal one after the other, twice, since once
// leaves errors of the size of eps times the condition.
at::Tensor RandomOrthogonal(int64_t n, RandomStream* random) {
  at::Tensor out = at::empty({n, n}, at::kDouble);
  double* values = out.mutable_data_ptr<double>();
  for (int64_t i = 0; i < n * n; ++i) values[i] = random->NextNormal();
  for (int64_t row = 0; row < n; ++row) {
    at::Tensor x = out[row];
    for (int turn = 0; turn < 2 && row > 0; ++turn) {
      const at::Tensor before = out.slice(0, 0, row);
      x.sub_(before.t().matmul(before.matmul(x)));
    }
    x.div_(x.norm());
  }
  return out;
}

}  // namespace

at::Tensor HadamardMatrix(int64_t n) {
  if (!HasHadamard(n)) return {};
  if (IsPowerOfTwo(n)) {
    const at::Tensor two = TwoByTwo(1, 1, 1, -1);
    at::Tensor out = at::eye(1, at::kDouble);
    while (out.size(0) < n) out = at::kron(two, out);
    return out;
  }
  if (IsPrime(n - 1))  // n - 1 = 3 modulo 4
    return Bordered(n - 1, -1) + at::eye(n, at::kDouble);
  const int64_t q = n / 2 - 1;
  return at::kron(Bordered(q, 1), TwoByTwo(1, 1, 1, -1)) +
         at::kron(at::eye(q + 1, at::kDouble), TwoByTwo(1, -1, -1, -1));
}

Rotation::Rotation(int64_t n, uint64_t seed, const std::string& name) : n_(n) {
  RandomStream random(seed, "rotation " + name);
  signs_N_ = at::empty({n}, at::kDouble);
  double* signs = signs_N_.mutable_data_ptr<double>();
  for (int64_t i = 0; i < n; ++i) signs[i] = random.NextU64() % 2 == 0 ? 1.0 : -1.0;
  std::vector<int64_t> orders;
  while (n % random_ != 0 || (orders = HadamardFactors(n / random_)).empty()) ++random_;
  for (const int64_t order : orders)
    factors_.push_back(HadamardMatrix(order) / std::sqrt(static_cast<double>(order)));
  if (random_ > 1) factors_.push_back(RandomOrthogonal(random_, &random));
}

at::Tensor Rotation::Apply(const at::Tensor& x) const {
  TERN_CHECK(x.size(-1) % n_ == 0, "a row of ", x.size(-1), " and a rotation of ", n_);
  at::Tensor y = (x.reshape({-1, n_}) * signs_N_.to(x.scalar_type())).contiguous();
  const int64_t rows = y.size(0);
  int64_t before = rows, after = n_;
  for (const at::Tensor& factor : factors_) {
    const int64_t order = factor.size(0);
    after /= order;
    const at::Tensor turned = factor.t().contiguous().to(x.scalar_type());
    y = after == 1 ? at::matmul(y.view({before, order}), turned.t())
                   : at::matmul(turned, y.view({before, order, after})).contiguous();
    before *= order;
  }
  return y.reshape(x.sizes()).contiguous();
}

std::string Rotation::Describe() const {
  std::string text = "Hadamard";
  const size_t hadamard = factors_.size() - (random_ > 1 ? 1 : 0);
  for (size_t i = 0; i < hadamard; ++i) text += StrCat(i == 0 ? " " : " x ", factors_[i].size(0));
  return random_ > 1 ? StrCat(text, " x orthogonal ", random_) : text;
}

namespace {

bool Ends(const std::string& parameter, const char* what) { return parameter.ends_with(what); }

// "model.layers.3." of "model.layers.3.mlp.up_proj.weight".
std::string LayerOf(const std::string& parameter) {
  const size_t number = std::string("model.layers.").size();
  return parameter.substr(0, parameter.find('.', number) + 1);
}

// Rows instead of columns: Q^T W.
at::Tensor ApplyToRows(const Rotation& rotation, const at::Tensor& w_NK) {
  return rotation.Apply(w_NK.t().contiguous()).t().contiguous();
}

}  // namespace

ModelRotation::ModelRotation(const ModelConfig& config)
    : sub_norms_(config.HasOutputNorms()),
      stream_(config.hidden_size, kSeed, "stream"),
      heads_(config.HeadDim(), kSeed, "heads") {}

ModelConfig ModelRotation::ConfigOf(ModelConfig config) {
  config.tied_head = false;
  return config;
}

std::string ModelRotation::GainOf(const std::string& parameter) const {
  if (parameter == "lm_head.weight") return "model.norm.weight";
  for (const char* reads : {"q_proj.weight", "k_proj.weight", "v_proj.weight"})
    if (Ends(parameter, reads)) return LayerOf(parameter) + "input_layernorm.weight";
  for (const char* reads : {"gate_proj.weight", "up_proj.weight"})
    if (Ends(parameter, reads)) return LayerOf(parameter) + "post_attention_layernorm.weight";
  if (sub_norms_ && Ends(parameter, "o_proj.weight"))
    return LayerOf(parameter) + "self_attn.attn_sub_norm.weight";
  return "";
}

bool ModelRotation::IsFolded(const std::string& parameter) const {
  return parameter == "model.norm.weight" || Ends(parameter, ".input_layernorm.weight") ||
         Ends(parameter, ".post_attention_layernorm.weight") ||
         Ends(parameter, ".attn_sub_norm.weight");
}

at::Tensor ModelRotation::Rotate(const std::string& parameter, const at::Tensor& value,
                                 const at::Tensor& gain) const {
  const at::Tensor scaled = gain.defined() ? value * gain : value;
  if (Ends(parameter, "v_proj.bias")) return heads_.Apply(scaled);
  if (scaled.dim() == 1) return scaled;
  if (Ends(parameter, "o_proj.weight")) return ApplyToRows(stream_, heads_.Apply(scaled));
  if (Ends(parameter, "down_proj.weight")) return ApplyToRows(stream_, scaled);
  if (Ends(parameter, "v_proj.weight")) return ApplyToRows(heads_, stream_.Apply(scaled));
  return stream_.Apply(scaled);  // Embedding, head, q, k, gate, up
}

std::string ModelRotation::Describe() const {
  return StrCat("stream ", stream_.Describe(), ", values ", heads_.Describe(), ", seed ", kSeed);
}

}  // namespace tern::ptq
