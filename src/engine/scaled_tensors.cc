// See scaled_tensors.h.
#include "engine/scaled_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "engine/layer_tensors.h"
#include "formats/half.h"

namespace tern::engine {
namespace {

using formats::SafetensorsReader;
using formats::SafetensorsTensor;
using Shape = std::vector<int64_t>;

constexpr int64_t kPerWord = 8;

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0); }

class Layer {
 public:
  Layer(const SafetensorsReader& tensors, const HfQuantization& quantization,
        const ParameterSpec& spec, const std::string& folder, std::set<std::string>* used)
      : files_(tensors, spec, folder, used),
        quantization_(quantization),
        n_(spec.shape[0]),
        k_(spec.shape[1]) {}

  std::optional<ScaledMatrix> Read() {
    ScaledMatrix matrix;
    matrix.owner = files_.reader().mapping();
    matrix.n = n_;
    matrix.k = k_;
    if (files_.Has("weight_packed")) {
      matrix.code = ScaledCode::kInt4;
      matrix.codes = files_.Take("weight_packed", "I32", {n_, CeilDiv(k_, kPerWord)}).bytes;
      CheckStoredShape();
    } else {
      if (!files_.Has("weight")) return std::nullopt;  // The reader of plain floats says so
      const std::string dtype = files_.Get("weight").dtype;
      if (dtype != "I8" && dtype != "F8_E4M3") return std::nullopt;
      matrix.code = dtype == "I8" ? ScaledCode::kInt8 : ScaledCode::kFp8E4m3;
      matrix.codes = files_.Take("weight", dtype, {n_, k_}).bytes;
    }
    ReadScales(&matrix);
    if (files_.Has("input_zero_point")) files_.Skip("input_zero_point");  // Symmetric ones are done
    CheckFinite(matrix, StrCat(files_.folder(), ": ", files_.Name("weight")));
    return matrix;
  }

 private:
  // The sizes before packing, which the padding of the words hides.
  void CheckStoredShape() {
    int64_t sizes[2];
    const SafetensorsTensor& tensor = files_.Take("weight_shape", "I64", {2});
    std::memcpy(sizes, tensor.bytes.data(), sizeof sizes);
    TERN_CHECK_FORMAT(sizes[0] == n_ && sizes[1] == k_, files_.folder(), ": ",
                      files_.Name("weight_shape"), " is ", ShapeText({sizes[0], sizes[1]}),
                      "; want ", ShapeText({n_, k_}));
  }

  // Shape of the scales of a scheme; of one for the whole matrix, [1].
  Shape ScaleShape(const ScaledScheme& scheme) const {
    const int64_t rows = scheme.block_n == 0 ? 1 : CeilDiv(n_, scheme.block_n);
    const int64_t columns = scheme.block_k == 0 ? 1 : CeilDiv(k_, scheme.block_k);
    if (scheme.block_n == 0) return {1};
    return {rows, columns};
  }

  bool Fits(const ScaledScheme& scheme, const ScaledMatrix& matrix, const Shape& scales) const {
    if (scheme.packing != ScaledScheme::Packing::kNone || scheme.code != matrix.code ||
        scheme.symmetric == files_.Has("weight_zero_point"))
      return false;
    // Groups that do not fill a row are written by no tool, so what they mean is not known.
    if (scheme.block_n == 1 && scheme.block_k > 0 && k_ % scheme.block_k != 0) return false;
    if (scheme.block_n != 0) return scales == ScaleShape(scheme);
    return scales.empty() || scales == Shape{1} || scales == Shape{1, 1};
  }

  // One number, of all tokens; where it is wanted and is none, the rounding is not done here.
  void ReadInputScale(bool wanted, InputRounding* input) {
    if (!files_.Has("input_scale")) {
      if (wanted) input->code = InputRounding::Code::kOther;
      return;
    }
    const SafetensorsTensor& tensor = files_.Get("input_scale");
    files_.Skip("input_scale");
    if (!wanted || input->code == InputRounding::Code::kNone) return;
    float scale = 0;
    uint16_t bits = 0;
    if (tensor.dtype == "F32" && tensor.bytes.size() == sizeof scale) {
      std::memcpy(&scale, tensor.bytes.data(), sizeof scale);
    } else if (tensor.dtype == "BF16" && tensor.bytes.size() == sizeof bits) {
      std::memcpy(&bits, tensor.bytes.data(), sizeof bits);
      scale = formats::Bf16ToFp32(bits);
    }
    if (scale > 0 && std::isfinite(scale)) {
      input->scale = scale;
    } else {
      input->code = InputRounding::Code::kOther;
    }
  }

  // `inputs_differ`: groups of layers that differ in their inputs alone fit, and which of them this
  // layer is of (`targets`) is not read.
  void TakeScheme(const ScaledScheme& scheme, bool inputs_differ, ScaledMatrix* matrix) {
    matrix->input = scheme.input;
    ReadInputScale(scheme.static_input, &matrix->input);
    if (inputs_differ) matrix->input.code = InputRounding::Code::kOther;
    matrix->block_n = scheme.block_n == 0 ? n_ : std::min(scheme.block_n, n_);
    matrix->block_k = scheme.block_k == 0 ? k_ : std::min(scheme.block_k, k_);
    if (scheme.symmetric) return;
    matrix->zero_points =
        files_.Take("weight_zero_point", "I32", {CeilDiv(n_, kPerWord), ScaleShape(scheme).back()})
            .bytes;
  }

  void ReadScales(ScaledMatrix* matrix) {
    const std::string& part = quantization_.scale_name;
    const SafetensorsTensor& scales = files_.Get(part);
    files_.Skip(part);
    TERN_CHECK_FORMAT(scales.dtype == "F32" || scales.dtype == "F16" || scales.dtype == "BF16",
                      files_.folder(), ": ", files_.Name(part), " is ", scales.dtype,
                      "; want F32, F16 or BF16");
    matrix->scale_type = scales.dtype == "F32"   ? ScaleType::kF32
                         : scales.dtype == "F16" ? ScaleType::kF16
                                                 : ScaleType::kBf16;
    matrix->scales = scales.bytes;
    const ScaledScheme* found = nullptr;
    bool inputs_differ = false;
    std::string wanted;
    for (const ScaledScheme& scheme : quantization_.schemes) {
      if (!Fits(scheme, *matrix, scales.shape)) {
        wanted += StrCat(wanted.empty() ? "" : "; or ", scheme.Describe(), ", which are ",
                         ShapeText(ScaleShape(scheme)));
      } else if (found == nullptr) {
        found = &scheme;
      } else {
        inputs_differ = inputs_differ || scheme.input != found->input ||
                        scheme.static_input != found->static_input;
      }
    }
    if (found != nullptr) return TakeScheme(*found, inputs_differ, matrix);
    throw FormatError(StrCat(files_.folder(), ": ", files_.Name("weight"), " has scales ",
                             ShapeText(scales.shape),
                             files_.Has("weight_zero_point") ? " and zero points" : "",
                             ", which no group of quantization_config describes; want ", wanted));
  }

  const LayerTensors files_;
  const HfQuantization& quantization_;
  int64_t n_, k_;
};

}  // namespace

std::optional<ScaledMatrix> ReadScaledMatrix(const SafetensorsReader& tensors,
                                             const HfQuantization& quantization,
                                             const ParameterSpec& spec, const std::string& folder,
                                             std::set<std::string>* used) {
  return Layer(tensors, quantization, spec, folder, used).Read();
}

}  // namespace tern::engine
