// See sandbox_filter.h. A list of what is refused, with "operation not permitted": Python needs
// hundreds of harmless calls that differ by version. Calls newer than those known here do not exist
// for the program, so that no new door opens with a new kernel.
#include "tasks/sandbox_filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace tern::tasks {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArch = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArch = 0;  // Not known: no filter
#endif

constexpr uint32_t kRefused[] = {
// Processes: none beside this one. (clone is looked at below: threads may be made.)
#ifdef __NR_fork
    __NR_fork, __NR_vfork,
#endif
    __NR_setsid, __NR_setpgid, __NR_unshare, __NR_setns,
    // The network, and what could reach a service on this machine.
    __NR_socket, __NR_connect, __NR_bind, __NR_listen, __NR_sendto, __NR_sendmsg, __NR_sendmmsg,
    // Others: no signals, no tracing, no looking into.
    __NR_kill, __NR_tkill, __NR_tgkill, __NR_rt_sigqueueinfo, __NR_rt_tgsigqueueinfo,
    __NR_pidfd_open, __NR_pidfd_send_signal, __NR_pidfd_getfd, __NR_ptrace, __NR_process_vm_readv,
    __NR_process_vm_writev, __NR_kcmp, __NR_prlimit64, __NR_setpriority, __NR_sched_setaffinity,
// Changes of the file system. (open is looked at below.)
#ifdef __NR_creat
    __NR_creat, __NR_unlink, __NR_rename, __NR_mkdir, __NR_rmdir, __NR_link, __NR_symlink,
    __NR_chmod, __NR_chown, __NR_lchown, __NR_mknod, __NR_utime, __NR_utimes, __NR_futimesat,
    __NR_renameat,
#endif
    __NR_unlinkat, __NR_renameat2, __NR_mkdirat, __NR_linkat, __NR_symlinkat, __NR_fchmodat,
    __NR_fchmod, __NR_fchown, __NR_fchownat, __NR_mknodat, __NR_utimensat, __NR_truncate,
    __NR_ftruncate, __NR_fallocate, __NR_setxattr, __NR_lsetxattr, __NR_fsetxattr, __NR_removexattr,
    __NR_lremovexattr, __NR_fremovexattr, __NR_mount, __NR_umount2, __NR_pivot_root, __NR_chroot,
    __NR_swapon, __NR_swapoff, __NR_sync, __NR_open_by_handle_at,
    // Memory and objects that outlive a process or escape its limit.
    __NR_memfd_create, __NR_shmget, __NR_semget, __NR_msgget, __NR_mq_open, __NR_add_key,
    __NR_request_key, __NR_keyctl,
    // Ways around a filter, and wide surfaces of the kernel.
    __NR_io_setup, __NR_bpf, __NR_perf_event_open, __NR_userfaultfd, __NR_init_module,
    __NR_finit_module, __NR_delete_module, __NR_kexec_load, __NR_reboot, __NR_settimeofday,
    __NR_clock_settime, __NR_sethostname, __NR_setdomainname, __NR_acct, __NR_quotactl};

// Do not exist for the program, so that the C library takes the older call that can be looked at
// (clone3, openat2); io_uring would go around the filter.
constexpr uint32_t kAbsent[] = {435 /* clone3 */, 437 /* openat2 */, 425, 426, 427 /* io_uring */};
// The last one known: epoll_pwait2 and what came with it, of Linux 5.11. The numbers of newer calls
// are the same on both processors.
constexpr uint32_t kLastKnown = 441;

constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM, kMissing = SECCOMP_RET_ERRNO | ENOSYS;
constexpr uint32_t kWriteFlags = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;

struct Program {
  sock_filter code[256];
  uint16_t size = 0;

  void Add(uint16_t op, uint32_t k, uint8_t yes = 0, uint8_t no = 0) {
    code[size++] = {op, yes, no, k};
  }
  void Load(size_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
  void Return(uint32_t action) { Add(BPF_RET | BPF_K, action); }
  void ReturnIfEqual(uint32_t value, uint32_t action) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    Return(action);
  }
  // Of `call`: refused when its argument has one of `bits` (unless `wanted`), or none (`wanted`).
  void CheckArgument(uint32_t call, size_t argument, uint32_t bits, bool wanted) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4);
    Load(offsetof(seccomp_data, args) + argument * sizeof(uint64_t));  // The low half
    Add(BPF_JMP | BPF_JSET | BPF_K, bits, wanted ? 1 : 0, wanted ? 0 : 1);
    Return(kRefuse);
    Return(SECCOMP_RET_ALLOW);
  }
};

static_assert(sizeof(kRefused) / sizeof(uint32_t) * 2 + 60 < 256, "the filter fits");

void Build(Program* p) {
  p->Load(offsetof(seccomp_data, arch));
  p->Add(BPF_JMP | BPF_JEQ | BPF_K, kArch, 1, 0);
  p->Return(SECCOMP_RET_KILL_PROCESS);  // 32-bit calls have other numbers
  p->Load(offsetof(seccomp_data, nr));
  // Also the x32 calls, whose numbers begin at 0x40000000.
  p->Add(BPF_JMP | BPF_JGT | BPF_K, kLastKnown, 0, 1);
  p->Return(kMissing);
  for (const uint32_t call : kAbsent) p->ReturnIfEqual(call, kMissing);
  for (const uint32_t call : kRefused) p->ReturnIfEqual(call, kRefuse);
  p->CheckArgument(__NR_clone, 0, CLONE_THREAD, true);
#ifdef __NR_open
  p->CheckArgument(__NR_open, 1, kWriteFlags, false);
#endif
  p->CheckArgument(__NR_openat, 2, kWriteFlags, false);
  p->Return(SECCOMP_RET_ALLOW);
}

}  // namespace

bool HasSandboxFilter() {
  const uint32_t action = SECCOMP_RET_ERRNO;
  return kArch != 0 && syscall(__NR_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

bool InstallSandboxFilter() {
  Program program;
  Build(&program);
  sock_fprog filter{program.size, program.code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0;
}

}  // namespace tern::tasks
