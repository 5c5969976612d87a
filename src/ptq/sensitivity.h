// How much the outputs of each matrix matter to what the model predicts: the diagonal of the Fisher
// information, from labels drawn from the model's own distribution. To second order the KL that a
// small error E of a matrix [N, K] causes is 1/2 e^T F e, and errors of rounding are all but
// independent, so that the diagonal says it:
//   KL = 1/2 sum_nk F_nk E_nk^2,  F_nk = E[g_n^2] E[x_k^2]
// (K-FAC's factors, Martens and Grosse, arXiv 1503.05671, with the expectation of x^2 known from
// the importance matrix).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ptq/importance.h"

namespace tern::ptq {

// sum_k F_nk of each row of each matrix, [N], in nats a token, by parameter name.
using Sensitivity = std::map<std::string, std::vector<double>>;

// One backward pass for each of up to 8 sequences of tokens_BT. The model is in memory in fp32,
// and its gradients. `model` is used up.
Sensitivity MeasureSensitivity(FloatModel* model, const at::Tensor& tokens_BT);

}  // namespace tern::ptq
