// See hf_tokenizer.h.
#include "engine/hf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "formats/strict_json.h"

namespace tern::engine {
namespace {

using nlohmann::json;

// tokenizer_config.json, an empty object when it is not there.
json ReadConfig(const ModelFiles& files, const std::string& where) {
  const auto found = files.find("tokenizer_config.json");
  if (found == files.end()) return json::object();
  const std::string path = where + "/tokenizer_config.json";
  json config = formats::ParseStrictJson(found->second, path);
  TERN_CHECK_FORMAT(config.is_object(), path, " is no JSON object");
  return config;
}

// The text of "bos_token" or "eos_token": a string or an object with "content". Empty: none.
std::string TokenText(const json& config, const char* key) {
  if (!config.contains(key)) return "";
  const json& token = config[key];
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string())
    return token["content"].get<std::string>();
  TERN_CHECK_FORMAT(token.is_null(), "tokenizer_config.json: ", key, " is ", token.dump(),
                    "; want a text or an object with content");
  return "";
}

std::optional<std::string> TemplateIn(const json& config, const std::string& where) {
  if (!config.contains("chat_template") || config["chat_template"].is_null()) return std::nullopt;
  const json& found = config["chat_template"];
  if (found.is_string()) return found.get<std::string>();
  TERN_CHECK_FORMAT(found.is_array(), where,
                    "/tokenizer_config.json: chat_template is neither a text nor a list");
  for (const json& entry : found) {
    TERN_CHECK_FORMAT(entry.is_object() && entry.value("name", json()).is_string() &&
                          entry.value("template", json()).is_string(),
                      where, "/tokenizer_config.json: an entry of chat_template has no texts ",
                      "name and template");
    if (entry["name"] == "default") return entry["template"].get<std::string>();
  }
  return std::nullopt;
}

}  // namespace

std::optional<text::ChatTemplate> ParseChatTemplate(std::string source, std::string bos_token,
                                                    std::string eos_token,
                                                    const std::string& name) {
  try {
    return text::ChatTemplate(std::move(source), std::move(bos_token), std::move(eos_token));
  } catch (const FormatError& error) {
    LogWarn(name, ": the chat template cannot be used: ", error.what());
    return std::nullopt;
  }
}

std::optional<text::ChatTemplate> ReadHfChatTemplate(const ModelFiles& files,
                                                     const std::string& where) {
  const json config = ReadConfig(files, where);
  const auto file = files.find("chat_template.jinja");
  const std::optional<std::string> source =
      file != files.end() ? std::optional(file->second) : TemplateIn(config, where);
  if (!source) return std::nullopt;
  return ParseChatTemplate(*source, TokenText(config, "bos_token"), TokenText(config, "eos_token"),
                           where);
}

std::optional<text::Tokenizer> ReadHfTokenizer(const ModelFiles& files, const std::string& where,
                                               int64_t model_vocab_size) {
  const auto file = files.find("tokenizer.model");
  if (file == files.end()) {
    LogWarn(where, " has no tokenizer.model, the only kind of tokenizer this version reads");
    return std::nullopt;
  }
  const std::string path = where + "/tokenizer.model";
  text::Tokenizer tokenizer = text::Tokenizer::FromSerialized(file->second, path);
  TERN_CHECK_FORMAT(tokenizer.vocab_size() <= model_vocab_size, path, " has ",
                    tokenizer.vocab_size(), " pieces and the model ", model_vocab_size,
                    " rows; a piece without a row cannot be run");
  return tokenizer;
}

}  // namespace tern::engine
