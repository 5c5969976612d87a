// See stop_tokens.h.
#include "engine/stop_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "formats/strict_json.h"

namespace tern::engine {
namespace {

using nlohmann::json;

std::vector<int32_t> Sorted(const std::set<int64_t>& ids, const text::Tokenizer& tokenizer) {
  std::vector<int32_t> out;
  for (const int64_t id : ids)
    if (id >= 0 && id < tokenizer.vocab_size()) out.push_back(static_cast<int32_t>(id));
  return out;
}

// False when the file is not there or does not say.
bool AddEosIds(const ModelFiles& files, const char* name, const std::string& where,
               std::set<int64_t>* ids) {
  const auto file = files.find(name);
  if (file == files.end()) return false;
  const std::string path = where + "/" + name;
  const json config = formats::ParseStrictJson(file->second, path);
  if (!config.is_object() || !config.contains("eos_token_id") || config["eos_token_id"].is_null())
    return false;
  const json& eos = config["eos_token_id"];
  const json list = eos.is_array() ? eos : json::array({eos});
  for (const json& id : list) {
    TERN_CHECK_FORMAT(id.is_number_integer(), path, ": eos_token_id is ", eos.dump(),
                      "; want a number or a list of them");
    ids->insert(id.get<int64_t>());
  }
  return true;
}

}  // namespace

std::vector<int32_t> ReadHfStopTokens(const ModelFiles& files, const std::string& where,
                                      const text::Tokenizer& tokenizer) {
  std::set<int64_t> ids = {tokenizer.eos_id()};
  if (!AddEosIds(files, "generation_config.json", where, &ids))
    AddEosIds(files, "config.json", where, &ids);
  return Sorted(ids, tokenizer);
}

std::vector<int32_t> ReadGgufStopTokens(const formats::GgufReader& file,
                                        const text::Tokenizer& tokenizer) {
  std::set<int64_t> ids = {tokenizer.eos_id()};
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (file.Has(key)) ids.insert(file.Int(key));
  for (const char* name : {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",
                           "<|endoftext|>", "<|end_of_text|>", "<EOT>"}) {
    const auto id = tokenizer.IdOf(name);
    if (id && (tokenizer.type(*id) == text::PieceType::kControl ||
               tokenizer.type(*id) == text::PieceType::kUserDefined))
      ids.insert(*id);
  }
  return Sorted(ids, tokenizer);
}

}  // namespace tern::engine
