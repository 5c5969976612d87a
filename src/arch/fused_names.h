// Which matrices engines make one of: queries, keys and values; gate and up. A number that the one
// has, such as NVFP4's global scale, holds for all of them.
#pragma once

#include <string>

namespace tern {

// "model.layers.0.self_attn.qkv" of module "model.layers.0.self_attn.q_proj" or its parameter
// "….q_proj.weight"; "" when it is of none.
std::string FusedName(const std::string& module);

}  // namespace tern
