// See openai_request.h.
#include "serve/openai_request.h"

#include <limits>

#include "base/error.h"
#include "serve/api_error.h"
#include "serve/request_fields.h"

namespace tern::serve {
namespace {

using nlohmann::json;

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

[[noreturn]] void WrongPrompt(const std::string& message) {
  throw ApiError(400, message, "prompt", "invalid_value");
}

std::vector<int32_t> TokenIds(const json& list) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > kMaxInt32)
      WrongPrompt(StrCat("prompt holds ", Shown(id), " among token ids; want integers from 0"));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// A text, a list of texts, a list of token ids, or a list of such lists.
std::vector<Prompt> ReadPrompts(RequestFields* fields) {
  const json* value = fields->Find("prompt");
  if (value == nullptr) WrongPrompt("prompt is missing");
  if (value->is_string()) return {value->get<std::string>()};
  const char* want = "; want a text, a list of texts, token ids, or a list of lists of token ids";
  if (!value->is_array()) WrongPrompt(StrCat("prompt is ", Shown(*value), want));
  if (value->empty()) WrongPrompt("prompt is an empty list; want at least one prompt");
  if (value->front().is_number()) return {TokenIds(*value)};
  std::vector<Prompt> prompts;
  if (static_cast<int64_t>(value->size()) > kMaxChoices)
    WrongPrompt(
        StrCat(value->size(), " prompts in one request; want at most ", kMaxChoices, " of them"));
  for (const json& prompt : *value) {
    if (prompt.is_string() && value->front().is_string()) {
      prompts.emplace_back(prompt.get<std::string>());
    } else if (prompt.is_array() && value->front().is_array()) {
      prompts.emplace_back(TokenIds(prompt));
    } else {
      WrongPrompt(StrCat("prompt holds ", Shown(prompt), want));
    }
  }
  return prompts;
}

std::vector<std::string> ReadStops(RequestFields* fields) {
  const json* value = fields->Find("stop");
  if (value == nullptr) return {};
  const auto wrong = [](const std::string& message) {
    throw ApiError(400, message, "stop", "invalid_value");
  };
  std::vector<std::string> stops;
  const json list = value->is_array() ? *value : json::array({*value});
  if (static_cast<int64_t>(list.size()) > kMaxStops)
    wrong(StrCat(list.size(), " stop strings; want at most ", kMaxStops));
  for (const json& stop : list) {
    if (!stop.is_string()) wrong(StrCat("stop is ", Shown(stop), "; want a text or list of texts"));
    stops.push_back(stop.get<std::string>());
    if (stops.back().empty() || static_cast<int64_t>(stops.back().size()) > kMaxStopBytes)
      wrong(StrCat("a stop string has ", stops.back().size(), " bytes; want 1 to ", kMaxStopBytes));
  }
  return stops;
}

void ReadSampling(RequestFields* fields, CommonRequest* request) {
  engine::SamplingOptions& sampling = request->sampling;
  sampling.temperature = fields->Number("temperature", 0, 2).value_or(1);
  sampling.top_p = fields->Number("top_p", 0, 1).value_or(1);
  sampling.min_p = fields->Number("min_p", 0, 1).value_or(0);
  // -1 is another spelling of "all".
  sampling.top_k = std::max<int64_t>(fields->Integer("top_k", -1, kMaxInt32).value_or(0), 0);
  sampling.repetition_penalty = fields->Number("repetition_penalty", 0.01, 100).value_or(1);
  sampling.penalty_tokens = -1;  // Prompt and answer
  const auto seed = fields->Integer("seed", std::numeric_limits<int64_t>::min(),
                                    std::numeric_limits<int64_t>::max());
  request->seeded = seed.has_value();
  sampling.seed = static_cast<uint64_t>(seed.value_or(0));
}

void ReadCommon(RequestFields* fields, CommonRequest* request) {
  request->model = fields->Text("model").value_or("");
  request->max_tokens = fields->Integer("max_tokens", 0, kMaxInt32);
  ReadSampling(fields, request);
  request->stop = ReadStops(fields);
  request->n = fields->Integer("n", 1, kMaxChoices).value_or(1);
  request->ignore_eos = fields->Bool("ignore_eos").value_or(false);
  request->stream = fields->Bool("stream").value_or(false);
  if (const json* options = fields->Find("stream_options")) {
    const auto wrong = [](const std::string& message) {
      throw ApiError(400, message, "stream_options", "invalid_value");
    };
    if (!request->stream) wrong("stream_options without \"stream\": true");
    if (!options->is_object()) wrong("stream_options is no object");
    for (const auto& [name, value] : options->items()) {
      if (name != "include_usage" || !value.is_boolean())
        wrong(StrCat("stream_options holds ", Shown(name), ": ", Shown(value),
                     "; want include_usage: true or false"));
      request->include_usage = value.get<bool>();
    }
  }
  const char* why = "the penalties are not supported; repetition_penalty is";
  fields->RefuseUnless("presence_penalty", {0, 0.0}, why);
  fields->RefuseUnless("frequency_penalty", {0, 0.0}, why);
  fields->RefuseUnless("logit_bias", {json::object()}, "biases are not supported");
  fields->Ignore({"user", "metadata", "store", "service_tier"});
}

std::string MessageText(const json& content, size_t index) {
  const auto wrong = [&](const std::string& found) {
    throw ApiError(400,
                   StrCat("content of message ", index, " is ", found,
                          "; want a text or a list of {\"type\": \"text\", \"text\": ...}"),
                   "messages", "invalid_value");
  };
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) wrong(Shown(content));
  std::string text;
  for (const json& part : content) {
    if (!part.is_object() || part.size() != 2 || !part.contains("type") || part["type"] != "text" ||
        !part.contains("text") || !part["text"].is_string())
      wrong(StrCat("a list that holds ", Shown(part)));
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

text::ChatMessage ReadMessage(const json& message, size_t index) {
  const auto wrong = [&](const std::string& what) {
    throw ApiError(400, StrCat("message ", index, " ", what), "messages", "invalid_value");
  };
  if (!message.is_object()) wrong(StrCat("is ", Shown(message), "; want an object"));
  for (const auto& [name, value] : message.items()) {
    if (name != "role" && name != "content" && name != "name")
      wrong(StrCat("has the member ", Shown(name), "; want role, content and maybe name"));
  }
  if (!message.contains("role") || !message["role"].is_string()) wrong("has no role; want a text");
  text::ChatMessage out;
  out.role = message["role"].get<std::string>();
  if (out.role == "developer") out.role = "system";  // OpenAI's later name of it
  if (out.role != "system" && out.role != "user" && out.role != "assistant")
    wrong(StrCat("has the role ", Shown(message["role"]),
                 "; want system, developer, user or assistant"));
  if (!message.contains("content")) wrong("has no content; want a text");
  out.content = MessageText(message["content"], index);
  return out;
}

}  // namespace

CompletionRequest ParseCompletionRequest(std::string_view body) {
  RequestFields fields(body);
  CompletionRequest request;
  ReadCommon(&fields, &request);
  request.prompts = ReadPrompts(&fields);
  request.echo = fields.Bool("echo").value_or(false);
  request.top_logprobs = fields.Integer("logprobs", 0, kMaxTopLogprobs).value_or(-1);
  fields.RefuseUnless("best_of", {1}, "only 1 is supported; use n");
  fields.RefuseUnless("suffix", {""}, "filling in is not supported");
  fields.CheckAllKnown();
  if (static_cast<int64_t>(request.prompts.size()) * request.n > kMaxChoices)
    throw ApiError(400,
                   StrCat(request.prompts.size(), " prompts times n ", request.n, "; want at most ",
                          kMaxChoices, " choices in one request"),
                   "n", "invalid_value");
  return request;
}

ChatRequest ParseChatRequest(std::string_view body) {
  RequestFields fields(body);
  ChatRequest request;
  ReadCommon(&fields, &request);
  const auto newer = fields.Integer("max_completion_tokens", 0, kMaxInt32);
  if (newer && request.max_tokens && *newer != *request.max_tokens)
    throw ApiError(400, "max_tokens and max_completion_tokens differ; give one of them",
                   "max_completion_tokens", "invalid_value");
  if (newer) request.max_tokens = newer;
  const bool logprobs = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top && !logprobs)
    throw ApiError(400, "top_logprobs without \"logprobs\": true", "top_logprobs", "invalid_value");
  if (logprobs) request.top_logprobs = top.value_or(0);
  const json* messages = fields.Find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty() ||
      static_cast<int64_t>(messages->size()) > kMaxMessages)
    throw ApiError(400,
                   StrCat("messages is ", messages == nullptr ? "missing" : Shown(*messages),
                          "; want a list of 1 to ", kMaxMessages, " messages"),
                   "messages", "invalid_value");
  for (size_t i = 0; i < messages->size(); ++i)
    request.messages.push_back(ReadMessage((*messages)[i], i));
  const char* no_tools = "tools are not supported";
  for (const char* name : {"tools", "functions"})
    fields.RefuseUnless(name, {json::array()}, no_tools);
  for (const char* name : {"tool_choice", "function_call"})
    fields.RefuseUnless(name, {"none"}, no_tools);
  fields.RefuseUnless("response_format", {{{"type", "text"}}},
                      "only {\"type\": \"text\"} is supported");
  fields.Ignore({"parallel_tool_calls"});
  fields.CheckAllKnown();
  return request;
}

}  // namespace tern::serve
