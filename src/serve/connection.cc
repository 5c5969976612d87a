// See connection.h.
#include "serve/connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tern::serve {
namespace {

constexpr std::chrono::milliseconds kTurn{100};     // How soon a stop is seen
constexpr std::chrono::milliseconds kLinger{1000};  // And at most this many bytes:
constexpr size_t kLingerBytes = 1 << 20;

}  // namespace

Connection::Connection(int fd, const ConnectionLimits& limits, const std::atomic<bool>& stopping)
    : fd_(fd), limits_(limits), stopping_(stopping) {
  const int on = 1;  // Tokens leave as they come. Without it the connection works, too.
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Connection::~Connection() { ::close(fd_); }

bool Connection::Wait(short events, Clock::time_point deadline, bool unless_stopping) {
  while (true) {
    if (unless_stopping && stopping_) return false;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return false;
    pollfd poll_fd{fd_, events, 0};
    const int ready = ::poll(&poll_fd, 1, static_cast<int>(std::min(left, kTurn).count()));
    if (ready > 0) return true;  // Errors, too: reading or writing will say so
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool Connection::WaitForRequest() {
  if (begin_ == end_ && !Wait(POLLIN, Clock::now() + limits_.idle, true)) return false;
  deadline_ = Clock::now() + limits_.request;
  bytes_left_ = limits_.request_bytes;
  // A peer that has closed is no request.
  if (begin_ < end_) return true;
  char first;
  return ::recv(fd_, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

ssize_t Connection::Read(char* to, size_t size) {
  if (bytes_left_ == 0) {
    too_large_ = true;
    return -1;
  }
  while (begin_ == end_) {
    if (!Wait(POLLIN, deadline_, false)) {
      timed_out_ = true;
      return -1;
    }
    const ssize_t count = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count == 0) return 0;
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return -1;
    begin_ = 0;
    end_ = count > 0 ? static_cast<size_t>(count) : 0;
  }
  // A peer that drips bytes is never waited for, but its time goes on.
  if (Clock::now() >= deadline_) {
    timed_out_ = true;
    return -1;
  }
  const size_t count = std::min({size, end_ - begin_, bytes_left_});
  std::memcpy(to, buffer_.data() + begin_, count);
  begin_ += count;
  bytes_left_ -= count;
  return static_cast<ssize_t>(count);
}

ssize_t Connection::Write(const char* from, size_t size) {
  size_t written = 0;
  while (written < size) {
    const ssize_t count = ::send(fd_, from + written, size - written, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      written += static_cast<size_t>(count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return -1;
    if (!Wait(POLLOUT, Clock::now() + limits_.write, false)) return -1;
  }
  return static_cast<ssize_t>(size);
}

bool Connection::PeerGone() const {
  pollfd poll_fd{fd_, POLLRDHUP, 0};
  return ::poll(&poll_fd, 1, 0) > 0 &&
         (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

void Connection::Linger() {
  if (::shutdown(fd_, SHUT_WR) != 0) return;  // The peer is gone already
  const Clock::time_point deadline = Clock::now() + kLinger;
  size_t taken = 0;
  while (taken < kLingerBytes && Wait(POLLIN, deadline, true)) {
    const ssize_t count = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return;
    taken += count > 0 ? static_cast<size_t>(count) : 0;
  }
}

void Connection::Name(int fd, bool peer, std::string* ip, int* port) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  *port = -1;
  if ((peer ? ::getpeername(fd, generic, &size) : ::getsockname(fd, generic, &size)) != 0) return;
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    *port = ntohs(v4->sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    *port = ntohs(v6->sin6_port);
  }
  *ip = text;
}

}  // namespace tern::serve
