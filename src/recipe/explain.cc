// See explain.h.
#include "recipe/explain.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "recipe/list_visitor.h"

namespace tern::recipe {
namespace {

constexpr const char* kPageHead =
    R"(# Recipe reference

A recipe is one YAML file: a name, a seed, a model, data, and an ordered list of stages. This page has every key; it is
written from the schema in `src/recipe/schema.cc`, and a test keeps it so. `tern recipe explain KEY` tells the same about
one key, `tern recipe show RECIPE` the whole recipe with the origin of each value.

- **Strict.** An unknown, misplaced, ill-typed or doubled key is an error with file, line, column and the nearest valid
  key. Text in quotes is text: `steps: "100"` is refused.
- **Parts.** `use: model/bitnet_3m` merges `configs/model/bitnet_3m.yaml`; of a list of parts, later ones win over
  earlier ones, and keys beside `use` over all of them. `configs` is the nearest folder of that name beside or above the
  recipe's file, or `$TERN_CONFIGS`.
- **Overrides.** `tern run RECIPE train.steps=100 name=mine 'data.files=[my/*.txt]' model.use=model/bitnet_6m`: any key
  under its name here, the value read as YAML, with a stage's id in place of its kind. They win over the file.
- **Files.** Relative names in `data.files`, `data.validation_files` and `files` of sources are relative to the folder in
  which tern is started, not to the recipe's.
- **Sources** (`data.sources`) are named by you: `sources: {web: {files: [...], weight: 0.8}, ...}`; NAME in the table
  stands for such a name. What they may be and how they are mixed: [data.md](data.md). So are rules of `quantize`.
- **Stages** run in their order. A stage's id is its kind; a second one of a kind must give `id`.
- **Later changes.** A run goes on only with the recipe it was begun with. Keys marked * may change between two starts;
  so may `train.steps`, to a larger number.
- **Ranks.** `parallel` says how several processes share a training; how many there are is the launcher's word
  ([distributed.md](distributed.md)).

## Recipes and parts that come with tern

| file | what |
| --- | --- |
| `recipes/quickstart.yaml` | a ternary model of 3 M parameters on Shakespeare: train, measure, ship, verify, write |
| `recipes/quickstart_dense.yaml` | its dense twin |
| `recipes/bitnet_700m_100b.yaml` | BitNet b1.58 700M as published, on your text |
| `recipes/bitnet_1_3b_100b.yaml` | BitNet b1.58 1.3B as published, on your text |
| `recipes/bitnet_3b_100b.yaml` | BitNet b1.58 3B as published, on your text |
| `recipes/bitnet_2b4t.yaml` | the shape of BitNet b1.58-2B-4T, on your text |
| `recipes/qat_int4_smollm2.yaml`, and `int3`, `int2`, `fp8`, `nvfp4` | SmolLM2-135M fine-tuned in that format ([distillation.md](distillation.md)) |
| `recipes/bitdistill_smollm2_135m.yaml` | SmolLM2-135M to ternary by distillation |
| `recipes/distill_compact_student.yaml` | SmolLM2-135M as the teacher of a small ternary student |
| `recipes/efficientqat_w2g64_llama2_7b.yaml` | Llama-2-7B to 2 bits layer by layer, as published, on your text |
| `recipes/quantize_smollm2.yaml` | SmolLM2-135M to a 4-bit folder and a GGUF file, without training ([quantize.md](quantize.md)) |
| `use:` in `model` | model/bitnet_3m, model/bitnet_6m, model/bitnet_31m; the published shapes model/bitnet_700m, model/bitnet_1_3b, model/bitnet_3b, model/bitnet_2b4t |
| `use:` in `data` | data/shakespeare: the corpus of the quickstart |
| `use:` in a train stage | train/bitnet_two_stage, train/dense_cosine, train/qat |

## Recipe
)";

constexpr const char* kSomeSource = "NAME";  // Stands for names that the user chooses in paths

// Without its stages. With one source, so that a source's keys are there.
Recipe Defaults() {
  Recipe defaults;
  defaults.data.sources.emplace_back().name = kSomeSource;
  return defaults;
}

// A stage of that kind with its defaults; with one rule of quantization, so that a rule's keys are
// there.
Stage DefaultStage(const std::string& kind) {
  Stage stage = MakeStage(kind);
  if (auto* train = std::get_if<TrainStage>(&stage))
    train->quantize.rules.emplace_back().name = kSomeSource;
  return stage;
}

// The whole schema with its defaults; a stage's keys are under its kind.
std::vector<ListedField> AllFields() {
  std::vector<ListedField> all = ListRecipe(Defaults());
  for (const char* kind : StageKinds()) {
    Stage stage = DefaultStage(kind);
    for (ListedField& field : ListStage(stage)) all.push_back(std::move(field));
  }
  return all;
}

std::string RangeOf(const Meta& meta) {
  if (std::isinf(meta.low) || std::isinf(meta.high) || meta.low == meta.high) return "";
  return StrCat(ShortNumber(meta.low), " to ", ShortNumber(meta.high));
}

// The schema's path for a path whose first part may be the id of a stage of the recipe.
std::string SchemaPath(const std::string& path, const LoadedRecipe* loaded) {
  const std::string sources = "data.sources.";
  if (path.starts_with(sources)) {
    const size_t end = std::min(path.find('.', sources.size()), path.size());
    return StrCat(sources, kSomeSource, path.substr(end));
  }
  const size_t dot = path.find('.');
  std::string of_kind = path;
  if (loaded != nullptr && dot != std::string::npos) {
    for (const Stage& stage : loaded->recipe.stages) {
      if (IdOf(stage) == path.substr(0, dot)) of_kind = KindOf(stage) + path.substr(dot);
    }
  }
  const std::string rules = "train.quantize.rules.";
  if (!of_kind.starts_with(rules)) return of_kind;
  return StrCat(rules, kSomeSource,
                of_kind.substr(std::min(of_kind.find('.', rules.size()), of_kind.size())));
}

std::string ValueIn(const LoadedRecipe& loaded, const std::string& path) {
  std::vector<ListedField> fields = ListRecipe(loaded.recipe);
  for (const Stage& stage : loaded.recipe.stages) {
    for (ListedField& field : ListStage(stage)) fields.push_back(std::move(field));
  }
  for (const ListedField& field : fields) {
    if (field.path == path) return field.value;
  }
  return "";
}

void AddTable(const std::vector<ListedField>& fields, std::string* out) {
  *out += "\n| key | default | allowed | unit | what for |\n| --- | --- | --- | --- | --- |\n";
  for (const ListedField& field : fields) {
    if (field.is_map) {
      *out += StrCat("| `", field.path, ":` | | | | ", field.meta.why, " |\n");
      continue;
    }
    std::string allowed = RangeOf(field.meta);
    if (allowed.empty()) allowed = field.type;
    std::replace(allowed.begin(), allowed.end(), '|', '/');
    std::string why = field.meta.why;
    std::replace(why.begin(), why.end(), '|', '/');
    *out += StrCat("| `", field.path, "` | ",
                   field.meta.required ? "required" : StrCat("`", field.value, "`"), " | ", allowed,
                   " | ", field.meta.unit, " | ", why, field.meta.may_change ? " *" : "", " |\n");
  }
}

}  // namespace

std::string WhereKeyBelongs(const std::string& key) {
  std::string places;
  for (const ListedField& field : AllFields()) {
    const size_t dot = field.path.rfind('.');
    const std::string name = dot == std::string::npos ? field.path : field.path.substr(dot + 1);
    if (name != key || key == "id") continue;
    places += places.empty() ? "" : " or ";
    places += dot == std::string::npos ? "the recipe itself" : field.path.substr(0, dot);
  }
  return places;
}

KeyExplanation ExplainKey(const std::string& path, const LoadedRecipe* loaded) {
  const std::string schema_path = SchemaPath(path, loaded);
  std::vector<std::string> names;
  for (const ListedField& field : AllFields()) {
    names.push_back(field.path);
    if (field.path != schema_path) continue;
    KeyExplanation key{.key = path,
                       .why = field.meta.why,
                       .type = field.type,
                       .unit = field.meta.unit,
                       .range = RangeOf(field.meta),
                       .fallback = {},
                       .is_map = field.is_map,
                       .required = field.meta.required,
                       .may_change = field.meta.may_change,
                       .value = {},
                       .origin = {}};
    if (field.is_map) return key;
    if (!field.meta.required) key.fallback = field.value;
    if (loaded == nullptr) return key;
    const auto origin = loaded->origins.find(path);
    key.value = ValueIn(*loaded, path);
    key.origin = origin != loaded->origins.end() ? origin->second : "default";
    return key;
  }
  const std::string near = Nearest(path, names), home = WhereKeyBelongs(path);
  throw RecipeError(StrCat("unknown key ", path,
                           near.empty() ? "" : StrCat("; did you mean ", near, "?"),
                           home.empty() ? "" : StrCat("; a key of that name belongs to ", home)));
}

std::string ToText(const KeyExplanation& key) {
  std::string text = StrCat(key.key, ": ", key.why, "\n  type     ", key.type, "\n");
  if (key.is_map) return text;
  if (!key.unit.empty()) text += StrCat("  unit     ", key.unit, "\n");
  if (!key.range.empty()) text += StrCat("  range    ", key.range, "\n");
  text += StrCat("  default  ", key.fallback.value_or("none, it must be given"), "\n");
  text += StrCat("  change   ", key.may_change ? "allowed between two starts of a run\n"
                                               : "between two starts of a run is an error\n");
  if (key.value) text += StrCat("  here     ", *key.value, " (", *key.origin, ")\n");
  return text;
}

std::string ToJson(const KeyExplanation& key) {
  const auto or_null = [](const std::optional<std::string>& text) {
    return text ? nlohmann::json(*text) : nlohmann::json();
  };
  return nlohmann::ordered_json{{"key", key.key},
                                {"why", key.why},
                                {"type", key.type},
                                {"unit", key.unit},
                                {"range", key.range},
                                {"default", or_null(key.fallback)},
                                {"required", key.required},
                                {"may_change", key.may_change},
                                {"value", or_null(key.value)},
                                {"origin", or_null(key.origin)}}
             .dump() +
         "\n";
}

std::string RecipeReferenceMarkdown() {
  std::string out = kPageHead;
  AddTable(ListRecipe(Defaults()), &out);
  for (const char* kind : StageKinds()) {
    out += StrCat("\n## Stage `", kind, "`\n");
    AddTable(ListStage(DefaultStage(kind)), &out);
  }
  return out;
}

}  // namespace tern::recipe
