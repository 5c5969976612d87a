// See service.h.
#include "serve/service.h"

#include <algorithm>
#include <random>

#include "base/error.h"

namespace tern::serve {
namespace {

constexpr int64_t kDefaultCompletionTokens = 16;  // As OpenAI's
// How often somebody who waits for a whole answer is looked for.
constexpr std::chrono::milliseconds kLookForClient{100};

int64_t UnixTime() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

uint64_t RandomBits() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

std::string NewId(ApiKind kind) {
  char text[48];
  std::snprintf(text, sizeof text, "%s-%016llx", kind == ApiKind::kChat ? "chatcmpl" : "cmpl",
                static_cast<unsigned long long>(RandomBits()));
  return text;
}

std::string ServerSentEvent(const std::string& json) { return "data: " + json + "\n\n"; }

}  // namespace

Answer ErrorAnswer(const ApiError& error) {
  Answer answer;
  answer.status = error.status;
  answer.body = ErrorBody(error);
  answer.retry_after = error.retry_after;
  return answer;
}

// One request at work: what has been told of each choice, and what is still to come.
class Service::Call : public AnswerStream {
 public:
  explicit Call(AnswerHead head) : head_(std::move(head)) {}
  ~Call() override {
    if (ticket_) ticket_->Cancel();
  }

  // `echo`: the text that a choice begins with.
  void AddChoice(std::string echo) { choices_.push_back({std::move(echo)}); }

  void Start(std::shared_ptr<Ticket> ticket, int64_t prompt_tokens, bool include_usage) {
    ticket_ = std::move(ticket);
    open_ = choices_.size();
    usage_.prompt_tokens = prompt_tokens;
    include_usage_ = include_usage;
  }

  std::string Whole(const ClientGone& client_gone) {
    std::vector<ChoicePart> parts(choices_.size());
    for (size_t i = 0; i < parts.size(); ++i) parts[i].index = static_cast<int64_t>(i);
    auto looked = std::chrono::steady_clock::now();
    while (open_ > 0) {
      std::optional<Event> event = ticket_->Next(kLookForClient);
      const auto now = std::chrono::steady_clock::now();
      if (now - looked >= kLookForClient) {
        if (client_gone()) throw ApiError(499, "the client has gone");
        looked = now;
      }
      if (!event) continue;
      ChoicePart more = Read(std::move(*event));
      ChoicePart& part = parts[static_cast<size_t>(more.index)];
      part.text += more.text;
      part.tokens.insert(part.tokens.end(), std::make_move_iterator(more.tokens.begin()),
                         std::make_move_iterator(more.tokens.end()));
      part.finish = more.finish;
    }
    return WholeAnswer(head_, parts, usage_);
  }

  std::optional<std::string> Next(std::chrono::milliseconds timeout) override {
    if (ended_) return {};
    try {
      if (open_ == 0) {
        ended_ = true;
        std::string out;
        if (include_usage_) out = ServerSentEvent(UsagePart(head_, usage_));
        return out + "data: [DONE]\n\n";
      }
      std::optional<Event> event = ticket_->Next(timeout);
      if (!event) return "";
      std::string out;
      if (head_.kind == ApiKind::kChat && !choices_[event->choice].begun)
        out = ServerSentEvent(RolePart(head_, static_cast<int64_t>(event->choice), include_usage_));
      choices_[event->choice].begun = true;
      const ChoicePart part = Read(std::move(*event));
      // A text that may be part of a stop string is held back: nothing to tell yet.
      if (part.text.empty() && !part.finish && !head_.logprobs) return out;
      return out + ServerSentEvent(StreamPart(head_, part, include_usage_));
    } catch (const ApiError& error) {
      ended_ = true;
      return ServerSentEvent(ErrorBody(error));
    }
  }

 private:
  struct Choice {
    std::string echo;
    bool begun = false;
    int64_t offset = 0;  // Characters told, as the tokens count them
  };

  ChoicePart Read(Event event) {
    Choice& choice = choices_[event.choice];
    Progress& progress = event.progress;
    ChoicePart part;
    part.index = static_cast<int64_t>(event.choice);
    part.text_offset = choice.offset;
    part.text = std::exchange(choice.echo, "") + progress.text;
    part.finish = progress.finish;
    usage_.completion_tokens += std::ssize(progress.tokens);
    if (progress.finish) --open_;
    part.tokens = std::move(progress.prompt);
    part.tokens.insert(part.tokens.end(), std::make_move_iterator(progress.tokens.begin()),
                       std::make_move_iterator(progress.tokens.end()));
    for (const ScoredToken& token : part.tokens) choice.offset += CharacterCount(token.text);
    return part;
  }

  AnswerHead head_;
  std::shared_ptr<Ticket> ticket_;
  std::vector<Choice> choices_;
  size_t open_ = 0;  // Choices that have not ended
  Usage usage_;
  bool include_usage_ = false, ended_ = false;
};

Service::Service(const engine::Engine& engine, ServiceOptions options, Scheduler* scheduler,
                 Metrics* metrics)
    : engine_(engine),
      options_(std::move(options)),
      scheduler_(scheduler),
      metrics_(metrics),
      created_(UnixTime()) {}

void Service::CheckModel(const std::string& model) const {
  if (!model.empty() && model != options_.model_id)
    throw ApiError(404,
                   StrCat("there is no model ",
                          model.size() <= 200 ? StrCat("\"", model, "\"") : "of that name",
                          " here; this server has \"", options_.model_id, "\""),
                   "model", "model_not_found");
}

std::vector<int32_t> Service::Encode(const Prompt& prompt) const {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) return *ids;
  const text::Tokenizer& tokenizer = *engine_.weights().tokenizer;
  std::vector<int32_t> tokens;
  if (tokenizer.bos_id() >= 0) tokens.push_back(tokenizer.bos_id());
  try {
    const std::vector<int32_t> ids = tokenizer.Encode(std::get<std::string>(prompt));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  } catch (const InputError& error) {
    throw ApiError(400, error.what(), "prompt", "invalid_value");
  }
  return tokens;
}

std::string Service::Decode(const std::vector<int32_t>& ids) const {
  try {
    return engine_.weights().tokenizer->Decode(ids);
  } catch (const InputError& error) {
    throw ApiError(400, error.what(), "prompt", "invalid_value");
  }
}

std::vector<int32_t> Service::EncodeChat(const std::vector<text::ChatMessage>& messages) const {
  if (!options_.chat_template)
    throw ApiError(400,
                   StrCat("the model ", options_.model_id,
                          " has no chat template; use "
                          "/v1/completions, or start the server with --chat-template"),
                   "model", "no_chat_template");
  try {
    const std::string text =
        options_.chat_template->Render(messages, /*add_generation_prompt=*/true);
    return engine_.weights().tokenizer->EncodeWithSpecial(text);
  } catch (const Error& error) {  // What the template refuses, and its limits
    throw ApiError(400, error.what(), "messages", "invalid_value");
  }
}

std::shared_ptr<Service::Call> Service::NewCall(ApiKind kind, const CommonRequest& request) const {
  AnswerHead head{kind,
                  NewId(kind),
                  options_.model_id,
                  UnixTime(),
                  request.top_logprobs >= 0,
                  &*engine_.weights().tokenizer};
  return std::make_shared<Call>(std::move(head));
}

Answer Service::Start(std::shared_ptr<Call> call, const CommonRequest& request,
                      const std::vector<std::vector<int32_t>>& prompts, int64_t default_tokens,
                      bool echo, const ClientGone& client_gone) {
  std::vector<GenerationRequest> choices;
  int64_t prompt_tokens = 0;
  for (const std::vector<int32_t>& prompt : prompts) {
    prompt_tokens += std::ssize(prompt);
    const int64_t rest = std::max<int64_t>(scheduler_->context() - std::ssize(prompt), 1);
    for (int64_t i = 0; i < request.n; ++i) {
      GenerationRequest choice;
      choice.tokens = prompt;
      choice.max_tokens = request.max_tokens.value_or(std::min(default_tokens, rest));
      choice.sampling = request.sampling;
      choice.sampling.seed =
          request.seeded ? request.sampling.seed + static_cast<uint64_t>(i) : RandomBits();
      choice.stop = request.stop;
      choice.top_logprobs = request.top_logprobs;
      choice.prompt_logprobs = echo && request.top_logprobs >= 0;
      choice.ignore_eos = request.ignore_eos;
      choices.push_back(std::move(choice));
    }
  }
  call->Start(scheduler_->Submit(std::move(choices), options_.request_limit), prompt_tokens,
              request.include_usage);
  Answer answer;
  if (request.stream) {
    answer.content_type = "text/event-stream";
    answer.stream = std::move(call);
  } else {
    answer.body = call->Whole(client_gone);
  }
  return answer;
}

Answer Service::Completions(std::string_view body, const ClientGone& client_gone) {
  const CompletionRequest request = ParseCompletionRequest(body);
  CheckModel(request.model);
  const auto call = NewCall(ApiKind::kCompletion, request);
  std::vector<std::vector<int32_t>> prompts;
  for (const Prompt& prompt : request.prompts) {
    prompts.push_back(Encode(prompt));
    std::string echo;
    if (request.echo) {
      const auto* text = std::get_if<std::string>(&prompt);
      echo = text != nullptr ? *text : Decode(prompts.back());
    }
    for (int64_t i = 0; i < request.n; ++i) call->AddChoice(echo);
  }
  return Start(call, request, prompts, kDefaultCompletionTokens, request.echo, client_gone);
}

Answer Service::Chat(std::string_view body, const ClientGone& client_gone) {
  const ChatRequest request = ParseChatRequest(body);
  CheckModel(request.model);
  const auto call = NewCall(ApiKind::kChat, request);
  for (int64_t i = 0; i < request.n; ++i) call->AddChoice("");
  return Start(call, request, {EncodeChat(request.messages)}, scheduler_->context(), false,
               client_gone);
}

Answer Service::Models() const {
  Answer answer;
  answer.body = ModelListBody(options_.model_id, created_, scheduler_->context());
  return answer;
}

Answer Service::Model(std::string_view id) const {
  CheckModel(std::string(id));
  Answer answer;
  answer.body = ModelBody(options_.model_id, created_, scheduler_->context());
  return answer;
}

Answer Service::Health() const {
  Answer answer;
  answer.body = "{\"status\":\"ok\"}";
  return answer;
}

Answer Service::MetricsText(int64_t connections) const {
  Gauges gauges = scheduler_->gauges();
  gauges.connections = connections;
  Answer answer;
  answer.content_type = "text/plain; version=0.0.4";
  answer.body = metrics_->Render(gauges);
  return answer;
}

}  // namespace tern::serve
