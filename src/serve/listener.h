// A listening TCP socket.
#pragma once

#include <string>

namespace tern::serve {

class Listener {
 public:
  // Port 0: any free one. Throws UsageError for a host that does not resolve, ResourceError when
  // the address cannot be had (in use, not ours, no right to).
  Listener(const std::string& host, int port);
  ~Listener() { Close(); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // An accepted socket, or -1 when none came within `timeout_ms` or it could not be had now (said
  // in the log).
  int Accept(int timeout_ms);
  // New connections are refused from now on.
  void Close();

  int fd() const { return fd_; }
  int port() const { return port_; }
  bool loopback() const { return loopback_; }  // Reachable from this machine alone
  std::string url() const;

 private:
  int fd_ = -1, port_ = 0;
  bool loopback_ = false;
  std::string ip_;
};

}  // namespace tern::serve
