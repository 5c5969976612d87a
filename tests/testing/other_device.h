// A device that is not the CPU, in this process and without hardware: libtorch's PrivateUse1. Its
// memory is closed to the process (mprotect) except while libtorch's own operations work on it, so
// that code which follows a raw pointer of a tensor dies; an operation on tensors of this device
// and of the CPU at once throws, as it would on a GPU (numbers, which are tensors without axes, may
// mix where they may there). Operations are the CPU's, on copies. What it does not show: streams,
// asynchronous copies, a GPU's order of additions. For one file of a test binary: what it registers
// with libtorch is registered by including it.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <string>

#include "base/error.h"

namespace tern::testing {

inline const c10::Device kOther(c10::DeviceType::PrivateUse1, 0);

class OtherMemory : public c10::Allocator {
 public:
  static OtherMemory& The() {
    static OtherMemory* const memory = new OtherMemory;  // Tensors may outlive everything
    return *memory;
  }

  // While one lives, the memory may be touched.
  struct Open {
    Open() { The().Protect(+1); }
    ~Open() { The().Protect(-1); }
  };

  // Until the next operation has ended: for thousands of small ones in a row.
  void LeaveOpen() {
    const std::lock_guard lock(mutex_);
    SetOpen(true);
  }

  c10::DataPtr allocate(size_t size_bytes) override {
    void* const data = size_bytes == 0 ? nullptr : Take(size_bytes);
    return {data, data, &Free, kOther};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t count) const override {
    const Open open;
    default_copy_data(to, from, count);
  }
  bool Holds(const void* data) const { return data >= begin_ && data < begin_ + kBytes; }

 private:
  static constexpr size_t kBytes = size_t{1} << 30, kAlignment = 256;

  OtherMemory()
      : begin_(static_cast<char*>(
            mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
        next_(begin_) {
    TERN_CHECK(begin_ != MAP_FAILED, "mmap");
  }

  void Protect(int change) {
    const std::lock_guard lock(mutex_);
    open_ += change;
    SetOpen(open_ > 0);
  }

  void SetOpen(bool open) {
    if (open == is_open_) return;
    is_open_ = open;
    TERN_CHECK(mprotect(begin_, kBytes, open ? PROT_READ | PROT_WRITE : PROT_NONE) == 0, "");
  }

  void* Take(size_t size_bytes) {
    const size_t size = (size_bytes + kAlignment - 1) / kAlignment * kAlignment;
    const std::lock_guard lock(mutex_);
    if (const auto found = free_.find(size); found != free_.end()) {
      void* const data = found->second;
      free_.erase(found);
      return data;
    }
    TERN_CHECK(next_ + size <= begin_ + kBytes, "the other device's memory is full");
    sizes_[next_] = size;
    next_ += size;
    return next_ - size;
  }

  static void Free(void* data) {
    if (data == nullptr) return;
    OtherMemory& memory = The();
    const std::lock_guard lock(memory.mutex_);
    memory.free_.emplace(memory.sizes_.at(data), data);
  }

  char* const begin_;
  char* next_;
  std::mutex mutex_;
  int open_ = 0;
  bool is_open_ = false;
  std::multimap<size_t, void*> free_;
  std::map<void*, size_t> sizes_;
};

struct OtherHooks : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  at::Device getDeviceFromPtr(void*) const override { return kOther; }
};

struct OtherGuard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::PrivateUse1> {
  c10::Device exchangeDevice(c10::Device) const override { return kOther; }
  c10::Device getDevice() const override { return kOther; }
  c10::Stream getStream(c10::Device) const noexcept override { return TheStream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return TheStream(); }

 private:
  static c10::Stream TheStream() { return c10::Stream(c10::Stream::DEFAULT, kOther); }
};

namespace other {

// The tensor itself, or the same elements as a tensor of the CPU.
inline at::Tensor OnCpu(const at::Tensor& x) {
  if (x.device().is_cpu()) return x;
  return at::from_blob(x.data_ptr(), x.sizes(), x.strides(), at::TensorOptions(x.scalar_type()));
}

inline at::Tensor Empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> type,
                        std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
                        std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &OtherMemory::The(),
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(type), format);
}

inline at::Tensor EmptyStrided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                               std::optional<at::ScalarType> type, std::optional<at::Layout>,
                               std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &OtherMemory::The(),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(type));
}

inline at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool) {
  const OtherMemory::Open open;
  OnCpu(to).copy_(OnCpu(from));
  return to;
}

inline const at::Tensor& Resize(const at::Tensor& x, c10::SymIntArrayRef size,
                                std::optional<at::MemoryFormat>) {
  c10::TensorImpl* const impl = x.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t bytes = x.nbytes();
  if (impl->storage().nbytes() < bytes) {
    impl->unsafe_storage().set_data_ptr_noswap(OtherMemory::The().allocate(bytes));
    impl->unsafe_storage().set_nbytes(bytes);
  }
  return x;
}

inline at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  if (from.sizes() != to.sizes()) Resize(to, c10::fromIntArrayRefSlow(from.sizes()), {});
  return CopyFrom(from, to, false);
}

inline at::Scalar Number(const at::Tensor& x) {
  const OtherMemory::Open open;
  return OnCpu(x).item();
}

inline at::Tensor View(const at::Tensor& x, c10::SymIntArrayRef size) {
  return at::native::view(x, C10_AS_INTARRAYREF_SLOW(size));
}

inline at::Tensor ReshapeAlias(const at::Tensor& x, c10::SymIntArrayRef size,
                               c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(x, C10_AS_INTARRAYREF_SLOW(size),
                                    C10_AS_INTARRAYREF_SLOW(stride));
}

inline at::Tensor AsStrided(const at::Tensor& x, c10::SymIntArrayRef size,
                            c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      x, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt);
}

// Without copies: the sums of blocks (src/quant/device_neutral.cc) are thousands of these.
inline at::Tensor& AddTo(at::Tensor& sum, const at::Tensor& x, const at::Scalar& times) {
  TERN_CHECK(x.device() == kOther || x.dim() == 0, "add_ mixes devices");
  OtherMemory::The().LeaveOpen();
  OnCpu(sum).add_(OnCpu(x), times);
  return sum;
}

// Everything else: on the CPU, unless it mixes devices.
inline void OnCopies(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string& name = op.schema().name();
  // The fused optimizer step reads its numbers on the device.
  const bool numbers_mix = name.find("fused") == std::string::npos;
  const auto check = [&](const at::Tensor& x) {
    if (x.defined() && x.device().is_cpu() && (x.dim() > 0 || !numbers_mix))
      throw BugError(StrCat(name, " mixes a CPU tensor ", x.sizes(), " with another device's"));
  };
  const auto arguments = torch::jit::last(stack, op.schema().arguments().size());
  for (const c10::IValue& argument : arguments) {
    if (argument.isTensor()) check(argument.toTensor());
    if (argument.isTensorList())
      for (const at::Tensor& x : argument.toTensorVector()) check(x);
  }
  at::native::cpu_fallback(op, stack);
}

}  // namespace other

inline const bool kOtherIsRegistered = [] {
  static OtherHooks hooks;
  c10::register_privateuse1_backend("other");
  at::RegisterPrivateUse1HooksInterface(&hooks);
  c10::SetAllocator(c10::DeviceType::PrivateUse1, &OtherMemory::The());
  return true;
}();
C10_REGISTER_GUARD_IMPL(PrivateUse1, OtherGuard);

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", other::Empty);
  library.impl("empty_strided", other::EmptyStrided);
  library.impl("_copy_from", other::CopyFrom);
  library.impl("_copy_from_and_resize", other::CopyFromAndResize);
  library.impl("_local_scalar_dense", other::Number);
  library.impl("resize_", other::Resize);
  library.impl("view", other::View);
  library.impl("_reshape_alias", other::ReshapeAlias);
  library.impl("unfold", at::native::unfold);
  library.impl("add_.Tensor", other::AddTo);
  library.impl("as_strided", other::AsStrided);
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&other::OnCopies>());
}

}  // namespace tern::testing
