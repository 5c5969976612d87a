// See http_server.h. The only file that includes httplib.h, which is slow to compile.
#include "serve/http_server.h"

#include <httplib.h>
#include <openssl/crypto.h>
#include <sys/socket.h>

#include <algorithm>
#include <list>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/sha256.h"
#include "serve/chat_page.h"
#include "serve/listener.h"

namespace tern::serve {
namespace {

using httplib::Request;
using httplib::Response;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxPath = 1024;
constexpr size_t kHeadBytes = 64 << 10;  // Of a request's line and headers
constexpr size_t kRequestsOfConnection = 10'000;
constexpr std::chrono::milliseconds kStreamTurn{100};  // How soon a lost client is seen

// What this thread's connection is at; httplib calls back without it.
struct Exchange {
  Connection* connection;
  std::string route = "other";
  Clock::time_point begun = Clock::now();
  // Where the next request begins is unknown: a body was not (wholly) read, or this is no HTTP.
  bool lost = false;
};
thread_local Exchange* t_exchange = nullptr;

class HttpStream : public httplib::Stream {
 public:
  explicit HttpStream(Connection* connection) : connection_(*connection) {}
  bool is_readable() const override { return true; }  // Reads and writes say when not
  bool is_writable() const override { return !failed_; }
  ssize_t read(char* to, size_t size) override { return connection_.Read(to, size); }
  ssize_t write(const char* from, size_t size) override {
    const ssize_t written = failed_ ? -1 : connection_.Write(from, size);
    failed_ |= written < 0;
    return written;
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    Connection::Name(connection_.fd(), /*peer=*/true, &ip, &port);
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    Connection::Name(connection_.fd(), /*peer=*/false, &ip, &port);
  }
  socket_t socket() const override { return connection_.fd(); }

 private:
  Connection& connection_;
  bool failed_ = false;
};

// The name in a Host header, without the port.
std::string HostName(const std::string& host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

// A page of the web can name itself by any domain that it lets resolve to this machine, but not by
// a bare address: that is how a browser tells "local" from "rebound".
bool IsLocalName(const std::string& host) {
  const std::string name = HostName(host);
  return name.empty() || name == "localhost" || name.starts_with('[') ||
         name.find_first_not_of("0123456789.") == std::string::npos;
}

void CheckBodyHeaders(const Request& request, int64_t max_body_bytes) {
  const auto single = [&](const char* name) {
    if (request.get_header_value_count(name) > 1)
      throw ApiError(400, StrCat("the header ", name, " comes twice"));
    return request.get_header_value(name);
  };
  const std::string length = single("Content-Length"), coding = single("Transfer-Encoding");
  if (!length.empty() && !coding.empty())
    throw ApiError(400, "both Content-Length and Transfer-Encoding; want one of them");
  if (length.empty() && coding.empty()) throw ApiError(411, "the body's Content-Length is missing");
  if (length.empty() && coding != "chunked")
    throw ApiError(400, "Transfer-Encoding is not chunked, the only one supported");
  if (!length.empty() &&
      (length.size() > 18 || length.find_first_not_of("0123456789") != std::string::npos))
    throw ApiError(length.find_first_not_of("0123456789") == std::string::npos ? 413 : 400,
                   "the Content-Length is no number of bytes that a body may have");
  if (!length.empty() && std::stoll(length) > max_body_bytes)
    throw ApiError(413, StrCat("the body has ", length, " bytes; want at most ", max_body_bytes));
  const std::string encoding = single("Content-Encoding");
  if (!encoding.empty() && encoding != "identity")
    throw ApiError(415, "the body is compressed; send it plain");
  std::string type = single("Content-Type");
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (type != "application/json") throw ApiError(415, "the Content-Type is not application/json");
}

}  // namespace

class HttpServer::Impl : public httplib::Server {
 public:
  Impl(const HttpOptions& options, Service* service, Metrics* metrics)
      : options_(options),
        service_(service),
        metrics_(*metrics),
        listener_(options.host, options.port),
        key_hash_(Sha256Hex(options.api_key)),
        page_policy_(ChatPagePolicy()) {
    options_.limits.request_bytes = static_cast<size_t>(options.max_body_bytes) + kHeadBytes;
    svr_sock_ = listener_.fd();  // httplib ends streams when it has no socket
    set_keep_alive_max_count(kRequestsOfConnection);
    set_keep_alive_timeout(
        std::chrono::duration_cast<std::chrono::seconds>(options_.limits.idle).count());
    set_pre_routing_handler([this](const Request& request, Response& response) {
      return Guarded(response, [&] { return BeforeBody(request, response); });
    });
    Post("/v1/.*",
         [this](const Request& request, Response& response, const httplib::ContentReader& reader) {
           Guarded(response, [&] {
             WithBody(request, response, reader);
             return HandlerResponse::Handled;
           });
         });
    set_error_handler([](const Request&, Response& response) { NameError(response); });
    set_exception_handler([](const Request&, Response& response, std::exception_ptr) {
      response.status = 500;  // Guarded lets none through; of httplib's own code
    });
    set_logger([this](const Request& request, const Response& response) {
      const double seconds =
          std::chrono::duration<double>(Clock::now() - t_exchange->begun).count();
      metrics_.CountRequest(t_exchange->route, response.status, seconds);
      LogDebug(request.method, " ", t_exchange->route, " ", response.status, " in ", seconds, " s");
    });
  }

  const Listener& listener() const { return listener_; }

  void Run(const std::function<bool()>& stop, const std::function<void()>& drain) {
    while (!stop()) {
      const int fd = listener_.Accept(/*timeout_ms=*/100);
      Reap(/*all=*/false);
      if (fd >= 0) Begin(fd);
    }
    listener_.Close();
    stopping_ = true;
    drain();
    Reap(/*all=*/true);
  }

 private:
  struct Worker {
    std::thread thread;
    std::atomic<bool> done{false};
  };

  void Begin(int fd) {
    if (std::ssize(workers_) >= options_.max_connections) {
      // Not worth a thread, nor a wait: what fits into the socket's buffer.
      const std::string body = ErrorBody(503, "too many connections");
      const std::string answer = StrCat(
          "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
          "Content-Type: application/json\r\nContent-Length: ",
          body.size(), "\r\n\r\n", body);
      if (::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        LogDebug("a connection too many was gone before it was told");
      ::close(fd);
      metrics_.CountRequest("refused connection", 503, 0);
      return;
    }
    Worker& worker = workers_.emplace_back();
    connections_ = std::ssize(workers_);
    worker.thread = std::thread([this, fd, &worker] {
      try {
        Serve(fd);
      } catch (const std::exception& error) {  // Memory; the others go on
        LogError("a connection failed: ", error.what());
      }
      worker.done = true;
    });
  }

  void Reap(bool all) {
    workers_.remove_if([&](Worker& worker) {
      if (!all && !worker.done) return false;
      worker.thread.join();
      return true;
    });
    connections_ = std::ssize(workers_);
  }

  void Serve(int fd) {
    Connection connection(fd, options_.limits, stopping_);
    for (size_t i = 0; i < kRequestsOfConnection && connection.WaitForRequest(); ++i) {
      HttpStream stream(&connection);
      Exchange exchange{&connection};
      t_exchange = &exchange;
      bool closed = false;
      const bool good = process_request(
          stream, stopping_ || i + 1 == kRequestsOfConnection, closed, [](Request& request) {
            request.ranges.clear();  // An answer is not cut
            request.headers.erase("Accept-Encoding");
            t_exchange->lost = request.method == "POST" || request.has_header("Content-Length") ||
                               request.has_header("Transfer-Encoding");
          });
      t_exchange = nullptr;
      if (!good || closed || exchange.lost || connection.timed_out() || connection.too_large())
        break;
    }
    connection.Linger();
  }

  static std::string ErrorBody(int status, const std::string& message) {
    return ErrorAnswer(ApiError(status, message)).body;
  }

  // Errors that httplib finds itself get the same form.
  static void NameError(Response& response) {
    if (!response.body.empty() || response.content_provider_) return;
    const bool slow = t_exchange->connection->timed_out();
    const bool large = t_exchange->connection->too_large();
    if (slow) response.status = 408;
    if (large) response.status = 413;
    const char* message = slow                     ? "the request took too long to arrive"
                          : large                  ? "the request is too large"
                          : response.status == 414 ? "the path is too long"
                          : response.status == 400 ? "this is no HTTP request"
                          : response.status == 404 ? "there is no such path here"
                                                   : "the request cannot be served";
    t_exchange->lost = true;
    response.set_header("Connection", "close");
    response.set_content(ErrorBody(response.status, message), "application/json");
  }

  template <class Work>
  HandlerResponse Guarded(Response& response, const Work& work) {
    try {
      return work();
    } catch (const ApiError& error) {
      Send(ErrorAnswer(error), response);
    } catch (const std::exception& error) {
      LogError("a request failed: ", error.what());
      Send(ErrorAnswer(ApiError(500, StrCat("the server failed: ", error.what()))), response);
    }
    return HandlerResponse::Handled;
  }

  void Send(Answer answer, Response& response) {
    response.status = answer.status;
    if (answer.retry_after > 0)
      response.set_header("Retry-After", std::to_string(answer.retry_after));
    if (t_exchange->lost) response.set_header("Connection", "close");
    response.set_header("X-Content-Type-Options", "nosniff");
    response.set_header("Cache-Control", "no-store");
    if (!answer.stream) {
      response.set_content(answer.body, answer.content_type);
      return;
    }
    response.set_chunked_content_provider(
        answer.content_type, [stream = answer.stream](size_t, httplib::DataSink& sink) {
          const std::optional<std::string> bytes = stream->Next(kStreamTurn);
          if (!bytes) {
            sink.done();
            return true;
          }
          if (bytes->empty()) return !t_exchange->connection->PeerGone();
          return sink.write(bytes->data(), bytes->size());
        });
  }

  void CheckCaller(const Request& request) const {
    if (options_.api_key.empty()) {
      if (listener_.loopback() && !IsLocalName(request.get_header_value("Host")))
        throw ApiError(403,
                       "the Host header names neither localhost nor an address: refused, since "
                       "pages of the web could ask in your browser's name. Start the server with "
                       "an API key to allow it");
      return;
    }
    const std::string given = request.get_header_value("Authorization");
    const std::string scheme = "Bearer ";
    // Hashes have one length, and are compared in constant time.
    const std::string hash =
        Sha256Hex(given.starts_with(scheme) ? given.substr(scheme.size()) : "");
    if (!given.starts_with(scheme) ||
        CRYPTO_memcmp(hash.data(), key_hash_.data(), key_hash_.size()) != 0)
      throw ApiError(401, "the API key is missing or wrong; want \"Authorization: Bearer KEY\"", "",
                     "invalid_api_key");
  }

  HandlerResponse BeforeBody(const Request& request, Response& response) {
    const std::string& path = request.path;
    if (path.size() > kMaxPath) throw ApiError(414, "the path is too long");
    const bool get = request.method == "GET" || request.method == "HEAD";
    const bool post_route = path == "/v1/completions" || path == "/v1/chat/completions";
    const std::string models = "/v1/models";
    const bool one_model = path.starts_with(models + "/");
    const bool get_route =
        path == "/" || path == "/health" || path == "/metrics" || path == models || one_model;
    if (post_route || get_route) t_exchange->route = one_model ? models + "/{id}" : path;
    if (path != "/health" && path != "/") CheckCaller(request);
    if (!post_route && !get_route) throw ApiError(404, "there is no such path here");
    if (post_route ? request.method != "POST" : !get) {
      response.set_header("Allow", post_route ? "POST" : "GET, HEAD");
      throw ApiError(405, StrCat(request.method, " is not allowed for this path"));
    }
    if (post_route) {
      CheckBodyHeaders(request, options_.max_body_bytes);
      return HandlerResponse::Unhandled;  // Its body is read, then WithBody
    }
    if (path == "/") {
      response.set_header("Content-Security-Policy", page_policy_);
      response.set_header("Referrer-Policy", "no-referrer");
      Answer page;
      page.content_type = "text/html; charset=utf-8";
      page.body = kChatPage;
      Send(std::move(page), response);
    } else {
      Send(path == "/health"    ? service_->Health()
           : path == "/metrics" ? service_->MetricsText(connections_)
           : one_model          ? service_->Model(path.substr(models.size() + 1))
                                : service_->Models(),
           response);
    }
    return HandlerResponse::Handled;
  }

  void WithBody(const Request& request, Response& response, const httplib::ContentReader& reader) {
    std::string body;
    const auto limit = static_cast<size_t>(options_.max_body_bytes);
    bool large = false;
    const bool whole = reader([&](const char* data, size_t size) {
      large = body.size() + size > limit;
      if (!large) body.append(data, size);
      return !large;
    });
    Connection* connection = t_exchange->connection;
    if (large || connection->too_large())
      throw ApiError(413, StrCat("the body is larger than ", limit, " bytes"));
    if (connection->timed_out()) throw ApiError(408, "the request took too long to arrive");
    if (!whole) throw ApiError(400, "the body ended before its announced length");
    t_exchange->lost = false;
    const auto gone = [connection] { return connection->PeerGone(); };
    Send(request.path == "/v1/completions" ? service_->Completions(body, gone)
                                           : service_->Chat(body, gone),
         response);
  }

  HttpOptions options_;
  Service* service_;
  Metrics& metrics_;
  Listener listener_;
  const std::string key_hash_, page_policy_;
  std::list<Worker> workers_;  // Of Run's thread
  std::atomic<int64_t> connections_{0};
  std::atomic<bool> stopping_{false};
};

HttpServer::HttpServer(const HttpOptions& options, Service* service, Metrics* metrics)
    : impl_(std::make_unique<Impl>(options, service, metrics)) {}
HttpServer::~HttpServer() = default;

std::string HttpServer::url() const { return impl_->listener().url(); }
bool HttpServer::loopback() const { return impl_->listener().loopback(); }
void HttpServer::Run(const std::function<bool()>& stop, const std::function<void()>& drain) {
  impl_->Run(stop, drain);
}

}  // namespace tern::serve
