// See fused_names.h.
#include "arch/fused_names.h"

#include <string_view>
#include <utility>

namespace tern {

std::string FusedName(const std::string& module) {
  std::string_view name = module;
  constexpr std::string_view kWeight = ".weight";
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  using Part = std::pair<std::string_view, std::string_view>;
  for (const auto& [part, whole] : {Part{".q_proj", ".qkv"},
                                    {".k_proj", ".qkv"},
                                    {".v_proj", ".qkv"},
                                    {".gate_proj", ".gate_up"},
                                    {".up_proj", ".gate_up"}}) {
    if (!name.ends_with(part)) continue;
    name.remove_suffix(part.size());
    return std::string(name).append(whole);
  }
  return "";
}

}  // namespace tern
