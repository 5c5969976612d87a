// Runs Python programs that a model wrote. The child has one process and cannot make another, no
// network, no way to write a file or to signal anyone, and limits on processor time, memory, open
// files and wall clock; it runs in an empty folder with a minimal environment. All of this is held
// by the kernel: a seccomp filter (sandbox_filter.h) and resource limits, both without privileges.
// Not held: the program can read what the user can read, but has no way to send it anywhere.
#pragma once

#include <cstdint>
#include <string>

namespace tern::tasks {

struct SandboxOptions {
  std::string python;  // The interpreter's path; empty: what python3 on the PATH says it is
  double wall_seconds = 10;
  int64_t cpu_seconds = 10;
  int64_t memory_bytes = int64_t{512} << 20;  // Of address space
  bool unsafe = false;                        // Run even where the kernel cannot hold the filter
};

enum class Outcome { kPassed, kFailed, kTimeout };

struct SandboxResult {
  Outcome outcome = Outcome::kFailed;
  std::string message;  // The last line of what it wrote as an error, or how it ended
};

class Sandbox {
 public:
  // Throws InputError when there is no Python, ResourceError when the kernel has no seccomp filters
  // and options.unsafe is not set.
  explicit Sandbox(SandboxOptions options);

  // kPassed: the program ran to its last line. A program that ends itself earlier, even with code
  // 0, has failed. Throws ResourceError when no process can be started.
  SandboxResult Run(const std::string& program) const;

  const SandboxOptions& options() const { return options_; }

 private:
  SandboxOptions options_;
};

}  // namespace tern::tasks
