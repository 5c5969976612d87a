// Who is still there: every rank counts up a key in the store each second; rank 0 watches all of
// them, the others watch rank 0 and its verdicts. A rank that was killed, stopped or cut off is so
// named within a bounded time, also while everybody waits for it in a collective. What a rank
// itself knows of its failure it posts, for the others' messages.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace c10d {
class Store;
}

namespace tern::parallel {

struct LivenessOptions {
  double beat_s = 1;   // Between two counts
  double lost_s = 30;  // Without one, a rank is lost
  // Called from a thread of its own when a rank is lost: the main thread may hang in a collective.
  std::function<void(const std::string& message)> on_lost;
};

class Liveness {
 public:
  Liveness(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
           const LivenessOptions& options);
  ~Liveness();
  Liveness(const Liveness&) = delete;
  Liveness& operator=(const Liveness&) = delete;

  // This rank has failed for a reason of its own.
  void PostFailure(const std::string& reason);
  // This rank has nothing more to do: its silence means nothing from now on.
  void Leave();
  // Returns when all others have left or are past telling, after timeout_s at the latest.
  void WaitForOthersToLeave(double timeout_s) const;

  // After a collective failed: which rank is the cause and why, as far as can be found within a few
  // beats. Empty: nobody is known to have failed.
  std::string FindCause() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::parallel
