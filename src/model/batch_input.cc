// See batch_input.h.
#include "model/batch_input.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

namespace tern::model {
namespace {

// A copy of rows [begin, begin + count) of a [batch, tokens] array as an int32 tensor.
at::Tensor Rows(const std::vector<int32_t>& values, int64_t tokens, int64_t begin, int64_t count,
                const at::Device& device) {
  at::Tensor out =
      at::empty({count, tokens}, at::TensorOptions(at::kInt).pinned_memory(device.is_cuda()));
  std::copy_n(values.begin() + begin * tokens, count * tokens, out.mutable_data_ptr<int32_t>());
  return out.to(device, /*non_blocking=*/true);
}

}  // namespace

DecoderInput InputOf(const data::Batch& batch, int64_t begin, int64_t count,
                     const at::Device& device) {
  DecoderInput input;
  input.tokens_BT = Rows(batch.inputs, batch.tokens, begin, count, device).to(at::kLong);
  if (!batch.document_ids.empty()) {
    input.positions_BT = Rows(batch.positions, batch.tokens, begin, count, device);
    input.document_ids_BT = Rows(batch.document_ids, batch.tokens, begin, count, device);
  }
  return input;
}

at::Tensor TargetsOf(const data::Batch& batch, int64_t begin, int64_t count,
                     const at::Device& device) {
  return Rows(batch.targets, batch.tokens, begin, count, device).view({-1});
}

}  // namespace tern::model
