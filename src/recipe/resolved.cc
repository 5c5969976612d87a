// ResolvedYaml of load.h.
#include "base/error.h"
#include "recipe/list_visitor.h"
#include "recipe/load.h"

namespace tern::recipe {
namespace {

// `indent` spaces before a key at depth 0.
std::string Lines(const std::vector<ListedField>& fields, const Origins& origins, int indent) {
  std::string yaml;
  for (const ListedField& field : fields) {
    const std::string key = field.path.substr(field.path.rfind('.') + 1);
    yaml += StrCat(std::string(static_cast<size_t>(indent + 2 * field.depth), ' '), key, ":");
    if (field.is_map) {
      yaml += "\n";
      continue;
    }
    const auto origin = origins.find(field.path);
    yaml += StrCat(" ", field.value, "  # ", origin != origins.end() ? origin->second : "default",
                   "\n");
  }
  return yaml;
}

}  // namespace

std::string ResolvedYaml(const LoadedRecipe& loaded) {
  std::string yaml = StrCat("# Resolved from ", loaded.path,
                            ": every key with its value and where it came from.\n",
                            Lines(ListRecipe(loaded.recipe), loaded.origins, 0), "stages:\n");
  for (const Stage& stage : loaded.recipe.stages) {
    yaml += StrCat("  - ", KindOf(stage), ":\n", Lines(ListStage(stage), loaded.origins, 6));
  }
  return yaml;
}

}  // namespace tern::recipe
