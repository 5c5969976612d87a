// See device_matrix.h.
#include "engine/device_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/code_gemm/split_codes.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {

using kernels::TableType;
using kernels::TableView;

namespace {

template <class Matrix>
TableView Shaped(const Matrix& matrix, TableType type) {
  TableView view;
  view.type = type;
  view.n = static_cast<int>(matrix.n);
  view.k = static_cast<int>(matrix.k);
  return view;
}

// Whether the table product takes scales of so many columns.
bool FitsTable(int64_t block_k, int64_t k) { return block_k % 16 == 0 || block_k >= k; }

}  // namespace

const void* DeviceUploader::PutBytes(const void* bytes, int64_t size_bytes) {
  if (size_bytes == 0) return nullptr;
  char* at = arena_.Take<char>(size_bytes);
  if (at != nullptr) device_.CopyIn(at, bytes, size_bytes);
  return at;
}

TableView DeviceUploader::Put(const TableMatrix& table) {
  return std::visit([&](const auto& matrix) { return PutTable(matrix); }, table);
}

DeviceMatrix DeviceUploader::Put(const LinearMatrix& matrix, ActivationRule rule,
                                 CodeActivations activations) {
  if (const auto* ternary = std::get_if<TernaryMatrix>(&matrix)) return PutLinear(*ternary, rule);
  if (const auto* int4 = std::get_if<Int4Matrix>(&matrix)) return PutLinear(*int4);
  if (const auto* dense = std::get_if<DenseMatrix>(&matrix)) return DeviceTable{PutTable(*dense)};
  if (const auto* blocks = std::get_if<BlockMatrix>(&matrix)) return DeviceTable{PutTable(*blocks)};
  return PutLinear(std::get<ScaledMatrix>(matrix), activations);
}

template <class T, class Fill>
const T* DeviceUploader::PutMade(int64_t count, const Fill& fill) {
  T* at = arena_.Take<T>(count);
  if (at == nullptr) return nullptr;
  std::vector<T> values(static_cast<size_t>(count));
  fill(values.data());
  device_.CopyIn(at, values.data(), count * static_cast<int64_t>(sizeof(T)));
  return at;
}

template <class Matrix>
TableView DeviceUploader::PutDecoded(const Matrix& matrix) {
  TableView view = Shaped(matrix, TableType::kF32);
  view.values = PutMade<float>(matrix.n * matrix.k, [&](float* out) {
    for (int64_t row = 0; row < matrix.n; ++row) matrix.Decode(row, out + row * matrix.k);
  });
  return view;
}

TableView DeviceUploader::PutTable(const DenseMatrix& matrix) {
  TableView view = Shaped(matrix, TableType::kF32);
  view.values = Put(matrix.values);
  return view;
}

TableView DeviceUploader::PutTable(const BlockMatrix& matrix) {
  using formats::GgmlType;
  if (const auto type = CodeOf(matrix.type)) return PutCodes(matrix, *type);
  if (matrix.type != GgmlType::kF16 && matrix.type != GgmlType::kBf16) return PutDecoded(matrix);
  TableView view =
      Shaped(matrix, matrix.type == GgmlType::kF16 ? TableType::kF16 : TableType::kBf16);
  view.values = PutMade<uint16_t>(matrix.n * matrix.k, [&](uint16_t* out) {
    for (int64_t row = 0; row < matrix.n; ++row)  // In the model's order
      std::memcpy(out + row * matrix.k, matrix.Row(row),
                  static_cast<size_t>(matrix.k) * sizeof(uint16_t));
  });
  return view;
}

TableView DeviceUploader::PutCodes(const BlockMatrix& matrix, kernels::CodeType type) {
  const int64_t run = kernels::SplitRun(type), runs = matrix.k / run;
  const bool shifted = kernels::HasShifts(type);
  std::vector<float> scales(static_cast<size_t>(matrix.n * runs));
  std::vector<float> shifts(shifted ? scales.size() : 0);
  TableView view = Shaped(matrix, TableType::kInt8);
  view.values = PutMade<int8_t>(matrix.n * matrix.k, [&](int8_t* out) {
    for (int64_t row = 0; row < matrix.n; ++row)
      kernels::SplitCodes(type, matrix.Row(row), matrix.k, out + row * matrix.k,
                          scales.data() + row * runs,
                          shifted ? shifts.data() + row * runs : nullptr);
  });
  view.scales = Put(scales);
  view.shifts = Put(shifts);
  view.block_k = static_cast<int>(run);
  return view;
}

TableView DeviceUploader::PutTable(const ScaledMatrix& matrix) {
  if (!FitsTable(matrix.block_k, matrix.k)) return PutDecoded(matrix);
  const bool fp8 = matrix.code == ScaledCode::kFp8E4m3;
  TableView view = Shaped(matrix, fp8 ? TableType::kE4m3 : TableType::kInt8);
  if (fp8) {
    view.values = Put(matrix.codes);
  } else {
    view.values = PutMade<int8_t>(matrix.n * matrix.k, [&](int8_t* out) {
      for (int64_t row = 0; row < matrix.n; ++row) matrix.Codes(row, out + row * matrix.k);
    });
  }
  const int64_t last = matrix.ScaleIndex(matrix.n - 1, (matrix.k - 1) / matrix.block_k);
  view.scales = PutMade<float>(last + 1, [&](float* out) {
    for (int64_t i = 0; i <= last; ++i) out[i] = matrix.Scale(i);
  });
  view.block_n = static_cast<int>(matrix.block_n);
  view.block_k = static_cast<int>(std::min(matrix.block_k, matrix.k));
  return view;
}

DeviceTable DeviceUploader::PutLinear(const ScaledMatrix& matrix, CodeActivations activations) {
  DeviceTable table{PutTable(matrix)};
  if (activations != CodeActivations::kFolder) return table;
  table.input = matrix.input;
  TERN_CHECK(table.input.code != InputRounding::Code::kOther, "inputs that no one rounds");
  const bool whole_rows = table.input.group <= 0 || table.input.group >= matrix.k;
  // Scales within a row cannot come after the sum. Asked with many rows and with an odd number of
  // them: what cuBLASLt wants of sizes is not about m.
  table.fp8_product = table.view.type == TableType::kE4m3 && matrix.block_k >= matrix.k &&
                      table.input.code == InputRounding::Code::kFp8E4m3 && whole_rows;
  for (const int64_t m : {9, 64})
    table.fp8_product = table.fp8_product && device_.kernels().fp8_gemm_runs(m, matrix.n, matrix.k);
  return table;
}

DeviceMatrix DeviceUploader::PutLinear(const TernaryMatrix& matrix, ActivationRule rule) {
  if (rule == ActivationRule::kInt8Token)
    return DeviceTernary{Put(matrix.t2), matrix.scale, static_cast<int>(matrix.n),
                         static_cast<int>(matrix.k)};
  TableView view = Shaped(matrix, TableType::kInt8);
  view.values = PutMade<int8_t>(matrix.n * matrix.k, [&](int8_t* out) {
    std::vector<float> row(static_cast<size_t>(matrix.k));
    for (int64_t n = 0; n < matrix.n; ++n) {
      kernels::DequantizeT2(matrix.t2.data() + n * kernels::T2RowBytes(matrix.k), 0, 1, matrix.k,
                            /*scale=*/1.0f, row.data(), matrix.k);
      std::transform(row.begin(), row.end(), out + n * matrix.k,
                     [](float value) { return static_cast<int8_t>(value); });
    }
  });
  view.scales = Put(std::vector<float>{matrix.scale});
  view.block_n = view.n;
  view.block_k = view.k;
  return DeviceTable{view};
}

DeviceMatrix DeviceUploader::PutLinear(const Int4Matrix& matrix) {
  DeviceInt4 out;
  out.codes = Put(matrix.codes);
  out.scales_GN = Put(matrix.scales_GN);
  out.zeros_GN = Put(matrix.zeros_GN);
  out.scale_type = matrix.scale_type;
  out.n = static_cast<int>(matrix.n);
  out.k = static_cast<int>(matrix.k);
  return out;
}

}  // namespace tern::engine
