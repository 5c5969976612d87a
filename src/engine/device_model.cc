// See device_model.h. Placed twice, first to count the bytes, then to copy them into one
// allocation.
#include "engine/device_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"
#include "engine/device_linear.h"
#include "kernels/attention/attention.h"

namespace tern::engine {

DeviceModel::DeviceModel(const ModelWeights& weights, kernels::Device& device)
    : weights_(weights), device_(device) {
  TERN_CHECK_INPUT(weights.config.HeadDim() <= kernels::kAttentionMaxWidth, weights.source,
                   " has heads of ", weights.config.HeadDim(), " elements; a device takes at most ",
                   kernels::kAttentionMaxWidth, ". Run it with --device cpu");
  if (weights.code_activations == CodeActivations::kInt8)
    throw UsageError(StrCat("a device does not round activations to int8 for ", weights.source,
                            "; take int16 (fp32 there) or run it with --device cpu"));
  DeviceUploader count(device, nullptr);
  Place(&count);
  memory_ = device.Allocate(count.size_bytes());
  DeviceUploader upload(device, memory_.data());
  Place(&upload);
}

void DeviceModel::Place(DeviceUploader* uploader) {
  layers_.clear();
  const auto put = [&](const LinearMatrix& matrix) {
    const DeviceMatrix placed =
        uploader->Put(matrix, weights_.activation, weights_.code_activations);
    if (const auto* table = std::get_if<DeviceTable>(&placed)) {
      if (table->view.IsCodes() && !table->fp8_product)
        expanded_ = std::max(expanded_, int64_t{table->view.n} * table->view.k);
      rounds_inputs_ = rounds_inputs_ || table->input.code != InputRounding::Code::kNone;
    }
    return placed;
  };
  for (const LayerWeights& w : weights_.layers) {
    Layer layer;
    layer.input_norm = uploader->Put(w.input_norm);
    layer.q_norm = uploader->Put(w.q_norm);
    layer.k_norm = uploader->Put(w.k_norm);
    layer.post_norm = uploader->Put(w.post_norm);
    layer.q_in = uploader->Put(w.q_in);
    layer.k_in = uploader->Put(w.k_in);
    layer.v_in = uploader->Put(w.v_in);
    layer.o_in = uploader->Put(w.o_in);
    layer.gate_in = uploader->Put(w.gate_in);
    layer.up_in = uploader->Put(w.up_in);
    layer.down_in = uploader->Put(w.down_in);
    layer.q_bias = uploader->Put(w.q_bias);
    layer.k_bias = uploader->Put(w.k_bias);
    layer.v_bias = uploader->Put(w.v_bias);
    layer.q = put(w.q);
    layer.k = put(w.k);
    layer.v = put(w.v);
    layer.o = put(w.o);
    layer.gate = put(w.gate);
    layer.up = put(w.up);
    layer.down = put(w.down);
    layers_.push_back(layer);
  }
  final_norm_ = uploader->Put(weights_.final_norm);
  embedding_ = uploader->Put(weights_.embedding);
  head_ = weights_.head ? uploader->Put(*weights_.head) : embedding_;
}

std::string DeviceModel::Describe() const {
  int ternary = 0, int4 = 0, tables = 0, rounded = 0, fp8 = 0;
  for (const Layer& l : layers_) {
    for (const DeviceMatrix* matrix : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) {
      ternary += std::holds_alternative<DeviceTernary>(*matrix);
      int4 += std::holds_alternative<DeviceInt4>(*matrix);
      const auto* table = std::get_if<DeviceTable>(matrix);
      if (table == nullptr) continue;
      const bool rounds = table->input.code != InputRounding::Code::kNone;
      ++(table->fp8_product ? fp8 : rounds ? rounded : tables);
    }
  }
  std::string text = StrCat("device ", device_.name(), " (", device_.info().name,
                            "): ", FormatBytes(size_bytes()), "; linear layers: ");
  std::string separator;
  const auto add = [&](int count, const std::string& what) {
    if (count == 0) return;
    text += StrCat(separator, count, what);
    separator = ", ";
  };
  add(ternary, " ternary with int8 activations");
  add(int4, " of 4 bits with 16-bit activations");
  const std::string many =
      StrCat(", above ", kTableProductRows, " tokens at once by ", device_.dense_products());
  add(tables, StrCat(" with fp32 activations", many, " (in 16 bits but for fp32 ones)"));
  add(rounded, StrCat(" with the folder's activations", many, " (in 16 bits)"));
  add(fp8, StrCat(" of FP8 with the folder's activations", many, " (FP8 by FP8)"));
  return text;
}

}  // namespace tern::engine
