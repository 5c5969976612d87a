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

// tokenizer.json does not say which token ends a text: tokenizer_config.json does, or config.json.
void SetEos(const ModelFiles& files, const std::string& where, text::Tokenizer* tokenizer) {
  const std::string text = TokenText(ReadConfig(files, where), "eos_token");
  if (!text.empty()) {
    const auto id = tokenizer->IdOf(text);
    TERN_CHECK_FORMAT(id.has_value(), where, "/tokenizer_config.json: eos_token ", text,
                      " is not in tokenizer.json");
    return tokenizer->SetEos(*id);
  }
  const auto found = files.find("config.json");
  if (found == files.end()) return;
  const json config = formats::ParseStrictJson(found->second, where + "/config.json");
  if (!config.is_object() || !config.contains("eos_token_id")) return;
  const json& eos = config["eos_token_id"];
  const json& first = eos.is_array() && !eos.empty() ? eos[0] : eos;
  if (!first.is_number_integer()) return;
  const auto id = first.get<int64_t>();
  if (id >= tokenizer->vocab_size()) return;  // No text holds it: as in stop_tokens.h
  TERN_CHECK_FORMAT(id >= 0, where, "/config.json: eos_token_id is ", id, "; want a token's id");
  tokenizer->SetEos(static_cast<int32_t>(id));
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

std::string SpecialTokenText(const std::string& config_json, const char* key) {
  return TokenText(formats::ParseStrictJson(config_json, "tokenizer_config.json"), key);
}

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
  // An export of ours has both files, and the SentencePiece model is the one that it was trained
  // with.
  auto file = files.find("tokenizer.model");
  const bool sentence_piece = file != files.end();
  if (!sentence_piece) file = files.find("tokenizer.json");
  if (file == files.end()) {
    LogWarn(where, " has neither tokenizer.json nor tokenizer.model");
    return std::nullopt;
  }
  const std::string path = StrCat(where, "/", file->first);
  text::Tokenizer tokenizer = text::Tokenizer::FromSerialized(file->second, path);
  TERN_CHECK_FORMAT(tokenizer.vocab_size() <= model_vocab_size, path, " has ",
                    tokenizer.vocab_size(), " pieces and the model ", model_vocab_size,
                    " rows; a piece without a row cannot be run");
  if (!sentence_piece) SetEos(files, where, &tokenizer);
  return tokenizer;
}

}  // namespace tern::engine
