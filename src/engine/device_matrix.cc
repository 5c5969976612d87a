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

DeviceMatrix DeviceUploader::Put(const LinearMatrix& matrix, ActivationRule rule) {
  if (const auto* ternary = std::get_if<TernaryMatrix>(&matrix)) return PutLinear(*ternary, rule);
  if (const auto* int4 = std::get_if<Int4Matrix>(&matrix)) return PutLinear(*int4);
  if (const auto* dense = std::get_if<DenseMatrix>(&matrix)) return PutTable(*dense);
  if (const auto* blocks = std::get_if<BlockMatrix>(&matrix)) return PutTable(*blocks);
  return PutTable(std::get<ScaledMatrix>(matrix));
}

template <class Matrix>
TableView DeviceUploader::PutDecoded(const Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.n * matrix.k));
  for (int64_t row = 0; row < matrix.n; ++row) matrix.Decode(row, values.data() + row * matrix.k);
  TableView view = Shaped(matrix, TableType::kF32);
  view.values = Put(values);
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
  std::vector<uint16_t> values(static_cast<size_t>(matrix.n * matrix.k));
  for (int64_t row = 0; row < matrix.n; ++row)  // In the model's order
    std::memcpy(&values[static_cast<size_t>(row * matrix.k)], matrix.Row(row),
                static_cast<size_t>(matrix.k) * sizeof(uint16_t));
  view.values = Put(values);
  return view;
}

TableView DeviceUploader::PutCodes(const BlockMatrix& matrix, kernels::CodeType type) {
  const int64_t run = kernels::SplitRun(type), runs = matrix.k / run;
  std::vector<int8_t> codes(static_cast<size_t>(matrix.n * matrix.k));
  std::vector<float> scales(static_cast<size_t>(matrix.n * runs));
  std::vector<float> shifts(kernels::HasShifts(type) ? scales.size() : 0);
  for (int64_t row = 0; row < matrix.n; ++row)
    kernels::SplitCodes(type, matrix.Row(row), matrix.k, codes.data() + row * matrix.k,
                        scales.data() + row * runs,
                        shifts.empty() ? nullptr : shifts.data() + row * runs);
  TableView view = Shaped(matrix, TableType::kInt8);
  view.values = Put(codes);
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
    view.values = Put(std::vector<std::byte>(matrix.codes.begin(), matrix.codes.end()));
  } else {
    std::vector<int8_t> codes(static_cast<size_t>(matrix.n * matrix.k));
    for (int64_t row = 0; row < matrix.n; ++row) matrix.Codes(row, codes.data() + row * matrix.k);
    view.values = Put(codes);
  }
  const int64_t last = matrix.ScaleIndex(matrix.n - 1, (matrix.k - 1) / matrix.block_k);
  std::vector<float> scales;
  for (int64_t i = 0; i <= last; ++i) scales.push_back(matrix.Scale(i));
  view.scales = Put(scales);
  view.block_n = static_cast<int>(matrix.block_n);
  view.block_k = static_cast<int>(std::min(matrix.block_k, matrix.k));
  return view;
}

DeviceMatrix DeviceUploader::PutLinear(const TernaryMatrix& matrix, ActivationRule rule) {
  if (rule == ActivationRule::kInt8Token)
    return DeviceTernary{Put(matrix.t2), matrix.scale, static_cast<int>(matrix.n),
                         static_cast<int>(matrix.k)};
  std::vector<float> row(static_cast<size_t>(matrix.k));
  std::vector<int8_t> codes;
  for (int64_t n = 0; n < matrix.n; ++n) {
    kernels::DequantizeT2(matrix.t2.data() + n * kernels::T2RowBytes(matrix.k), 0, 1, matrix.k,
                          /*scale=*/1.0f, row.data(), matrix.k);
    for (const float value : row) codes.push_back(static_cast<int8_t>(value));
  }
  TableView view = Shaped(matrix, TableType::kInt8);
  view.values = Put(codes);
  view.scales = Put(std::vector<float>{matrix.scale});
  view.block_n = view.n;
  view.block_k = view.k;
  return view;
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
