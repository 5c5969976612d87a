// One accepted TCP connection with limits on everything a peer can make us wait for: the time
// between requests, the time in which a request must be there and its size, and the time a write
// may make no headway. Plain sockets; knows no HTTP. One thread at a time.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>

namespace tern::serve {

struct ConnectionLimits {
  std::chrono::milliseconds idle{15'000};         // Between requests
  std::chrono::milliseconds request{30'000};      // From a request's first byte to its last
  std::chrono::milliseconds write{20'000};        // Without a byte taken by the client
  size_t request_bytes = (4 << 20) + (64 << 10);  // Head and body
};

class Connection {
 public:
  // Takes the socket and closes it in the end. `stopping` ends it where no request is at work; it
  // must outlive this.
  Connection(int fd, const ConnectionLimits& limits, const std::atomic<bool>& stopping);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // True when the next request begins: its time and its bytes are counted from now on. False when
  // the peer has closed, was idle for too long, or the server stops.
  bool WaitForRequest();
  // Bytes read, 0 at the end, -1 past a limit or for an error.
  ssize_t Read(char* to, size_t size);
  // All of it, or -1: a client that is gone or takes nothing.
  ssize_t Write(const char* from, size_t size);
  // The peer has closed its side, or the connection is broken. What it has sent stays readable.
  bool PeerGone() const;

  // Ends our side, and gives the peer a moment to read the answer: closing at once, with input
  // unread, would take it away again (RFC 9112, section 9.6).
  void Linger();

  int fd() const { return fd_; }
  bool timed_out() const { return timed_out_; }  // Reading a request took too long
  bool too_large() const { return too_large_; }  // A request had more bytes than allowed
  // "127.0.0.1" and the port, of the peer or of ourselves.
  static void Name(int fd, bool peer, std::string* ip, int* port);

 private:
  using Clock = std::chrono::steady_clock;
  // Waits for `events` in short turns; false at the deadline, or when `unless_stopping`.
  bool Wait(short events, Clock::time_point deadline, bool unless_stopping);

  const int fd_;
  const ConnectionLimits limits_;
  const std::atomic<bool>& stopping_;
  std::array<char, 16384> buffer_;
  size_t begin_ = 0, end_ = 0;  // Of what is in the buffer
  size_t bytes_left_ = 0;
  Clock::time_point deadline_;
  bool timed_out_ = false, too_large_ = false;
};

}  // namespace tern::serve
