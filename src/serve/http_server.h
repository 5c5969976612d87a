// The server's HTTP side: cpp-httplib reads requests and writes answers, on sockets and threads of
// our own (one a connection), so that every wait has a limit. Checks that need no body come before
// it is read: the path, who asks, the announced size and type.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "serve/connection.h"
#include "serve/service.h"

namespace tern::serve {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8080;      // 0: any free one
  std::string api_key;  // Empty: none is asked for
  int64_t max_connections = 128;
  int64_t max_body_bytes = 4 << 20;
  ConnectionLimits limits;  // request_bytes is set from max_body_bytes
};

class HttpServer {
 public:
  // Listens from now on; connections are served in Run. Both must outlive it. Throws UsageError,
  // ResourceError.
  HttpServer(const HttpOptions& options, Service* service, Metrics* metrics);
  ~HttpServer();

  std::string url() const;
  bool loopback() const;
  // Serves until `stop()` is true, asked every 100 ms. Then it takes no more connections, calls
  // `drain` (which ends the requests at work), and returns when all connections are closed.
  void Run(const std::function<bool()>& stop, const std::function<void()>& drain);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::serve
