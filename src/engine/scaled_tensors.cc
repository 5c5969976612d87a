// See scaled_tensors.h.
#include "engine/scaled_tensors.h"

#include <cstring>
#include <vector>

#include "base/error.h"

namespace tern::engine {
namespace {

using formats::SafetensorsReader;
using formats::SafetensorsTensor;
using Shape = std::vector<int64_t>;

constexpr int64_t kPerWord = 8;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Layer {
 public:
  Layer(const SafetensorsReader& tensors, const HfQuantization& quantization,
        const ParameterSpec& spec, const std::string& folder, std::set<std::string>* used)
      : tensors_(tensors),
        quantization_(quantization),
        base_(spec.name.substr(0, spec.name.size() - std::string(".weight").size())),
        folder_(folder),
        used_(used),
        n_(spec.shape[0]),
        k_(spec.shape[1]) {}

  std::optional<ScaledMatrix> Read() {
    ScaledMatrix matrix;
    matrix.owner = tensors_.mapping();
    matrix.n = n_;
    matrix.k = k_;
    if (Has("weight_packed")) {
      matrix.code = ScaledCode::kInt4;
      matrix.codes = Take("weight_packed", "I32", {n_, CeilDiv(k_, kPerWord)}).bytes;
      CheckStoredShape();
    } else {
      if (!Has("weight")) return std::nullopt;  // The reader of plain floats says so
      const std::string dtype = tensors_.Get(Name("weight")).dtype;
      if (dtype != "I8" && dtype != "F8_E4M3") return std::nullopt;
      matrix.code = dtype == "I8" ? ScaledCode::kInt8 : ScaledCode::kFp8E4m3;
      matrix.codes = Take("weight", dtype, {n_, k_}).bytes;
    }
    ReadScales(&matrix);
    for (const char* part : {"input_scale", "input_zero_point"}) {
      if (Has(part)) used_->insert(Name(part));  // Of activations, which stay floats
    }
    CheckFinite(matrix, StrCat(folder_, ": ", Name("weight")));
    return matrix;
  }

 private:
  std::string Name(const std::string& part) const { return StrCat(base_, ".", part); }
  bool Has(const std::string& part) const { return tensors_.tensors().contains(Name(part)); }

  const SafetensorsTensor& Take(const std::string& part, const std::string& dtype,
                                const Shape& shape) {
    const SafetensorsTensor& tensor = tensors_.Get(Name(part));
    TERN_CHECK_FORMAT(tensor.dtype == dtype && tensor.shape == shape, folder_, ": ", Name(part),
                      " is ", tensor.dtype, " ", ShapeText(tensor.shape), "; want ", dtype, " ",
                      ShapeText(shape));
    used_->insert(Name(part));
    return tensor;
  }

  // The sizes before packing, which the padding of the words hides.
  void CheckStoredShape() {
    int64_t sizes[2];
    const SafetensorsTensor& tensor = Take("weight_shape", "I64", {2});
    std::memcpy(sizes, tensor.bytes.data(), sizeof sizes);
    TERN_CHECK_FORMAT(sizes[0] == n_ && sizes[1] == k_, folder_, ": ", Name("weight_shape"), " is ",
                      ShapeText({sizes[0], sizes[1]}), "; want ", ShapeText({n_, k_}));
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
        scheme.symmetric == Has("weight_zero_point"))
      return false;
    // Groups that do not fill a row are written by no tool, so what they mean is not known.
    if (scheme.block_n == 1 && scheme.block_k > 0 && k_ % scheme.block_k != 0) return false;
    if (scheme.block_n != 0) return scales == ScaleShape(scheme);
    return scales.empty() || scales == Shape{1} || scales == Shape{1, 1};
  }

  void ReadScales(ScaledMatrix* matrix) {
    const std::string& part = quantization_.scale_name;
    const SafetensorsTensor& scales = tensors_.Get(Name(part));
    used_->insert(Name(part));
    TERN_CHECK_FORMAT(scales.dtype == "F32" || scales.dtype == "F16" || scales.dtype == "BF16",
                      folder_, ": ", Name(part), " is ", scales.dtype, "; want F32, F16 or BF16");
    matrix->scale_type = scales.dtype == "F32"   ? ScaleType::kF32
                         : scales.dtype == "F16" ? ScaleType::kF16
                                                 : ScaleType::kBf16;
    matrix->scales = scales.bytes;
    std::string wanted;
    for (const ScaledScheme& scheme : quantization_.schemes) {
      if (!Fits(scheme, *matrix, scales.shape)) {
        wanted += StrCat(wanted.empty() ? "" : "; or ", scheme.Describe(), ", which are ",
                         ShapeText(ScaleShape(scheme)));
        continue;
      }
      matrix->block_n = scheme.block_n == 0 ? n_ : scheme.block_n;
      matrix->block_k = scheme.block_k == 0 ? k_ : scheme.block_k;
      if (!scheme.symmetric) {
        matrix->zero_points =
            Take("weight_zero_point", "I32", {CeilDiv(n_, kPerWord), scales.shape.back()}).bytes;
      }
      return;
    }
    throw FormatError(StrCat(folder_, ": ", Name("weight"), " has scales ", ShapeText(scales.shape),
                             Has("weight_zero_point") ? " and zero points" : "",
                             ", which no group of quantization_config describes; want ", wanted));
  }

  const SafetensorsReader& tensors_;
  const HfQuantization& quantization_;
  std::string base_;
  const std::string& folder_;
  std::set<std::string>* used_;
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
