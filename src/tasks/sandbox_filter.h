// The seccomp filter of sandbox.h: which system calls a program that nobody has read may not make.
#pragma once

namespace tern::tasks {

// Whether this kernel and processor have seccomp filters that are known here.
bool HasSandboxFilter();

// For the child between fork and exec: from here on this process and the program it becomes cannot
// make processes, sockets, files or file changes, signal others, trace, or leave the process group.
// Async-signal-safe. Returns false (errno) when the kernel refuses.
bool InstallSandboxFilter();

}  // namespace tern::tasks
