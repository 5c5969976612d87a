// The routes of the server as functions: a request's body in, an answer out, whole or as a stream
// of server-sent events. Turns typed requests into sequences of the scheduler and their events into
// OpenAI's answers. Knows nothing of sockets; any number of threads may call it at once.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "serve/metrics.h"
#include "serve/openai_request.h"
#include "serve/openai_response.h"
#include "serve/scheduler.h"

namespace tern::serve {

struct ServiceOptions {
  std::string model_id;
  std::optional<text::ChatTemplate> chat_template;
  std::chrono::milliseconds request_limit{600'000};  // From its queueing to its last token
};

// The rest of an answer that comes bit by bit. Its end, however it comes, cancels what still runs.
class AnswerStream {
 public:
  virtual ~AnswerStream() = default;
  // The next bytes: maybe none when nothing came within `timeout`; nothing at all at the end. What
  // fails after the first byte is told in the stream.
  virtual std::optional<std::string> Next(std::chrono::milliseconds timeout) = 0;
};

struct Answer {
  int status = 200;
  std::string content_type = "application/json", body;
  int retry_after = 0;                   // Seconds; 0: no such header
  std::shared_ptr<AnswerStream> stream;  // Instead of `body`
};

// An error as an answer.
Answer ErrorAnswer(const ApiError& error);

class Service {
 public:
  using ClientGone = std::function<bool()>;

  // All must outlive it.
  Service(const engine::Engine& engine, ServiceOptions options, Scheduler* scheduler,
          Metrics* metrics);

  // Throw ApiError. `client_gone` is asked now and then while an answer that comes whole is made;
  // ApiError 499 when it says so.
  Answer Completions(std::string_view body, const ClientGone& client_gone);
  Answer Chat(std::string_view body, const ClientGone& client_gone);
  Answer Models() const;
  Answer Model(std::string_view id) const;
  Answer Health() const;
  Answer MetricsText(int64_t connections) const;

 private:
  class Call;

  void CheckModel(const std::string& model) const;
  std::vector<int32_t> Encode(const Prompt& prompt) const;
  std::string Decode(const std::vector<int32_t>& ids) const;
  std::vector<int32_t> EncodeChat(const std::vector<text::ChatMessage>& messages) const;
  Answer Start(std::shared_ptr<Call> call, const CommonRequest& request,
               const std::vector<std::vector<int32_t>>& prompts, int64_t default_tokens, bool echo,
               const ClientGone& client_gone);
  std::shared_ptr<Call> NewCall(ApiKind kind, const CommonRequest& request) const;

  const engine::Engine& engine_;
  const ServiceOptions options_;
  Scheduler* scheduler_;
  Metrics* metrics_;
  int64_t created_;
};

}  // namespace tern::serve
