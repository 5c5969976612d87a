// See listener.h.
#include "serve/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "serve/connection.h"

namespace tern::serve {
namespace {

constexpr int kBacklog = 128;

bool IsLoopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
  return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

}  // namespace

Listener::Listener(const std::string& host, int port) {
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (failed != 0)
    throw UsageError(StrCat("the host \"", host, "\" does not resolve: ", ::gai_strerror(failed)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
  fd_ = ::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  // A restarted server gets its port although old connections are in TIME_WAIT.
  if (fd_ < 0 || ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd_, list->ai_addr, list->ai_addrlen) != 0 || ::listen(fd_, kBacklog) != 0) {
    const std::string why = std::strerror(errno);
    Close();
    throw ResourceError(StrCat("cannot listen on ", host, " port ", port, ": ", why,
                               ". Give another --port (0: any free one) or --host"));
  }
  loopback_ = IsLoopback(list->ai_addr);
  Connection::Name(fd_, /*peer=*/false, &ip_, &port_);
}

void Listener::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

int Listener::Accept(int timeout_ms) {
  pollfd poll_fd{fd_, POLLIN, 0};
  if (::poll(&poll_fd, 1, timeout_ms) <= 0) return -1;
  const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0 || errno == EINTR || errno == EAGAIN || errno == ECONNABORTED) return fd;
  // Out of descriptors or memory: those at work go on, and soon there is room again.
  LogWarn("a connection was not accepted: ", std::strerror(errno));
  std::this_thread::sleep_for(std::chrono::milliseconds(timeout_ms));
  return -1;
}

std::string Listener::url() const {
  const bool v6 = ip_.find(':') != std::string::npos;
  return StrCat("http://", v6 ? "[" : "", ip_, v6 ? "]" : "", ":", port_);
}

}  // namespace tern::serve
