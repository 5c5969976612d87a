// See store.h.
#include "parallel/store.h"

#include <c10/util/Logging.h>

#include <chrono>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "base/error.h"

namespace tern::parallel {
namespace {

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
}

// libtorch logs every failed attempt with its stack; the error that is thrown says it in one line.
class QuietLibtorch {
 public:
  QuietLibtorch() : before_(std::exchange(FLAGS_caffe2_log_level, c10::GLOG_FATAL)) {}
  ~QuietLibtorch() { FLAGS_caffe2_log_level = before_; }
  QuietLibtorch(const QuietLibtorch&) = delete;
  QuietLibtorch& operator=(const QuietLibtorch&) = delete;

 private:
  int before_;
};

}  // namespace

struct StoreServer::Impl {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

StoreServer::StoreServer() : impl_(std::make_unique<Impl>()) {
  c10d::TCPStoreOptions options;
  options.port = 0;  // Any that is free
  options.isServer = true;
  options.waitWorkers = false;
  try {
    impl_->store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  } catch (const std::exception& error) {
    throw ResourceError(StrCat("cannot serve the ranks' store: ", error.what()));
  }
  port_ = impl_->store->getPort();
}

StoreServer::~StoreServer() = default;

c10::intrusive_ptr<c10d::Store> OpenStore(const Topology& topology, double timeout_s) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(topology.store_port);
  options.isServer = topology.rank == 0 && !topology.store_is_launchers;
  options.waitWorkers = false;
  options.timeout = Milliseconds(timeout_s);
  const QuietLibtorch quiet;
  try {
    return c10::make_intrusive<c10d::PrefixStore>(
        "tern/" + topology.run_id,
        c10::make_intrusive<c10d::TCPStore>(topology.store_host, options));
  } catch (const std::exception& error) {
    const std::string text = error.what();
    const std::string at = StrCat(topology.store_host, ":", topology.store_port);
    if (options.isServer) {
      throw ResourceError(StrCat("rank 0 cannot serve the ranks' meeting point at ", at,
                                 " (is the port in use?); set MASTER_PORT to a free one: ",
                                 text.substr(0, text.find('\n'))));
    }
    throw ResourceError(StrCat("rank ", topology.rank, ": nobody answers at ", at, " within ",
                               timeout_s,
                               " s, where rank 0 or the launcher should; look at rank "
                               "0's output, and at MASTER_ADDR and MASTER_PORT: ",
                               text.substr(0, text.find('\n'))));
  }
}

}  // namespace tern::parallel
