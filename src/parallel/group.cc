// See group.h. Meeting and comparing is in handshake.cc.
#include "parallel/group.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>

#include "base/log.h"
#include "parallel/fake_backend.h"
#include "parallel/gloo.h"
#include "parallel/gpu.h"
#include "parallel/handshake.h"
#include "parallel/liveness.h"
#include "parallel/store.h"

namespace tern::parallel {
namespace {

// Without Gloo's general advice, which is the same in every message.
std::string FirstLine(const std::string& text) {
  const std::string line = text.substr(0, text.find('\n'));
  return line.substr(0, line.find(". This is typically"));
}

// Whether c10d's or Gloo's message is about a connection or a time limit.
bool SpeaksOfOthers(const std::string& message) {
  for (const char* word : {"imed out", "imeout", "onnection", "peer", "socket", "NCCL"}) {
    if (message.find(word) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

struct Pending::Impl {
  c10::intrusive_ptr<c10d::Work> work;
  Group* group = nullptr;
  std::vector<at::Tensor> tensors;
};

Pending::Pending() = default;
Pending::~Pending() = default;
Pending::Pending(Pending&&) noexcept = default;
Pending& Pending::operator=(Pending&&) noexcept = default;

void Pending::Wait() {
  if (!impl_) return;
  impl_->group->Guard([&] { impl_->work->wait(); });
  impl_.reset();
}

struct Group::Impl {
  Impl* whole = nullptr;     // Of a part: the group that it is a part of
  std::vector<Impl*> parts;  // That live
  int64_t parts_made = 0;    // In all: no two share keys in the store
  bool first_step = true;    // Its time limit holds
  Topology topology;         // Of a part: as if there were no other ranks
  GroupOptions options;
  c10::intrusive_ptr<c10d::Store> store;  // Null: the others are faked
  std::unique_ptr<Liveness> liveness;     // As store
  c10::intrusive_ptr<c10d::ProcessGroup> process_group;
  TrafficByKind traffic;
  int64_t root_works = 0;

  RankLayout layout() const { return {topology.world, topology.local_world}; }
  const Impl& top() const { return whole == nullptr ? *this : *whole; }
  Liveness* watch() const { return top().liveness.get(); }
  TrafficByKind& counts() { return whole == nullptr ? traffic : whole->traffic; }
  int world_rank() const { return top().topology.rank; }
  double timeout_s() const {
    return top().first_step ? top().options.first_step_timeout_s : top().options.step_timeout_s;
  }
  void SetTimeout() const {
    process_group->setTimeout(std::chrono::milliseconds(static_cast<int64_t>(timeout_s() * 1e3)));
  }
  c10d::Backend& backend(const at::Tensor& of) {
    return *process_group->getBackend(of.device().type());
  }
  // The process group among `size` ranks that meet at `at`.
  void Connect(const c10::intrusive_ptr<c10d::Store>& at, int rank, int size, bool one_machine);
};

void Group::Impl::Connect(const c10::intrusive_ptr<c10d::Store>& at, int rank, int size,
                          bool one_machine) {
  const c10::Device& device = top().options.device;
  process_group = MakeGlooGroup(at, rank, size, one_machine, timeout_s());
  if (device.is_cpu()) return;
  process_group->setBackend(device.type(), c10d::ProcessGroup::BackendType::NCCL,
                            MakeNcclBackend(c10::make_intrusive<c10d::PrefixStore>("nccl", at),
                                            rank, size, device, timeout_s()));
}

Group::Group(const Topology& topology, const GroupOptions& options)
    : impl_(std::make_unique<Impl>()) {
  impl_->topology = topology;
  impl_->options = options;
  impl_->store = OpenStore(topology, options.start_timeout_s);
  Handshake(*impl_->store, topology, options.must_agree, options.start_timeout_s);
  impl_->liveness = std::make_unique<Liveness>(
      impl_->store, topology.rank, topology.world,
      LivenessOptions{.lost_s = options.lost_s, .on_lost = options.on_lost});
  Guard([&] {
    impl_->Connect(impl_->store, topology.rank, topology.world,
                   topology.local_world == topology.world);
  });
}

Group::Group(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

std::unique_ptr<Group> Group::Fake(const Topology& topology, const c10::Device& device) {
  auto impl = std::make_unique<Impl>();
  impl->topology = topology;
  impl->options.device = device;
  impl->process_group = MakeFakeGroup(topology.rank, topology.world, device);
  return std::unique_ptr<Group>(new Group(std::move(impl)));
}

std::unique_ptr<Group> Group::Part(int first, int stride, int size) {
  TERN_CHECK(impl_->whole == nullptr, "a part of a part");
  const Topology& all = impl_->topology;
  auto impl = std::make_unique<Impl>();
  impl->whole = impl_.get();
  Topology& mine = impl->topology;
  mine.world = size;
  mine.local_world = 0;
  mine.rank = -1;
  for (int i = 0; i < size; ++i) {
    const int rank = first + stride * i;
    if (rank == all.rank) mine.rank = i;
    if (rank / all.local_world == all.rank / all.local_world) ++mine.local_world;
  }
  TERN_CHECK(mine.rank >= 0, "rank ", all.rank, " is not in ", first, " + ", stride, " i");
  const int64_t number = impl_->parts_made++;
  if (impl_->store) {
    Guard([&] {
      impl->Connect(
          c10::make_intrusive<c10d::PrefixStore>(StrCat("part/", number, "/", first), impl_->store),
          mine.rank, size, all.local_world == all.world);
    });
  } else {
    impl->process_group = MakeFakeGroup(mine.rank, size, impl_->options.device);
  }
  impl_->parts.push_back(impl.get());
  return std::unique_ptr<Group>(new Group(std::move(impl)));
}

// The rank that serves the store goes last, so that the others still read its last words.
Group::~Group() {
  if (impl_->whole != nullptr) std::erase(impl_->whole->parts, impl_.get());
  // NCCL wants to be told; after a failure it would wait for the others.
  if (impl_->top().options.device.is_cuda() && std::uncaught_exceptions() == 0)
    impl_->process_group->shutdown();
  if (!impl_->liveness) return;
  impl_->liveness->Leave();
  if (!is_root() || impl_->topology.store_is_launchers) return;
  impl_->liveness->WaitForOthersToLeave(std::uncaught_exceptions() > 0 ? 3 : 30);
}

int Group::rank() const { return impl_->topology.rank; }
int Group::size() const { return impl_->topology.world; }
RankLayout Group::layout() const { return impl_->layout(); }
const c10::intrusive_ptr<c10d::ProcessGroup>& Group::process_group() const {
  return impl_->process_group;
}
const TrafficByKind& Group::traffic() const { return impl_->counts(); }
void Group::ResetTraffic() { impl_->counts().clear(); }

void Group::CountSum(int64_t bytes, const char* kind) {
  impl_->counts()[kind] += SumTraffic(impl_->layout(), bytes);
}

void Group::Guard(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    const std::string cause = impl_->watch() != nullptr ? impl_->watch()->FindCause() : "";
    const std::string seen = FirstLine(error.what());
    if (cause.empty() && !SpeaksOfOthers(seen)) throw;  // An error of this rank's own
    if (cause.empty()) {
      throw RankLost(StrCat("rank ", impl_->world_rank(),
                            ": an exchange failed or took longer than parallel.",
                            impl_->top().first_step ? "first_step_timeout_s" : "step_timeout_s",
                            " = ", impl_->timeout_s(),
                            ", and all ranks are alive: one of them is too slow or waits for "
                            "something else: ",
                            seen));
    }
    throw RankLost(StrCat("rank ", impl_->world_rank(), ": stopped because ", cause, " (", seen,
                          "). Nothing after the last complete checkpoint is kept; run again to go "
                          "on from it"));
  }
}

void Group::PostFailure(const std::string& reason) {
  if (impl_->watch() != nullptr) impl_->watch()->PostFailure(reason);
}

void Group::UseFirstStepTimeout(bool first) {
  TERN_CHECK(impl_->whole == nullptr, "of a part");
  if (impl_->first_step == first) return;
  impl_->first_step = first;
  if (!impl_->store) return;  // Nothing to wait for
  impl_->SetTimeout();
  for (const Impl* part : impl_->parts) part->SetTimeout();
}

Pending Group::AllReduceSum(const at::Tensor& sum, const char* kind) {
  TERN_CHECK(sum.is_contiguous(), kind);
  Pending pending;
  pending.impl_ = std::make_unique<Pending::Impl>();
  pending.impl_->group = this;
  pending.impl_->tensors = {sum};
  Guard([&] { pending.impl_->work = impl_->backend(sum).allreduce(pending.impl_->tensors); });
  CountSum(static_cast<int64_t>(sum.nbytes()), kind);
  return pending;
}

Pending Group::AllGather(const at::Tensor& mine, const at::Tensor& all, const char* kind) {
  TERN_CHECK(mine.is_contiguous() && all.is_contiguous() && all.numel() == mine.numel() * size(),
             kind, ": ", mine.sizes(), " of ", all.sizes());
  Pending pending;
  pending.impl_ = std::make_unique<Pending::Impl>();
  pending.impl_->group = this;
  pending.impl_->tensors = {mine.view({-1}), all.view({-1})};
  Guard([&] {
    pending.impl_->work = impl_->backend(mine).all_gather_single(pending.impl_->tensors[1],
                                                                 pending.impl_->tensors[0]);
  });
  impl_->counts()[kind] += GatherTraffic(impl_->layout(), static_cast<int64_t>(mine.nbytes()));
  return pending;
}

Pending Group::AllToAll(const at::Tensor& send, std::vector<int64_t> send_rows,
                        const at::Tensor& receive, std::vector<int64_t> receive_rows,
                        const char* kind) {
  TERN_CHECK(send.is_contiguous() && receive.is_contiguous(), kind);
  const int64_t rows = send.size(0);
  const int64_t row_bytes = rows == 0 ? 0 : static_cast<int64_t>(send.nbytes()) / rows;
  std::vector<int64_t> bytes_to;
  for (const int64_t to : send_rows) bytes_to.push_back(to * row_bytes);
  Pending pending;
  pending.impl_ = std::make_unique<Pending::Impl>();
  pending.impl_->group = this;
  pending.impl_->tensors = {send, receive};
  Guard([&] {
    pending.impl_->work = impl_->backend(send).all_to_all_single(
        pending.impl_->tensors[1], pending.impl_->tensors[0], receive_rows, send_rows);
  });
  impl_->counts()[kind] += ExchangeTraffic(impl_->layout(), rank(), bytes_to);
  return pending;
}

std::vector<std::vector<double>> Group::GatherNumbers(const std::vector<double>& mine) {
  const int64_t count = static_cast<int64_t>(mine.size());
  at::Tensor sent = at::empty({count}, at::kDouble), all = at::empty({size(), count}, at::kDouble);
  std::memcpy(sent.mutable_data_ptr(), mine.data(), mine.size() * sizeof(double));
  if (count > 0) AllGather(sent, all, "control").Wait();
  std::vector<std::vector<double>> numbers;
  const double* data = all.const_data_ptr<double>();
  for (int i = 0; i < size(); ++i) numbers.emplace_back(data + i * count, data + (i + 1) * count);
  return numbers;
}

std::vector<std::string> Group::GatherTexts(const std::string& mine) {
  int64_t longest = 0;
  const auto lengths = GatherNumbers({static_cast<double>(mine.size())});
  for (const auto& length : lengths) {
    longest = std::max(longest, static_cast<int64_t>(length[0]));
  }
  std::vector<std::string> texts(static_cast<size_t>(size()));
  if (longest == 0) return texts;
  at::Tensor sent = at::empty({longest}, at::kByte), all = at::empty({size(), longest}, at::kByte);
  sent.zero_();
  std::memcpy(sent.mutable_data_ptr(), mine.data(), mine.size());
  AllGather(sent, all, "control").Wait();
  const char* data = static_cast<const char*>(all.const_data_ptr());
  for (size_t i = 0; i < texts.size(); ++i) {
    texts[i].assign(data + static_cast<int64_t>(i) * longest, static_cast<size_t>(lengths[i][0]));
  }
  return texts;
}

std::string Group::FromRoot(const std::string& mine) {
  TERN_CHECK(impl_->whole == nullptr, "of a part");
  if (!impl_->store) return mine;  // As if the root had the same
  return GatherTexts(is_root() ? mine : std::string())[0];
}

// Through the store, not a collective: those have a time limit, and a root that is alive may take
// as long as it needs.
void Group::OnRoot(const std::function<void()>& work) {
  TERN_CHECK(impl_->whole == nullptr, "of a part");
  if (!impl_->store) return is_root() ? work() : void();
  const std::string key = StrCat("root/", impl_->root_works++);
  if (is_root()) {
    try {
      work();
    } catch (const std::exception& error) {
      Guard([&] { impl_->store->set(key, std::string("failed: ") + error.what()); });
      throw;
    }
    Guard([&] { impl_->store->set(key, std::string("done")); });
    return;
  }
  std::string answer;
  // Soon at first, then seldom: many ranks ask one store.
  auto pause = std::chrono::milliseconds(10);
  constexpr auto kLongest = std::chrono::milliseconds(500);
  Guard([&] {
    while (!impl_->store->check({key})) {
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongest);
    }
    answer = impl_->store->get_to_str(key);
  });
  if (answer != "done")
    throw RankLost(StrCat("rank ", rank(), ": stopped because rank 0 ", answer));
}

}  // namespace tern::parallel
