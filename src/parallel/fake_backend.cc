// See fake_backend.h.
#include "parallel/fake_backend.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>

#include <algorithm>
#include <numeric>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "base/error.h"

namespace tern::parallel {
namespace {

// Work that was done before it was asked for.
class DoneWork : public c10d::Work {
 public:
  explicit DoneWork(const std::vector<at::Tensor>& tensors)
      : future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::ofTensors())) {
    future_->markCompleted(c10::IValue(tensors));
  }
  bool isCompleted() override { return true; }
  bool isSuccess() const override { return true; }
  bool wait(std::chrono::milliseconds) override { return true; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

 private:
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

class FakeBackend : public c10d::Backend {
 public:
  FakeBackend(int rank, int size) : c10d::Backend(rank, size) {}

  const std::string getBackendName() const override { return "fake"; }

  // The root has what this rank has.
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions&) override {
    return Done(tensors);
  }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    TERN_CHECK(options.reduceOp == c10d::ReduceOp::SUM, "only sums are faked");
    const at::NoGradGuard no_grad;
    for (at::Tensor& tensor : tensors) tensor.mul_(getSize());
    return Done(tensors);
  }

  c10::intrusive_ptr<c10d::Work> all_gather_single(at::Tensor& all, at::Tensor& mine,
                                                   const c10d::AllgatherOptions&) override {
    const at::NoGradGuard no_grad;
    const int64_t count = mine.numel();
    all.view({getSize(), count}).copy_(mine.view({1, count}).expand({getSize(), count}));
    return Done({all});
  }

  c10::intrusive_ptr<c10d::Work> all_to_all_single(at::Tensor& receive, at::Tensor& send,
                                                   std::vector<int64_t>& receive_rows,
                                                   std::vector<int64_t>& send_rows,
                                                   const c10d::AllToAllOptions&) override {
    const at::NoGradGuard no_grad;
    const auto me = static_cast<size_t>(getRank());
    const at::Tensor part = send.narrow(
        0, std::accumulate(send_rows.begin(), send_rows.begin() + getRank(), int64_t{0}),
        send_rows.at(me));
    int64_t at = 0;
    for (const int64_t rows : receive_rows) {
      const int64_t same = std::min(rows, part.size(0));
      receive.narrow(0, at, same).copy_(part.narrow(0, 0, same));
      receive.narrow(0, at + same, rows - same).zero_();
      at += rows;
    }
    return Done({receive});
  }

 private:
  static c10::intrusive_ptr<c10d::Work> Done(const std::vector<at::Tensor>& tensors) {
    return c10::make_intrusive<DoneWork>(tensors);
  }
};

}  // namespace

c10::intrusive_ptr<c10d::ProcessGroup> MakeFakeGroup(int rank, int size,
                                                     const c10::Device& device) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(rank, size);
  const auto backend = c10::make_intrusive<FakeBackend>(rank, size);
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::CUSTOM, backend);
  if (!device.is_cpu())
    group->setBackend(device.type(), c10d::ProcessGroup::BackendType::CUSTOM, backend);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
  return group;
}

}  // namespace tern::parallel
