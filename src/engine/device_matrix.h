// Matrices in a device's memory, each in the form that a kernel multiplies as it lies: ternary
// weights as T2, 4 bits in groups of 128 in the order of kernels/w4a16, everything else as a table
// (kernels/table): floats of the file's type, or codes and scales apart. No weight changes its
// value on the way.
#pragma once

#include <cstdint>
#include <variant>

#include "engine/device_arena.h"
#include "engine/model_weights.h"
#include "kernels/device/device.h"

namespace tern::engine {

struct DeviceTernary {
  const uint8_t* t2 = nullptr;  // [n, T2RowBytes(k)]
  float scale = 1;
  int n = 0, k = 0;
};

struct DeviceInt4 {
  const uint8_t* codes = nullptr;       // [n, W4RowBytes(k)]
  const uint16_t* scales_GN = nullptr;  // As Int4Matrix
  const uint8_t* zeros_GN = nullptr;    // Null: 8
  kernels::Float16Type scale_type = kernels::Float16Type::kF16;
  int n = 0, k = 0;
};

struct DeviceTable {
  kernels::TableView view;
  InputRounding input = {};  // Of the activations; kNone unless the folder's are wanted
  bool fp8_product = false;  // More than a few rows: E4M3 inputs by E4M3 weights, then the scales
};

using DeviceMatrix = std::variant<DeviceTernary, DeviceInt4, DeviceTable>;

// Gives each piece of a model its place in one allocation; copies only when there is memory.
class DeviceUploader {
 public:
  DeviceUploader(kernels::Device& device, char* base) : device_(device), arena_(base) {}

  template <class Values>  // A vector, with any allocator. Null for an empty one
  const typename Values::value_type* Put(const Values& values) {
    using T = typename Values::value_type;
    return static_cast<const T*>(
        PutBytes(values.data(), static_cast<int64_t>(values.size() * sizeof(T))));
  }
  kernels::TableView Put(const TableMatrix& table);
  // `rule`: how a ternary layer treats its inputs; without int8 activations it is a table.
  // `activations`: kFolder for inputs rounded as the matrix asks; else they stay floats.
  DeviceMatrix Put(const LinearMatrix& matrix, ActivationRule rule, CodeActivations activations);
  int64_t size_bytes() const { return arena_.size_bytes(); }

 private:
  const void* PutBytes(const void* bytes, int64_t size_bytes);
  // `count` values that fill(T*) makes; nothing is made while counting.
  template <class T, class Fill>
  const T* PutMade(int64_t count, const Fill& fill);
  kernels::TableView PutTable(const DenseMatrix& matrix);
  kernels::TableView PutTable(const BlockMatrix& matrix);
  kernels::TableView PutTable(const ScaledMatrix& matrix);
  kernels::TableView PutCodes(const BlockMatrix& matrix, kernels::CodeType type);
  template <class Matrix>  // With n, k and Decode
  kernels::TableView PutDecoded(const Matrix& matrix);
  DeviceTable PutLinear(const ScaledMatrix& matrix, CodeActivations activations);
  DeviceMatrix PutLinear(const TernaryMatrix& matrix, ActivationRule rule);
  DeviceMatrix PutLinear(const Int4Matrix& matrix);

  kernels::Device& device_;
  DeviceArena arena_;
};

}  // namespace tern::engine
