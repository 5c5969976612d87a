// See reducer.h.
#include "parallel/reducer.h"

#include <algorithm>
#include <torch/csrc/distributed/c10d/reducer.hpp>

namespace tern::parallel {
namespace {

class SumHook : public c10d::CppCommHookInterface<Group*> {
 public:
  explicit SumHook(Group* group) : CppCommHookInterface<Group*>(group) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> tensors = {bucket.getBufferRef()};
    state_->CountSum(static_cast<int64_t>(tensors[0].nbytes()), "gradients");
    return state_->process_group()
        ->getBackend(tensors[0].device().type())
        ->allreduce(tensors)
        ->getFuture();
  }
};

}  // namespace

struct GradientReducer::Impl {
  std::unique_ptr<c10d::Reducer> reducer;
};

GradientReducer::GradientReducer(Group& group, const std::vector<at::Tensor>& parameters,
                                 int64_t bucket_bytes)
    : impl_(std::make_unique<Impl>()) {
  std::vector<at::Tensor> backwards(parameters.rbegin(), parameters.rend());
  // The first bucket is small, so that the first sum starts early (DDP's choice).
  const std::vector<size_t> sizes = {
      static_cast<size_t>(std::min<int64_t>(c10d::kDefaultFirstBucketBytes, bucket_bytes)),
      static_cast<size_t>(bucket_bytes)};
  auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(backwards, sizes);
  impl_->reducer = std::make_unique<c10d::Reducer>(
      backwards, std::move(buckets), group.process_group(),
      std::vector<bool>(backwards.size(), false), bucket_bytes, /*find_unused_parameters=*/false,
      /*gradient_as_bucket_view=*/true, std::unordered_map<size_t, std::string>(),
      static_cast<int64_t>(sizes[0]), /*skip_all_reduce_unused_params=*/false,
      /*use_python_reducer=*/false, std::vector<int64_t>());
  // Else the Reducer rebuilds its buckets after the first step, by the order it saw.
  impl_->reducer->push_rebuilt_params_for_all_indices();
  group.Guard([&] { impl_->reducer->rebuild_buckets(); });
  impl_->reducer->register_comm_hook(std::make_unique<SumHook>(&group));
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::BeforeBackward(bool last) {
  // Without this call the Reducer lets the gradients of a backward pass add up where they are.
  if (last) impl_->reducer->prepare_for_backward({});
}

}  // namespace tern::parallel
