// Requests of OpenAI's interfaces: what is read, what is refused with which words, and that no body
// whatever does more than one of the two. Answers: their shape.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/random.h"
#include "serve/openai_request.h"
#include "serve/openai_response.h"
#include "tests/serve/serve_model.h"

namespace tern::testing {
namespace {

using nlohmann::json;
using serve::ApiError;

json Completion() { return {{"prompt", "To be"}}; }
json Chat() { return {{"messages", {{{"role", "user"}, {"content", "To be"}}}}}; }

void ExpectRefused(const std::function<void()>& parse, const std::string& param,
                   const std::string& part) {
  try {
    parse();
    ADD_FAILURE() << "accepted; want a refusal of " << param;
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.param, param) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

void ExpectCompletionRefused(const std::string& name, const json& value, const std::string& part) {
  SCOPED_TRACE(name + " " + value.dump());
  json body = Completion();
  body[name] = value;
  ExpectRefused([&] { serve::ParseCompletionRequest(body.dump()); }, name, part);
}

void ExpectChatRefused(const std::string& name, const json& value, const std::string& part) {
  SCOPED_TRACE(name + " " + value.dump());
  json body = Chat();
  body[name] = value;
  ExpectRefused([&] { serve::ParseChatRequest(body.dump()); }, name, part);
}

TEST(CompletionRequestTest, ReadsEveryMember) {
  const auto r = serve::ParseCompletionRequest(
      R"({"model":"m","prompt":["a","b"],"max_tokens":0,"temperature":0.5,"top_p":0.9,"top_k":7,
          "min_p":0.1,"repetition_penalty":1.5,"seed":-1,"stop":["x","y"],"n":3,"logprobs":5,
          "echo":true,"stream":true,"stream_options":{"include_usage":true},"suffix":null,
          "best_of":1,"user":"me","presence_penalty":0,"frequency_penalty":0.0,"logit_bias":{},
          "ignore_eos":true})");
  EXPECT_EQ(r.model, "m");
  ASSERT_EQ(r.prompts.size(), 2u);
  EXPECT_EQ(std::get<std::string>(r.prompts[1]), "b");
  EXPECT_EQ(r.max_tokens, 0);
  EXPECT_EQ(r.sampling.temperature, 0.5);
  EXPECT_EQ(r.sampling.top_p, 0.9);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.sampling.min_p, 0.1);
  EXPECT_EQ(r.sampling.repetition_penalty, 1.5);
  EXPECT_EQ(r.sampling.seed, ~uint64_t{0});
  EXPECT_TRUE(r.seeded);
  EXPECT_EQ(r.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(r.n, 3);
  EXPECT_EQ(r.top_logprobs, 5);
  EXPECT_TRUE(r.echo && r.stream && r.include_usage && r.ignore_eos);
}

TEST(CompletionRequestTest, DefaultsAreOpenAis) {
  const auto r = serve::ParseCompletionRequest(Completion().dump());
  EXPECT_EQ(r.sampling.temperature, 1);
  EXPECT_EQ(r.sampling.top_p, 1);
  EXPECT_EQ(r.n, 1);
  EXPECT_EQ(r.top_logprobs, -1);
  EXPECT_FALSE(r.max_tokens || r.seeded || r.echo || r.stream || r.include_usage || r.ignore_eos);
}

TEST(CompletionRequestTest, TakesEveryKindOfPrompt) {
  const auto prompts = [](const json& prompt) {
    return serve::ParseCompletionRequest(json{{"prompt", prompt}}.dump()).prompts;
  };
  EXPECT_EQ(prompts("a").size(), 1u);
  EXPECT_EQ(prompts({"a", ""}).size(), 2u);
  ASSERT_EQ(prompts({1, 2, 3}).size(), 1u);
  EXPECT_EQ(std::get<1>(prompts({1, 2, 3})[0]), (std::vector<int32_t>{1, 2, 3}));
  const auto lists = prompts({{1}, {2, 3}, json::array()});
  ASSERT_EQ(lists.size(), 3u);
  EXPECT_EQ(std::get<1>(lists[1]), (std::vector<int32_t>{2, 3}));
  for (const json& bad : {json(7), json(true), json::object(), json::array(), json{"a", 1},
                          json{1, "a"}, json{{1}, "a"}, json{-1}, json{1.5}, json{4294967296},
                          json{18446744073709551615u}, json{{1, nullptr}}, json{{{1}}}})
    ExpectCompletionRefused("prompt", bad, "prompt");
  ExpectRefused([] { serve::ParseCompletionRequest("{}"); }, "prompt", "missing");
  ExpectCompletionRefused("prompt", std::vector<std::string>(257, "a"), "256");
}

TEST(CompletionRequestTest, RefusesByTypeAndRange) {
  for (const json& bad : {json("0"), json(true), json(-0.1), json(2.1), json::array()})
    ExpectCompletionRefused("temperature", bad, "a number from 0 to 2");
  for (const char* share : {"top_p", "min_p"}) {
    ExpectCompletionRefused(share, 1.01, "a number from 0 to 1");
    ExpectCompletionRefused(share, "1", "a number from 0 to 1");
  }
  for (const json& bad :
       {json(-1), json(1.0), json("1"), json(1e30), json(2147483648), json(18446744073709551615u)})
    ExpectCompletionRefused("max_tokens", bad, "an integer from 0 to 2147483647");
  ExpectCompletionRefused("top_k", -2, "-1");
  ExpectCompletionRefused("repetition_penalty", 0, "0.01");
  ExpectCompletionRefused("seed", 9223372036854775808u, "integer");
  ExpectCompletionRefused("seed", "1", "integer");
  ExpectCompletionRefused("n", 0, "1 to 256");
  ExpectCompletionRefused("n", 257, "1 to 256");
  ExpectCompletionRefused("logprobs", 21, "0 to 20");
  ExpectCompletionRefused("logprobs", true, "integer");
  for (const char* flag : {"stream", "echo", "ignore_eos"})
    ExpectCompletionRefused(flag, 1, "true");
  ExpectCompletionRefused("model", 1, "a text");
  for (const json& bad : {json(1), json{1}, json{"a", ""}, json(""), json(std::string(257, 'a'))})
    ExpectCompletionRefused("stop", bad, "stop");
  ExpectCompletionRefused("stop", std::vector<std::string>(17, "a"), "16");
  ExpectCompletionRefused("stream_options", {{"include_usage", true}}, "stream");
}

TEST(CompletionRequestTest, RefusesWhatItCannotHonour) {
  ExpectCompletionRefused("suffix", "end", "not supported");
  ExpectCompletionRefused("best_of", 2, "only 1");
  ExpectCompletionRefused("presence_penalty", 0.5, "not supported");
  ExpectCompletionRefused("frequency_penalty", -0.5, "not supported");
  ExpectCompletionRefused("logit_bias", {{"5", 1}}, "not supported");
  ExpectCompletionRefused("max_token", 5, "unknown member");
  ExpectCompletionRefused("messages", json::array(), "unknown member");
  ExpectRefused(
      [] {
        serve::ParseCompletionRequest(
            json{{"prompt", std::vector<std::string>(100, "a")}, {"n", 3}}.dump());
      },
      "n", "256 choices");
}

TEST(CompletionRequestTest, RefusesWhatIsNoObject) {
  for (const char* body : {"", "{", "[]", "1", "null", "\"a\"", "{\"prompt\":\"a\"}x", "{'a':1}",
                           "{\"prompt\":\"a\",\"prompt\":\"b\"}", "{\"prompt\":\"\xff\"}",
                           "[[[[[[[[[[[[1]]]]]]]]]]]]", "{\"prompt\":NaN}", "{\"n\":1e999}"}) {
    SCOPED_TRACE(body);
    ExpectRefused([&] { serve::ParseCompletionRequest(body); }, "", "request body");
  }
  ExpectRefused([] { serve::ParseCompletionRequest(std::string(1 << 20, '[')); }, "", "deeper");
}

TEST(ChatRequestTest, ReadsMessages) {
  const auto r = serve::ParseChatRequest(
      R"({"messages":[{"role":"developer","content":"a"},
                      {"role":"user","name":"n","content":[{"type":"text","text":"b"},
                                                           {"type":"text","text":"c"}]},
                      {"role":"assistant","content":"d"}],
          "max_completion_tokens":5,"logprobs":true,"top_logprobs":3,"tools":[],
          "tool_choice":"none","response_format":{"type":"text"}})");
  ASSERT_EQ(r.messages.size(), 3u);
  EXPECT_EQ(r.messages[0].role, "system");
  EXPECT_EQ(r.messages[1].content, "bc");
  EXPECT_EQ(r.messages[2].role, "assistant");
  EXPECT_EQ(r.max_tokens, 5);
  EXPECT_EQ(r.top_logprobs, 3);
  EXPECT_EQ(serve::ParseChatRequest(Chat().dump()).top_logprobs, -1);
}

TEST(ChatRequestTest, RefusesWithTheMembersName) {
  for (const json& bad :
       {json(1), json::array(), json{1}, json{{{"role", "user"}}}, json{{{"content", "a"}}},
        json{{{"role", "tool"}, {"content", "a"}}}, json{{{"role", 1}, {"content", "a"}}},
        json{{{"role", "user"}, {"content", 1}}}, json{{{"role", "user"}, {"content", nullptr}}},
        json{{{"role", "user"}, {"content", "a"}, {"tool_calls", 1}}},
        json{{{"role", "user"}, {"content", {{{"type", "image_url"}, {"image_url", "x"}}}}}},
        json{{{"role", "user"}, {"content", {{{"type", "text"}, {"text", 5}}}}}}})
    ExpectChatRefused("messages", bad, "want");
  ExpectChatRefused("top_logprobs", 3, "logprobs");
  ExpectChatRefused("tools", {{{"type", "function"}}}, "not supported");
  ExpectChatRefused("tool_choice", "auto", "not supported");
  ExpectChatRefused("response_format", {{"type", "json_object"}}, "only");
  ExpectChatRefused("prompt", "a", "unknown member");
  ExpectChatRefused("echo", true, "unknown member");
  json both = Chat();
  both["max_tokens"] = 1;
  both["max_completion_tokens"] = 2;
  ExpectRefused([&] { serve::ParseChatRequest(both.dump()); }, "max_completion_tokens", "differ");
}

// Values that stand where others should.
json OddValue(RandomStream* random, int depth = 0) {
  switch (random->NextU64() % (depth < 3 ? 14 : 11)) {
    case 0:
      return nullptr;
    case 1:
      return true;
    case 2:
      return static_cast<int64_t>(random->NextU64());
    case 3:
      return random->NextU64();
    case 4:
      return static_cast<int>(random->NextU64() % 5) - 1;
    case 5:
      return 1e308;
    case 6:
      return random->NextNormal();
    case 7:
      return "";
    case 8:
      return "text";
    case 9:
      return std::string(1, '\0') + "\xF0\x9F\x98\x80";
    case 10:
      return std::string(3000, 'a');
    case 11:
      return json{{"type", "text"}, {"text", OddValue(random, depth + 1)}};
    case 12:
      return json{{"role", "user"}, {"content", OddValue(random, depth + 1)}};
    default: {
      json list = json::array();
      for (uint64_t i = random->NextU64() % 4; i > 0; --i)
        list.push_back(OddValue(random, depth + 1));
      return list;
    }
  }
}

// Parses as both kinds: a typed request, or an ApiError 400 whose words are JSON-clean.
void ParseBoth(const std::string& body, int64_t* accepted) {
  for (const bool chat : {false, true}) {
    try {
      if (chat) {
        serve::ParseChatRequest(body);
      } else {
        serve::ParseCompletionRequest(body);
      }
      ++*accepted;
    } catch (const ApiError& error) {
      ASSERT_EQ(error.status, 400);
      const json parsed = json::parse(serve::ErrorBody(error));
      ASSERT_FALSE(parsed["error"]["message"].get<std::string>().empty());
    }
  }
}

TEST(HttpBodyFuzz, OddMembers) {
  RandomStream random(5, "members");
  const char* names[] = {"prompt",     "messages",   "model", "max_tokens",     "temperature",
                         "top_p",      "top_k",      "min_p", "seed",           "stop",
                         "n",          "logprobs",   "echo",  "stream",         "stream_options",
                         "suffix",     "best_of",    "user",  "top_logprobs",   "tools",
                         "logit_bias", "ignore_eos", "other", "response_format"};
  int64_t accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    json body = random.NextU64() % 2 == 0 ? Completion() : Chat();
    for (uint64_t k = random.NextU64() % 4; k > 0; --k)
      body[names[random.NextU64() % std::size(names)]] = OddValue(&random);
    ParseBoth(body.dump(-1, ' ', false, json::error_handler_t::replace), &accepted);
  }
  EXPECT_GT(accepted, 200);  // The fuzzer reaches past the checks
}

TEST(HttpBodyFuzz, FlippedAndCutBytes) {
  RandomStream random(6, "flips");
  int64_t accepted = 0;
  const std::string bodies[] = {
      R"({"prompt":[[1,2],[3]],"max_tokens":1,"logprobs":1,"echo":true,"temperature":0,"seed":1})",
      R"({"prompt":"a\u00e9\ud83d\ude00b","stop":["x"],"stream":true,"n":2,"top_p":0.5})",
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"b"}]}],"logprobs":true})"};
  for (int i = 0; i < 5000; ++i) {
    std::string body = bodies[random.NextU64() % 3];
    for (uint64_t k = random.NextU64() % 3; k > 0; --k)
      body[random.NextU64() % body.size()] = static_cast<char>(random.NextU64());
    if (random.NextU64() % 4 == 0) body.resize(random.NextU64() % (body.size() + 1));
    ParseBoth(body, &accepted);
  }
  EXPECT_GT(accepted, 1000);
}

class AnswerTest : public ::testing::Test {
 protected:
  const text::Tokenizer& tokenizer_ = *ServeEngine<1>().weights().tokenizer;
  serve::AnswerHead head_{serve::ApiKind::kCompletion, "cmpl-1", "m", 5, true, &tokenizer_};
};

TEST_F(AnswerTest, CompletionHasOpenAisShape) {
  serve::ChoicePart part{0, "To\xC3\xA9", {}, 0, serve::FinishReason::kLength};
  const auto bo = static_cast<int32_t>(ByteId('\xA9'));
  part.tokens.push_back({1, "", {}, {}});
  part.tokens.push_back({260, "T", -1.5, {{261, -0.5}, {260, -1.5}}});
  part.tokens.push_back({bo, "\xC3\xA9", -2.0, {{261, -0.25}}});
  const json a = json::parse(serve::WholeAnswer(head_, {part}, {3, 1}));
  EXPECT_EQ(a["object"], "text_completion");
  EXPECT_EQ(a["usage"]["total_tokens"], 4);
  const json& choice = a["choices"][0];
  EXPECT_EQ(choice["text"], "To\xC3\xA9");
  EXPECT_EQ(choice["finish_reason"], "length");
  const json& l = choice["logprobs"];
  EXPECT_EQ(l["tokens"], (json{"<s>", "T", "bytes:\\xa9"}));
  EXPECT_EQ(l["token_logprobs"], (json{nullptr, -1.5, -2.0}));
  EXPECT_TRUE(l["top_logprobs"][0].is_null());
  EXPECT_EQ(l["top_logprobs"][1], (json{{"o", -0.5}, {"T", -1.5}}));
  // The token itself is there, besides the best.
  EXPECT_EQ(l["top_logprobs"][2], (json{{"o", -0.25}, {"bytes:\\xa9", -2.0}}));
  EXPECT_EQ(l["text_offset"], (json{0, 0, 1}));  // Characters, not bytes
}

TEST_F(AnswerTest, TokensWithOneSpellingKeepTheHigherProbability) {
  serve::ChoicePart part{0, "T", {}, 0, {}};
  const auto byte = static_cast<int32_t>(ByteId('T'));
  part.tokens.push_back({byte, "T", -3.0, {{260, -0.5}, {byte, -3.0}}});
  const json a = json::parse(serve::WholeAnswer(head_, {part}, {}));
  EXPECT_EQ(a["choices"][0]["logprobs"]["top_logprobs"][0], (json{{"T", -0.5}}));
}

TEST_F(AnswerTest, ChatHasOpenAisShape) {
  head_.kind = serve::ApiKind::kChat;
  const serve::ChoicePart part{1, "T", {{260, "T", -1.5, {{261, -0.5}}}}, 0, {}};
  const json whole = json::parse(serve::WholeAnswer(head_, {part}, {}));
  EXPECT_EQ(whole["object"], "chat.completion");
  EXPECT_EQ(whole["choices"][0]["message"], (json{{"role", "assistant"}, {"content", "T"}}));
  const json& entry = whole["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(entry["token"], "T");
  EXPECT_EQ(entry["bytes"], json::array({84}));
  EXPECT_EQ(entry["top_logprobs"][0]["logprob"], -0.5);
  const json chunk = json::parse(serve::StreamPart(head_, part, true));
  EXPECT_EQ(chunk["object"], "chat.completion.chunk");
  EXPECT_EQ(chunk["choices"][0]["delta"], (json{{"content", "T"}}));
  EXPECT_TRUE(chunk["usage"].is_null() && chunk.contains("usage"));
  const json role = json::parse(serve::RolePart(head_, 1, false));
  EXPECT_EQ(role["choices"][0]["delta"]["role"], "assistant");
  EXPECT_FALSE(role.contains("usage"));
  EXPECT_TRUE(json::parse(serve::UsagePart(head_, {1, 2}))["choices"].empty());
}

TEST(ErrorBodyTest, HasAllFourMembers) {
  const json e = json::parse(serve::ErrorBody(ApiError(404, "no \xff", "model", "x")))["error"];
  EXPECT_EQ(e["type"], "invalid_request_error");
  EXPECT_EQ(e["param"], "model");
  EXPECT_EQ(e["code"], "x");
  EXPECT_EQ(e["message"], "no \xEF\xBF\xBD");
  const json plain = json::parse(serve::ErrorBody(ApiError(500, "m")))["error"];
  EXPECT_EQ(plain["type"], "server_error");
  EXPECT_TRUE(plain["param"].is_null() && plain["code"].is_null());
}

}  // namespace
}  // namespace tern::testing
