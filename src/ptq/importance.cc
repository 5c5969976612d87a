// See importance.h.
#include "ptq/importance.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstring>

#include "arch/gguf_names.h"
#include "base/error.h"
#include "base/stop_signal.h"
#include "formats/gguf.h"
#include "ptq/block_pass.h"

namespace tern::ptq {
namespace {

constexpr const char* kSum = ".in_sum2";
constexpr const char* kCount = ".counts";

}  // namespace

Importance CollectImportance(FloatModel* model, const at::Tensor& tokens_BT,
                             const ActivationRoom& room) {
  const at::NoGradGuard no_grad;
  const ModelConfig& config = model->config();
  const int64_t b = tokens_BT.size(0), t = tokens_BT.size(1);
  const at::Tensor x_BTD = room.New({b, t, config.hidden_size});
  model->Embed(tokens_BT, x_BTD, [&](const at::Tensor& x_TD) { room.Drop(x_TD); });
  const nn::RopeTables rope =
      nn::MakeRopeTables(t, config.HeadDim(), config.rope_theta,
                         RopeFactors(config.rope_scaling, config.HeadDim(), config.rope_theta));
  Importance out;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    ThrowIfStopped("importance was measured, of which nothing is kept");
    const std::string prefix = StrCat("model.layers.", layer, ".");
    BlockPass::Tensors tensors;
    for (const ParameterSpec& spec : ParameterTable(config)) {
      if (spec.name.starts_with(prefix))
        tensors[spec.name.substr(prefix.size())] = model->Read(spec).contiguous();
    }
    BlockPass pass(config, rope, tensors, x_BTD, room);
    for (const Step step : kSteps) {
      at::Tensor sum_K;
      pass.Inputs(step, [&](const at::Tensor& x_MK) {
        const at::Tensor squares_K = x_MK.square().sum(0, /*keepdim=*/false, at::kDouble);
        sum_K = sum_K.defined() ? sum_K + squares_K : squares_K;
      });
      const at::Tensor mean_K = (sum_K / static_cast<double>(b * t)).to(at::kFloat).contiguous();
      const float* mean = mean_K.const_data_ptr<float>();
      for (const std::string& name : MatricesOf(step))
        out[prefix + name] = std::vector<float>(mean, mean + mean_K.numel());
      pass.Finish(step);
    }
    model->DropPages();
  }
  return out;
}

void WriteImportance(const std::string& path, const Importance& importance, int64_t tokens,
                     int64_t sequence, const std::string& dataset) {
  formats::GgufWriter writer("imatrix");
  writer.AddString("general.type", "imatrix");
  writer.AddStrings("imatrix.datasets", {dataset});
  writer.AddU32("imatrix.chunk_count", static_cast<uint32_t>(tokens / sequence));
  writer.AddU32("imatrix.chunk_size", static_cast<uint32_t>(sequence));
  const auto count = static_cast<float>(tokens);
  for (const auto& [name, mean] : importance) {
    const auto k = static_cast<int64_t>(mean.size());
    writer.AddTensor(GgufName(name) + kSum, formats::GgmlType::kF32, {1, k},
                     [&mean, count](int64_t, uint8_t* out) {
                       std::vector<float> sums;
                       for (const float value : mean) sums.push_back(value * count);
                       std::memcpy(out, sums.data(), sums.size() * sizeof(float));
                     });
    writer.AddTensor(GgufName(name) + kCount, formats::GgmlType::kF32, {1, 1},
                     [count](int64_t, uint8_t* out) { std::memcpy(out, &count, sizeof count); });
  }
  writer.Write(path);
}

Importance ReadImportance(const std::string& path, const ModelConfig& config) {
  const formats::GgufReader file(path);
  TERN_CHECK_FORMAT(file.Has("general.type") && file.String("general.type") == "imatrix", path,
                    ": general.type is not imatrix; want the GGUF that llama-imatrix writes");
  Importance out;
  for (const ParameterSpec& spec : ParameterTable(config)) {
    if (spec.role != ParameterRole::kLinear) continue;
    const std::string name = GgufName(spec.name);
    const formats::GgufTensor *sums = file.Find(name + kSum), *counts = file.Find(name + kCount);
    TERN_CHECK_INPUT(sums != nullptr && counts != nullptr, path, " has no ", name,
                     "; it is of another model");
    TERN_CHECK_INPUT(sums->type == formats::GgmlType::kF32 && sums->rows() == 1 &&
                         sums->row_elements() == spec.shape[1] &&
                         counts->type == formats::GgmlType::kF32 && counts->row_elements() == 1,
                     path, ": ", name, kSum, " has ", sums->row_elements(), " columns; want ",
                     spec.shape[1], " in F32, and one count");
    float count = 0;
    std::memcpy(&count, counts->row(0), sizeof count);
    std::vector<float>& mean = out[spec.name];
    mean.resize(static_cast<size_t>(spec.shape[1]));
    std::memcpy(mean.data(), sums->row(0), mean.size() * sizeof(float));
    for (float& value : mean) {
      value /= count;
      TERN_CHECK_FORMAT(std::isfinite(value) && value >= 0, path, ": ", name, kSum, " or ", kCount,
                        " give ", value, "; want numbers of 0 and more");
    }
  }
  return out;
}

}  // namespace tern::ptq
