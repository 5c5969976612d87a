// The server on a loopback socket, with clients of every kind: well-behaved, slow, hostile, gone.
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "serve/chat_page.h"
#include "serve/http_server.h"
#include "tests/serve/raw_client.h"
#include "tests/serve/serve_model.h"

namespace tern::testing {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    http_.port = 0;
    scheduler_options_.pages = 64;
    scheduler_options_.max_running = 4;
    service_options_.model_id = "tiny";
    service_options_.chat_template.emplace(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}To:", "<s>", "</s>");
  }
  ~ServerTest() override { Stop(); }

  void Start() {
    scheduler_ =
        std::make_unique<serve::Scheduler>(ServeEngine<1>(), scheduler_options_, &metrics_);
    service_ = std::make_unique<serve::Service>(ServeEngine<1>(), service_options_,
                                                scheduler_.get(), &metrics_);
    server_ = std::make_unique<serve::HttpServer>(http_, service_.get(), &metrics_);
    const std::string url = server_->url();
    port_ = std::stoi(url.substr(url.rfind(':') + 1));
    thread_ = std::thread([this] {
      server_->Run([this] { return stop_.load(); }, [this] { scheduler_->Drain(drain_); });
    });
  }

  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

  Reply Call(const std::string& request) {
    RawClient client(port_);
    client.Send(request);
    return Split(client.ReceiveAll());
  }

  Reply Complete(const json& body) { return Call(Post("/v1/completions", body.dump())); }

  void ExpectError(const std::string& request, int status, const std::string& part) {
    const Reply reply = Call(request);
    SCOPED_TRACE(reply.head + reply.body);
    ASSERT_EQ(reply.status, status);
    EXPECT_NE(reply.Json()["error"]["message"].get<std::string>().find(part), std::string::npos);
  }

  // Until a request is at work or, on a busy machine, was.
  void WaitForWork() {
    while (metrics_.Render({}).find("\ntern_steps_total 0\n") != std::string::npos &&
           scheduler_->gauges().running == 0)
      std::this_thread::sleep_for(1ms);
  }

  // The slot and the pages of a client that went away come back.
  void ExpectIdleSoon() {
    for (int i = 0; i < 6000; ++i) {
      const serve::Gauges gauges = scheduler_->gauges();
      if (gauges.running == 0 && gauges.waiting == 0 && gauges.kv_pages_used == 0) return;
      std::this_thread::sleep_for(10ms);
    }
    ADD_FAILURE() << "sequences still run";
  }

  serve::HttpOptions http_;
  serve::SchedulerOptions scheduler_options_;
  serve::ServiceOptions service_options_;
  std::chrono::milliseconds drain_{60'000};
  serve::Metrics metrics_;
  std::unique_ptr<serve::Scheduler> scheduler_;
  std::unique_ptr<serve::Service> service_;
  std::unique_ptr<serve::HttpServer> server_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
  int port_ = 0;
};

const json kShort = {{"prompt", "To be"}, {"max_tokens", 6}, {"temperature", 0}};
// Takes longer than any test wants to wait.
const json kLongStream = {
    {"prompt", "To be"}, {"max_tokens", 290}, {"n", 200}, {"stream", true}, {"ignore_eos", true}};

TEST_F(ServerTest, StreamGivesTheWholeAnswersText) {
  Start();
  json body = kShort;
  body["n"] = 2;
  body["seed"] = 5;
  body["temperature"] = 1;
  const json whole = Complete(body).Json();
  EXPECT_EQ(Complete(body).Json()["choices"], whole["choices"]);  // The same again
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  RawClient client(port_);
  client.Send(Post("/v1/completions", body.dump()));
  const std::string text = client.ReceiveAll();
  std::string texts[2];
  json usage, finish[2];
  for (size_t at = 0; (at = text.find("data: {", at)) != std::string::npos; ++at) {
    const json part = json::parse(text.substr(at + 6, text.find("\n\n", at) - at - 6));
    for (const json& choice : part["choices"]) {
      texts[choice["index"].get<int>()] += choice["text"].get<std::string>();
      if (!choice["finish_reason"].is_null())
        finish[choice["index"].get<int>()] = choice["finish_reason"];
    }
    if (!part["usage"].is_null()) usage = part["usage"];
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(texts[i], whole["choices"][i]["text"]);
    EXPECT_EQ(finish[i], whole["choices"][i]["finish_reason"]);
  }
  EXPECT_EQ(usage, whole["usage"]);
  EXPECT_NE(text.find("data: [DONE]\n\n"), std::string::npos);
}

// What lm-evaluation-harness reads of its batches.
TEST_F(ServerTest, EchoScoresThePromptAndOneToken) {
  Start();
  const json answer = Complete({{"model", "tiny"},
                                {"prompt", {{5, 6, 7, 8}, {9, 10}}},
                                {"echo", true},
                                {"max_tokens", 1},
                                {"logprobs", 1},
                                {"temperature", 0},
                                {"seed", 1234}})
                          .Json();
  ASSERT_EQ(answer["choices"].size(), 2u);
  const size_t sizes[] = {4, 2};
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    const json& l = answer["choices"][i]["logprobs"];
    for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
      EXPECT_EQ(l[list].size(), sizes[i] + 1) << list;
    EXPECT_TRUE(l["token_logprobs"][0].is_null());
    for (size_t t = 1; t <= sizes[i]; ++t) {
      double best = -1e9;
      for (const auto& [name, value] : l["top_logprobs"][t].items())
        best = std::max(best, value.get<double>());
      EXPECT_LE(l["token_logprobs"][t].get<double>(), best);
      EXPECT_LT(best, 0);
    }
    // The new token is the most probable one, with exactly that value.
    EXPECT_EQ(l["token_logprobs"].back(), l["top_logprobs"].back().front());
  }
  EXPECT_EQ(answer["usage"],
            (json{{"prompt_tokens", 6}, {"completion_tokens", 2}, {"total_tokens", 8}}));
  // Of a text: the echo is the text itself.
  const json text = Complete({{"prompt", "To be"}, {"echo", true}, {"max_tokens", 0}}).Json();
  EXPECT_EQ(text["choices"][0]["text"], "To be");
  EXPECT_EQ(text["choices"][0]["finish_reason"], "length");
}

TEST_F(ServerTest, ChatStreamsRoleThenText) {
  Start();
  json body = {{"messages", {{{"role", "user"}, {"content", "be"}}}},
               {"max_tokens", 5},
               {"temperature", 0},
               {"logprobs", true},
               {"top_logprobs", 2}};
  const Reply whole = Call(Post("/v1/chat/completions", body.dump()));
  ASSERT_EQ(whole.status, 200) << whole.body;
  const json choice = whole.Json()["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["logprobs"]["content"].size(), whole.Json()["usage"]["completion_tokens"]);
  body["stream"] = true;
  const Reply stream = Call(Post("/v1/chat/completions", body.dump()));
  EXPECT_NE(stream.head.find("text/event-stream"), std::string::npos);
  const size_t role = stream.body.find("\"role\":\"assistant\""),
               text = stream.body.find("\"logprobs\":{");
  EXPECT_LT(role, text);
  // As if the template had been written out by hand.
  const json plain =
      Complete({{"prompt", "user: be\nTo:"}, {"max_tokens", 5}, {"temperature", 0}}).Json();
  // The template of this test writes no BOS, which completions put in front: ids then differ.
  EXPECT_EQ(whole.Json()["usage"]["prompt_tokens"].get<int>() + 1, plain["usage"]["prompt_tokens"]);
}

TEST_F(ServerTest, ErrorsAreOpenAis) {
  Start();
  ExpectError(Post("/v1/completions", "{\"prompt\":"), 400, "JSON");
  ExpectError(Post("/v1/completions", R"({"prompt":"a","model":"gpt"})"), 404, "no model \"gpt\"");
  ExpectError(Post("/v1/completions", R"({"prompt":"a","max_tokens":300})"), 400,
              "maximum context");
  ExpectError(Post("/v1/completions", R"({"prompt":"a\u0000b"})"), 400, "NUL");
  ExpectError(Post("/v1/completions", R"({"prompt":[265]})"), 400, "token id 265");
  ExpectError(Get("/nowhere"), 404, "no such path");
  ExpectError(Get("/v1/models/other"), 404, "no model");
  ExpectError(Get("/v1/completions"), 405, "not allowed");
  ExpectError(Post("/health", "{}"), 405, "not allowed");
  ExpectError(Get("/" + std::string(2000, 'a')), 414, "path");
  ExpectError(Get("/" + std::string(9000, 'a')), 414, "path");
  ExpectError("nonsense\r\n\r\n", 400, "no HTTP");
  ExpectError("POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n\r\n", 411,
              "Content-Length");
  ExpectError("POST /v1/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 415, "Content-Type");
  const std::string json_type = "Content-Type: application/json\r\n";
  ExpectError("POST /v1/completions HTTP/1.1\r\n" + json_type + "Content-Length: -2\r\n\r\n{}", 400,
              "Content-Length");
  ExpectError("POST /v1/completions HTTP/1.1\r\n" + json_type +
                  "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
              400, "both");
  ExpectError(Post("/v1/completions", "{}", "Content-Encoding: gzip\r\n"), 415, "compressed");
  ExpectError("GET /v1/models HTTP/1.1\r\nConnection: close\r\nHost: a.b\r\n\r\n", 403, "Host");
  EXPECT_EQ(Call(Get("/health")).status, 200);
}

TEST_F(ServerTest, PlainRoutesAnswer) {
  Start();
  EXPECT_EQ(Call(Get("/v1/models")).Json()["data"][0]["id"], "tiny");
  EXPECT_EQ(Call(Get("/v1/models/tiny")).Json()["max_model_len"], 300);
  Complete(kShort);
  // A sequence gives its pages back after its last token was sent.
  std::string metrics;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  do {
    metrics = Call(Get("/metrics")).body;
  } while (metrics.find("tern_kv_pages_used 0\n") == std::string::npos &&
           std::chrono::steady_clock::now() < limit);
  for (const char* line :
       {"tern_http_requests_total{route=\"/v1/completions\",code=\"200\"} 1\n",
        "tern_prompt_tokens_total 6\n", "tern_generated_tokens_total 6\n", "tern_kv_pages_used 0\n",
        "tern_kv_pages 64\n", "tern_first_token_seconds_count 1\n", "tern_token_seconds_count 5\n"})
    EXPECT_NE(metrics.find(line), std::string::npos) << line << metrics;
  const Reply page = Call(Get("/"));
  EXPECT_EQ(page.body, serve::kChatPage);
  EXPECT_NE(page.head.find("default-src 'none'; script-src 'sha256-"), std::string::npos);
  EXPECT_EQ(page.head.find("Access-Control"), std::string::npos);
}

TEST_F(ServerTest, ConnectionServesSeveralRequests) {
  Start();
  RawClient client(port_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    EXPECT_EQ(Split(client.ReceiveUntil("\"ok\"}")).status, 200);
  }
  // Two at once, and the second one's answer is whole, too.
  client.Send("GET /health HTTP/1.1\r\nHost: a.b\r\n\r\n" + Get("/health"));
  const std::string both = client.ReceiveAll();
  EXPECT_NE(both.find("\"ok\"}HTTP/1.1 200"), std::string::npos) << both;
}

TEST_F(ServerTest, KeyIsAskedFor) {
  http_.api_key = "secret";
  Start();
  ExpectError(Get("/v1/models"), 401, "API key");
  ExpectError(Get("/metrics"), 401, "API key");
  ExpectError(Get("/v1/models", "Authorization: Bearer secre\r\n"), 401, "API key");
  ExpectError(Get("/v1/models", "Authorization: Bearer \r\n"), 401, "API key");
  ExpectError(Get("/v1/models", "Authorization: secret\r\n"), 401, "API key");
  ExpectError(Post("/v1/completions", kShort.dump()), 401, "API key");
  EXPECT_EQ(Call(Get("/v1/models", "Authorization: Bearer secret\r\n")).status, 200);
  EXPECT_EQ(Call(Post("/v1/completions", kShort.dump(), "Authorization: Bearer secret\r\n")).status,
            200);
  EXPECT_EQ(Call(Get("/health")).status, 200);
  EXPECT_EQ(Call(Get("/")).status, 200);
}

TEST_F(ServerTest, LargeBodiesAreRefused) {
  http_.max_body_bytes = 1000;
  Start();
  const std::string large(1001, ' ');
  ExpectError(Post("/v1/completions", large), 413, "1000");
  // Announced, and never sent: the answer comes at once.
  ExpectError(
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: "
      "99999999999\r\n\r\n",
      413, "99999999999");
  ExpectError(
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: "
      "99999999999999999999999\r\n\r\n",
      413, "Content-Length");
  const std::string chunked =
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";
  ExpectError(chunked + "3e9\r\n" + large + "\r\n0\r\n\r\n", 413, "1000");
  const std::string body = kShort.dump();
  char size[16];
  std::snprintf(size, sizeof size, "%zx", body.size());
  RawClient client(port_);
  client.Send(chunked + size + "\r\n" + body + "\r\n0\r\n\r\n");
  EXPECT_EQ(Split(client.ReceiveUntil("\"usage\"")).status, 200);
  // A head without end.
  RawClient endless(port_);
  endless.Send("GET /health HTTP/1.1\r\n");
  for (int i = 0; i < 100 && endless.Send("A: " + std::string(1000, 'a') + "\r\n"); ++i) continue;
  EXPECT_NE(Split(endless.ReceiveAll()).status, 200);
}

TEST_F(ServerTest, ClientsThatGoFreeTheirSlot) {
  Start();
  {
    RawClient client(port_);
    client.Send(Post("/v1/completions", kLongStream.dump()));
    EXPECT_NE(client.ReceiveUntil("data: ").find("data: "), std::string::npos);
  }
  ExpectIdleSoon();
  EXPECT_EQ(Complete(kShort).status, 200);
}

TEST_F(ServerTest, ClientsThatGoFreeTheirSlotWithoutAStream) {
  Start();
  json whole = kLongStream;
  whole["stream"] = false;
  {
    RawClient client(port_);
    client.Send(Post("/v1/completions", whole.dump()));
    WaitForWork();
  }
  ExpectIdleSoon();
  EXPECT_EQ(Complete(kShort).status, 200);
}

TEST_F(ServerTest, FullQueueIs429WithRetryAfter) {
  scheduler_options_.max_running = 1;
  scheduler_options_.max_waiting = 1;
  Start();
  RawClient client(port_);
  client.Send(Post("/v1/completions", kLongStream.dump()));
  client.ReceiveUntil("data: ");
  const Reply reply = Complete(kShort);
  EXPECT_EQ(reply.status, 429);
  EXPECT_NE(reply.head.find("\r\nRetry-After: "), std::string::npos) << reply.head;
  EXPECT_EQ(reply.Json()["error"]["type"], "rate_limit_error");
  client.Close();
  ExpectIdleSoon();
}

TEST_F(ServerTest, SlowClientsAreLeft) {
  http_.limits.request = 300ms;
  http_.limits.idle = 300ms;
  Start();
  // A byte now and then keeps no thread beyond the limit.
  RawClient dripping(port_);
  bool open = true;
  const std::string head = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
  for (size_t i = 0; open && i < 1000; ++i) {
    open = dripping.Send(i < head.size() ? head.substr(i, 1) : "a");
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_FALSE(open) << "ten seconds of single bytes";
  RawClient half(port_);
  half.Send(
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Content-Length: 50\r\n\r\n{\"prompt\"");
  EXPECT_EQ(Split(half.ReceiveAll()).status, 408);
  RawClient silent(port_);
  EXPECT_EQ(silent.ReceiveAll(), "");
}

TEST_F(ServerTest, ClientsThatDoNotReadAreLeft) {
  http_.limits.write = 200ms;
  Start();
  RawClient client(port_, /*receive_buffer=*/4096);
  // Some megabytes of log probabilities: more than the kernel's buffers of a connection.
  json body = {{"prompt", std::vector<std::string>(200, std::string(280, 'b'))},
               {"max_tokens", 0},
               {"echo", true},
               {"logprobs", 20},
               {"stream", true}};
  client.Send(Post("/v1/completions", body.dump()));
  WaitForWork();
  ExpectIdleSoon();
}

TEST_F(ServerTest, ConnectionsTooManyAreTold) {
  http_.max_connections = 2;
  Start();
  RawClient a(port_), b(port_);
  for (RawClient* client : {&a, &b}) {
    client->Send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(Split(client->ReceiveUntil("\"ok\"}")).status, 200);
  }
  RawClient c(port_);
  const Reply reply = Split(c.ReceiveAll());
  EXPECT_EQ(reply.status, 503);
  EXPECT_NE(reply.body.find("too many connections"), std::string::npos);
}

TEST_F(ServerTest, StopLetsRequestsEnd) {
  Start();
  json body = kShort;
  body["max_tokens"] = 200;
  body["ignore_eos"] = true;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  RawClient idle(port_), working(port_);
  idle.Send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  idle.ReceiveUntil("\"ok\"}");
  working.Send(Post("/v1/completions", body.dump()));
  working.ReceiveUntil("data: ");
  Stop();
  const std::string rest = working.ReceiveAll();
  EXPECT_NE(rest.find("\"completion_tokens\":200"), std::string::npos) << rest;
  EXPECT_NE(rest.find("[DONE]"), std::string::npos);
  EXPECT_EQ(idle.ReceiveAll(), "");
  EXPECT_THROW(RawClient{port_}, std::runtime_error);
}

TEST_F(ServerTest, StopEndsWhatTakesTooLong) {
  drain_ = 50ms;
  Start();
  RawClient client(port_);
  client.Send(Post("/v1/completions", kLongStream.dump()));
  client.ReceiveUntil("data: ");
  Stop();
  const std::string rest = client.ReceiveAll();
  EXPECT_NE(rest.find("the server stopped before"), std::string::npos);
  EXPECT_EQ(rest.find("[DONE]"), std::string::npos);
}

TEST_F(ServerTest, DeadlineIsToldInTheStream) {
  service_options_.request_limit = 50ms;
  Start();
  const std::string text = Call(Post("/v1/completions", kLongStream.dump())).body;
  EXPECT_NE(text.find("longer than the server's limit"), std::string::npos);
  json whole = kLongStream;
  whole["stream"] = false;
  whole["n"] = 50;  // Fits into the queue beside those of before, which may still be there
  EXPECT_EQ(Complete(whole).status, 504);
}

TEST(ListenTest, RefusesAddressesThatCannotBe) {
  serve::HttpOptions http;
  http.port = 0;
  http.host = "no such host.invalid";
  serve::Metrics metrics;
  EXPECT_THROW(serve::HttpServer(http, nullptr, &metrics), UsageError);
  http.host = "127.0.0.1";
  const serve::HttpServer first(http, nullptr, &metrics);
  EXPECT_TRUE(first.loopback());
  http.port = std::stoi(first.url().substr(first.url().rfind(':') + 1));
  EXPECT_THROW(serve::HttpServer(http, nullptr, &metrics), ResourceError);
}

// Goal: no bytes at all bring the server down or keep it from its next client.
class HttpRawFuzz : public ServerTest {};

TEST_F(HttpRawFuzz, NoBytesBringItDown) {
  http_.limits.request = 500ms;
  http_.limits.idle = 500ms;
  http_.max_body_bytes = 5000;
  Start();
  RandomStream random(7, "http");
  const std::string seeds[] = {
      Post("/v1/completions", kShort.dump()), Get("/v1/models"),
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
      "GET /health HTTP/1.1\r\nRange: bytes=0-1,5-\r\nExpect: 100-continue\r\n\r\n"};
  for (int i = 0; i < 300; ++i) {
    std::string bytes = seeds[random.NextU64() % std::size(seeds)];
    for (uint64_t k = random.NextU64() % 6; k > 0; --k) {
      const size_t at = random.NextU64() % bytes.size();
      switch (random.NextU64() % 3) {
        case 0:
          bytes[at] = static_cast<char>(random.NextU64());
          break;
        case 1:
          bytes.erase(at, 1 + random.NextU64() % 8);
          break;
        default:
          bytes.insert(at, bytes.substr(0, random.NextU64() % 64));
          break;
      }
      if (bytes.empty()) bytes = "\r\n";
    }
    RawClient client(port_);
    client.Send(bytes);
    if (random.NextU64() % 4 == 0) client.ReceiveUntil("\r\n\r\n");
  }
  EXPECT_EQ(Complete(kShort).status, 200);
  ExpectIdleSoon();
}

}  // namespace
}  // namespace tern::testing
