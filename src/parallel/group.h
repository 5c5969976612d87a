// The processes that train together, over libtorch's c10d: Gloo for tensors of the CPU, NCCL for
// those of a GPU. Everything here that is
// not a plain accessor is a collective: all ranks call it, in the same order. Sums over ranks are
// made in rank order where the caller sees numbers, so that every rank has the same bits. A
// collective that fails or times out throws RankLost, which names the rank that is the cause, if it
// can be found.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "parallel/launch.h"
#include "parallel/traffic.h"

namespace c10d {
class ProcessGroup;
class Work;
}  // namespace c10d

namespace tern::parallel {

// Another rank is the cause.
struct RankLost : ResourceError {
  explicit RankLost(const std::string& m) : ResourceError(m) {}
};

struct GroupOptions {
  double start_timeout_s = 600;        // For all ranks to arrive
  double first_step_timeout_s = 1800;  // Of one collective before the first step is done
  double step_timeout_s = 300;         // Of one collective after it
  double lost_s = 30;                  // Without a sign of life
  c10::Device device = c10::kCPU;      // A GPU: its tensors are exchanged, too (parallel/gpu.h)
  // Compared among the ranks at the start, by name: "recipe", "binary", "data". Another value on
  // any rank is an error that names rank and item.
  std::map<std::string, std::string> must_agree;
  // When a rank is lost while this one hangs; nothing: only collectives notice.
  std::function<void(const std::string& message)> on_lost;
};

// A collective on its way. Its tensors live until it is waited for.
class Pending {
 public:
  Pending();
  ~Pending();
  Pending(Pending&&) noexcept;
  Pending& operator=(Pending&&) noexcept;
  void Wait();  // Once or more; throws RankLost

 private:
  friend class Group;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Group {
 public:
  // Meets the others. Throws UsageError (two processes with one rank or one local rank, another
  // recipe or build on a rank), ResourceError (a rank does not arrive: it is named).
  Group(const Topology& topology, const GroupOptions& options);
  // One rank of `topology` without the others, which answer as if they had what this one has
  // (fake_backend.h): no network, no handshake, nobody watched. OnRoot works on rank 0 only.
  // device: of tensors that are exchanged beside the CPU's.
  static std::unique_ptr<Group> Fake(const Topology& topology,
                                     const c10::Device& device = c10::kCPU);
  // Ranks first, first + stride, ..., `size` of them, this one included, as a group of their own.
  // All ranks of this group call it together, each for its part. What the part sends is counted
  // here. This must outlive it.
  std::unique_ptr<Group> Part(int first, int stride, int size);
  // Tells the others that this rank is done; they need not be.
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const;
  int size() const;
  bool is_root() const { return rank() == 0; }
  RankLayout layout() const;

  // What every rank gives, in rank order.
  std::vector<std::string> GatherTexts(const std::string& mine);
  std::vector<std::vector<double>> GatherNumbers(const std::vector<double>& mine);
  // The root's text.
  std::string FromRoot(const std::string& mine);
  // Runs `work` on the root while the others wait, however long it takes. What it throws is thrown
  // on the root; the others throw RankLost with its words.
  void OnRoot(const std::function<void()>& work);

  // sum_T = sum over ranks, in place, same bits on all. Contiguous.
  Pending AllReduceSum(const at::Tensor& sum, const char* kind);
  // all: size() x the bytes of mine, in rank order.
  Pending AllGather(const at::Tensor& mine, const at::Tensor& all, const char* kind);
  // Sends rows send_rows[i] of `send` (in order) to rank i and receives receive_rows[i] rows from
  // it into `receive`.
  Pending AllToAll(const at::Tensor& send, std::vector<int64_t> send_rows,
                   const at::Tensor& receive, std::vector<int64_t> receive_rows, const char* kind);

  // Which time limit holds for the collectives of this group and its parts from now on; at first
  // that of the first step, in which ranks load and start at their own pace.
  void UseFirstStepTimeout(bool first);

  // Runs `work` in which libtorch waits for other ranks: its failures become RankLost.
  void Guard(const std::function<void()>& work);
  // This rank fails for a reason of its own: for the others' messages.
  void PostFailure(const std::string& reason);

  // What this rank has sent, by kind ("gradients", "values", ...).
  const TrafficByKind& traffic() const;
  void ResetTraffic();
  // Of a sum that libtorch makes itself (Reducer).
  void CountSum(int64_t bytes, const char* kind);

  const c10::intrusive_ptr<c10d::ProcessGroup>& process_group() const;

 private:
  struct Impl;
  explicit Group(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::parallel
