// Integer matrices as the tensors of GPTQ and AWQ folders (docs/formats/gptq_awq.md): both keep the
// transpose, [inputs, outputs], with fp16 scales and a packed zero point for each. `base` ends with
// a point: "model.layers.0.self_attn.q_proj.".
#pragma once

#include <string>
#include <vector>

#include "ptq/packed_tensors.h"

namespace tern::ptq {

// qweight, qzeros, scales, g_idx. `less_one`: zero points are stored less one (v1). REQUIRES: rows
// and columns fill whole words; fp16 scales for groups of a row; v1: symmetric.
std::vector<NamedTensor> PackGptq(const std::string& base, const quant::QuantizedWeight& w,
                                  bool less_one);

// qweight, qzeros, scales of the gemm version: 4 bits. REQUIRES as above.
std::vector<NamedTensor> PackAwq(const std::string& base, const quant::QuantizedWeight& w);

}  // namespace tern::ptq
