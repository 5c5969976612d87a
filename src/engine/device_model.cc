// The weights of a model on a device: see device_session.h. Placed twice, first to count the bytes,
// then to copy them into one allocation.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "engine/device_session.h"
#include "formats/half.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {

// Gives each piece its place; copies only when there is memory.
class DeviceModel::Uploader {
 public:
  Uploader(kernels::Device& device, char* base) : device_(device), base_(base) {}

  // Null for an absent (empty) piece.
  const void* Put(const void* bytes, int64_t size_bytes) {
    constexpr int64_t kAlignment = 256;
    if (size_bytes == 0) return nullptr;
    char* at = base_ == nullptr ? nullptr : base_ + size_bytes_;
    if (at != nullptr) device_.CopyIn(at, bytes, size_bytes);
    size_bytes_ += (size_bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
  template <class Values>  // A vector, with any allocator
  const typename Values::value_type* Put(const Values& values) {
    using T = typename Values::value_type;
    return static_cast<const T*>(
        Put(values.data(), static_cast<int64_t>(values.size() * sizeof(T))));
  }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  kernels::Device& device_;
  char* base_;
  int64_t size_bytes_ = 0;
};

namespace {

// The rows of a table that are not kept as the file has them, decoded to fp32.
std::vector<float> Decoded(const BlockMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.n * matrix.k));
  for (int64_t row = 0; row < matrix.n; ++row) matrix.Decode(row, values.data() + row * matrix.k);
  return values;
}

// A Q8_0 tensor as codes and scales. Blocks of 34 bytes: fp16 d, then 32 codes.
void SplitRuns(const BlockMatrix& matrix, std::vector<int8_t>* codes, std::vector<float>* scales) {
  constexpr int64_t kRun = kernels::kTableRun, kBlockBytes = 2 + kRun;
  const int64_t runs = matrix.n * matrix.k / kRun;
  codes->resize(static_cast<size_t>(runs * kRun));
  scales->resize(static_cast<size_t>(runs));
  const auto* bytes = reinterpret_cast<const uint8_t*>(matrix.bytes.data());
  for (int64_t i = 0; i < runs; ++i) {
    (*scales)[static_cast<size_t>(i)] = formats::LoadFp16(bytes + i * kBlockBytes);
    std::memcpy(codes->data() + i * kRun, bytes + i * kBlockBytes + 2, kRun);
  }
}

template <class Uploader>
kernels::TableView PutTable(const TableMatrix& table, Uploader* uploader) {
  kernels::TableView view;
  if (const auto* dense = std::get_if<DenseMatrix>(&table)) {
    view.values = uploader->Put(dense->values);
    view.n = static_cast<int>(dense->n), view.k = static_cast<int>(dense->k);
    return view;
  }
  const auto& blocks = std::get<BlockMatrix>(table);
  view.n = static_cast<int>(blocks.n), view.k = static_cast<int>(blocks.k);
  if (blocks.paired_head_dim == 0 && blocks.type == formats::GgmlType::kF16) {
    view.type = kernels::TableType::kF16;
    view.values = uploader->Put(blocks.bytes.data(), static_cast<int64_t>(blocks.bytes.size()));
  } else if (blocks.paired_head_dim == 0 && blocks.type == formats::GgmlType::kQ8_0) {
    view.type = kernels::TableType::kInt8Run;
    std::vector<int8_t> codes;
    std::vector<float> scales;
    SplitRuns(blocks, &codes, &scales);
    view.values = uploader->Put(codes);
    view.scales = uploader->Put(scales);
  } else {
    view.values = uploader->Put(Decoded(blocks));
  }
  return view;
}

template <class Uploader>
DeviceModel::Linear PutLinear(const ModelWeights& weights, const LinearMatrix& matrix,
                              Uploader* uploader) {
  const auto* ternary = std::get_if<TernaryMatrix>(&matrix);
  TERN_CHECK_INPUT(ternary != nullptr, weights.source,
                   " has linear layers that are not ternary; a device runs ternary models only. "
                   "Run it with --device cpu");
  DeviceModel::Linear linear;
  linear.t2 = uploader->Put(ternary->t2);
  linear.scale = ternary->scale;
  linear.n = static_cast<int>(ternary->n);
  linear.k = static_cast<int>(ternary->k);
  linear.padded_k = static_cast<int>(kernels::T2PaddedK(ternary->k));
  return linear;
}

}  // namespace

DeviceModel::DeviceModel(const ModelWeights& weights, kernels::Device& device)
    : weights_(weights), device_(device) {
  TERN_CHECK_INPUT(weights.activation == ActivationRule::kInt8Token, weights.source,
                   " wants float activations; a device runs int8 activations only. Run it with "
                   "--device cpu");
  TERN_CHECK_INPUT(weights.config.HeadDim() <= kernels::kAttentionMaxWidth, weights.source,
                   " has heads of ", weights.config.HeadDim(), " elements; a device takes at most ",
                   kernels::kAttentionMaxWidth, ". Run it with --device cpu");
  TERN_CHECK_INPUT(!weights.config.qkv_bias, weights.source,
                   " has biases on q, k and v, which a device does not add. Run it with --device "
                   "cpu");
  Uploader count(device, nullptr);
  Place(&count);
  memory_ = device.Allocate(count.size_bytes());
  Uploader upload(device, memory_.data());
  Place(&upload);
}

void DeviceModel::Place(Uploader* uploader) {
  layers_.clear();
  for (const LayerWeights& w : weights_.layers) {
    Layer layer;
    layer.input_norm = uploader->Put(w.input_norm);
    layer.q_norm = uploader->Put(w.q_norm);
    layer.k_norm = uploader->Put(w.k_norm);
    layer.attn_sub_norm = uploader->Put(w.attn_sub_norm);
    layer.post_norm = uploader->Put(w.post_norm);
    layer.ffn_sub_norm = uploader->Put(w.ffn_sub_norm);
    layer.q = PutLinear(weights_, w.q, uploader);
    layer.k = PutLinear(weights_, w.k, uploader);
    layer.v = PutLinear(weights_, w.v, uploader);
    layer.o = PutLinear(weights_, w.o, uploader);
    layer.gate = PutLinear(weights_, w.gate, uploader);
    layer.up = PutLinear(weights_, w.up, uploader);
    layer.down = PutLinear(weights_, w.down, uploader);
    layers_.push_back(layer);
  }
  final_norm_ = uploader->Put(weights_.final_norm);
  embedding_ = PutTable(weights_.embedding, uploader);
  head_ = weights_.head ? PutTable(*weights_.head, uploader) : embedding_;
}

}  // namespace tern::engine
