// Where the processes of a job meet: c10d's TCPStore, served by the launcher (torchrun's agent,
// `tern run --ranks`) or by rank 0. Keys live below the run's id, so that a restarted job never
// reads what its predecessor left.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <memory>

#include "parallel/launch.h"

namespace c10d {
class Store;
}

namespace tern::parallel {

// A store in this process on a free port of this machine, for as long as it lives.
class StoreServer {
 public:
  StoreServer();  // Throws ResourceError
  ~StoreServer();
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;
  int port() const { return port_; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  int port_ = 0;
};

// The job's store; rank 0 serves it unless a launcher does. Throws ResourceError: the port is in
// use, or nobody answers at host and port within timeout_s.
c10::intrusive_ptr<c10d::Store> OpenStore(const Topology& topology, double timeout_s);

}  // namespace tern::parallel
