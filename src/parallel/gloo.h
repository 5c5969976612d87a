// The CPU back end of c10d. Kept to one file because libtorch's wheel has Gloo's symbols but not
// its headers: those come from the system (libgloo-dev), and only opaque types cross the border.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace tern::parallel {

// A process group over Gloo. one_machine: over the loopback interface; else over the one that
// GLOO_SOCKET_IFNAME names, or that the machine's name resolves to. timeout_s bounds each
// collective. Throws what c10d throws.
c10::intrusive_ptr<c10d::ProcessGroup> MakeGlooGroup(const c10::intrusive_ptr<c10d::Store>& store,
                                                     int rank, int size, bool one_machine,
                                                     double timeout_s);

}  // namespace tern::parallel
