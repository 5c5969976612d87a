// Linear layers on a device: LinearInput of linear.h with its forms in the device's memory, made
// when a matrix first asks for them: int8 tokens for ternary layers, 16-bit rows for 4-bit layers
// and dense products, fp32 for tables; where a folder's activations are wanted, rounded rows for
// tables and FP8 codes for the FP8 product.
#pragma once

#include <cstdint>

#include "engine/device_arena.h"
#include "engine/device_matrix.h"

namespace tern::engine {

// Rows that tables multiply one by one, by the codes as they lie and with the numbers of the CPU's
// fp32 products. More rows go to the device's dense product, codes expanded to fp16 first; a token
// with inputs beyond fp16's range is divided by a power of two there, and its results multiplied by
// it.
inline constexpr int64_t kTableProductRows = 8;

class DeviceInput {
 public:
  // What the buffers are made for.
  struct Limits {
    int64_t rows = 0, widest = 0;  // Of inputs
    int64_t expanded = 0;          // Weights of the largest table of codes
    bool rounded = false;          // Some inputs are rounded as a folder asks
  };
  explicit DeviceInput(kernels::Device& device) : device_(device) {}
  // Takes the buffers. REQUIRES: once with memory before anything else.
  void Place(const Limits& limits, DeviceArena* arena);

  // x: [m, k] fp32, which must stay as it is until the next Set. gain: [k], or null for no norm.
  void Set(const float* x, int64_t m, int64_t k, const float* gain = nullptr, float eps = 0);
  // Queues y[m, n] = input matrix^T. REQUIRES: the matrix's k is the input's.
  void Multiply(const DeviceMatrix& matrix, float* y);
  // The head: always by its own codes, whatever m.
  void MultiplyTable(const kernels::TableView& table, float* y);

 private:
  void Product(const DeviceTernary& matrix, float* y);
  void Product(const DeviceInt4& matrix, float* y);
  void Product(const DeviceTable& table, float* y);
  void DenseProduct(const kernels::TableView& table, const float* x, float* y);
  // y = (codes of the input) (codes of the table)^T, times the scales of token and row.
  void Fp8Product(const DeviceTable& table, float* y);

  const float* Floats();
  // Scaled back; its memory is also that of another rounding's.
  const float* Rounded(const InputRounding& rounding);
  void MakeInt8();
  // `from` [m, k], which is Floats() or Rounded(), as fp16 or bf16 rows of `ld` elements, zeros
  // beyond k; the scales of fp16 rows are in halves_scale_.
  const uint16_t* Halves(const float* from, bool bf16, int64_t ld);

  kernels::Device& device_;
  const float* x_ = nullptr;
  const float* gain_ = nullptr;
  float eps_ = 0;
  int64_t m_ = 0, k_ = 0, halves_ld_ = 0;
  bool has_floats_ = false, has_int8_ = false, halves_bf16_ = false;  // halves_ld_ 0: no halves
  const float* halves_from_ = nullptr;
  InputRounding rounding_, fp8_rounding_;  // Of rounded_ and fp8_codes_; kNone: not there
  // In the device's memory.
  float *floats_ = nullptr, *gamma_ = nullptr, *inv_rms_ = nullptr, *out_scale_ = nullptr;
  int8_t* codes_ = nullptr;
  int32_t* sum_ = nullptr;
  uint16_t *halves_ = nullptr, *expanded_ = nullptr;
  float *rounded_ = nullptr, *fp8_scale_ = nullptr, *halves_scale_ = nullptr;
  uint8_t* fp8_codes_ = nullptr;
};

}  // namespace tern::engine
