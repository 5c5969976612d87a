// tern serve: an OpenAI-compatible HTTP server of one model (docs/serving.md).
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/stop_signal.h"
#include "engine_cli/commands.h"
#include "engine_cli/model_options.h"
#include "serve/http_server.h"

namespace tern::engine_cli {
namespace {

struct Flags {
  std::string model, name, chat_template;
  serve::HttpOptions http;
  serve::SchedulerOptions scheduler;
  int threads = 0;
  engine::CodeActivations activations = engine::CodeActivations::kInt16;
  int64_t cache_mib = 2048;
  double request_seconds = 600, drain_seconds = 30, idle_seconds = 15, read_seconds = 30,
         write_seconds = 20;
};

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

// "model" of "folder/model.gguf" and of "folder/model/".
std::string DefaultName(const std::string& path) {
  std::filesystem::path name = std::filesystem::absolute(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  return name.extension() == ".gguf" ? name.stem() : name.filename();
}

std::optional<text::ChatTemplate> ChatTemplateOf(const Flags& flags, const engine::Engine& engine) {
  if (flags.chat_template.empty()) return engine.chat_template();
  const text::Tokenizer& tokenizer = *engine.weights().tokenizer;
  const auto piece = [&](int32_t id) { return id >= 0 ? tokenizer.piece(id) : std::string(); };
  return text::ChatTemplate(ReadFile(flags.chat_template), piece(tokenizer.bos_id()),
                            piece(tokenizer.eos_id()));
}

// Pages that fit into the memory, and never more than all sequences together can use.
int64_t CachePages(const Flags& flags, const ModelConfig& config) {
  const int64_t page_bytes =
      config.num_layers *
      kernels::KvPageBytes(flags.scheduler.cache, config.num_kv_heads, config.HeadDim());
  const int64_t context =
      flags.scheduler.context > 0 ? flags.scheduler.context : config.context_length;
  const int64_t pages = flags.cache_mib * (1 << 20) / page_bytes;
  if (pages < 1)
    throw UsageError(StrCat("--cache-mib ", flags.cache_mib, " is less than one page of ",
                            page_bytes, " bytes"));
  return std::min(pages, flags.scheduler.max_running * engine::KvCache::PagesFor(context));
}

void Run(Flags flags) {
  const char* key = std::getenv("TERN_API_KEY");
  if (flags.http.api_key.empty() && key != nullptr) flags.http.api_key = key;
  flags.http.limits.idle = Milliseconds(flags.idle_seconds);
  flags.http.limits.request = Milliseconds(flags.read_seconds);
  flags.http.limits.write = Milliseconds(flags.write_seconds);
  const engine::Engine engine(LoadWeights(flags.model, flags.activations), flags.threads);
  flags.scheduler.pages = CachePages(flags, engine.config());
  serve::Metrics metrics;
  serve::Scheduler scheduler(engine, flags.scheduler, &metrics);
  serve::ServiceOptions service_options;
  service_options.model_id = flags.name.empty() ? DefaultName(flags.model) : flags.name;
  service_options.chat_template = ChatTemplateOf(flags, engine);
  service_options.request_limit = Milliseconds(flags.request_seconds);
  serve::Service service(engine, service_options, &scheduler, &metrics);
  serve::HttpServer server(flags.http, &service, &metrics);
  InstallStopSignals();
  std::cout << server.url() << std::endl;
  LogInfo("serving ", service_options.model_id, " (context ", scheduler.context(), ", ",
          flags.scheduler.pages, " cache pages, up to ", flags.scheduler.max_running,
          " sequences at once)");
  if (!server.loopback() && flags.http.api_key.empty())
    LogWarn("anybody who reaches ", server.url(), " may use it: no API key is set");
  if (!service_options.chat_template)
    LogWarn(
        "the model has no chat template: /v1/chat/completions and the chat page need "
        "--chat-template");
  server.Run([] { return StopRequested(); },
             [&] {
               LogInfo(SignalName(StopSignal()), ": no new requests; those at work have ",
                       flags.drain_seconds, " s");
               scheduler.Drain(Milliseconds(flags.drain_seconds));
             });
}

void AddLimits(CLI::App* command, Flags* flags) {
  const auto seconds = [&](const char* name, double* value, const char* help) {
    command->add_option(name, *value, help)->check(CLI::Range(0.1, 86400.0))->capture_default_str();
  };
  const auto count = [&](const char* name, int64_t* value, const char* help, int64_t most) {
    command->add_option(name, *value, help)
        ->check(CLI::Range(int64_t{1}, most))
        ->capture_default_str();
  };
  serve::SchedulerOptions& scheduler = flags->scheduler;
  count("--max-running", &scheduler.max_running, "Sequences at work together", 4096);
  count("--max-waiting", &scheduler.max_waiting, "Sequences in the queue; then 429", 1 << 20);
  count("--step-rows", &scheduler.step_rows, "Prompt tokens of one pass at most", 1 << 16);
  count("--cache-mib", &flags->cache_mib, "Memory of keys and values at most", 1 << 24);
  count("--max-connections", &flags->http.max_connections, "Then 503", 900);
  count("--max-body-bytes", &flags->http.max_body_bytes, "Of a request; then 413", 1 << 30);
  seconds("--request-seconds", &flags->request_seconds, "Of one request; then 504");
  seconds("--drain-seconds", &flags->drain_seconds, "For requests at work when stopped");
  seconds("--idle-seconds", &flags->idle_seconds, "Between requests of a connection");
  seconds("--read-seconds", &flags->read_seconds, "For a request to arrive; then 408");
  seconds("--write-seconds", &flags->write_seconds, "Without a byte taken by the client");
}

}  // namespace

void AddServeCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("serve", "An OpenAI-compatible server, and a chat page");
  command->footer(
      "Example: tern serve model.gguf --port 8080\n"
      "The URL is printed on stdout. SIGTERM or Ctrl-C lets requests at work end. The API key may "
      "also come in TERN_API_KEY.");
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, kModelHelp)->required();
  command->add_option("--host", flags->http.host, "Address to listen on")->capture_default_str();
  command->add_option("--port", flags->http.port, "0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--api-key", flags->http.api_key, "Clients must send it as bearer token");
  command->add_option("--name", flags->name, "Of the model in the API; default: the file's");
  command->add_option("--chat-template", flags->chat_template, "Jinja file instead of the model's");
  command->add_option("--context", flags->scheduler.context, "Tokens of a sequence; 0: the model's")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddCacheOption(command, &flags->scheduler.cache);
  AddActivationsOption(command, &flags->activations);
  AddThreadsOption(command, &flags->threads);
  AddLimits(command, flags.get());
  command->callback([flags] { Run(*flags); });
}

}  // namespace tern::engine_cli
