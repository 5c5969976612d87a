// See bench_product.h.
#include "engine_cli/bench_product.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <random>

#include "base/error.h"
#include "base/thread_pool.h"
#include "engine/linear.h"
#include "formats/half.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine_cli {
namespace {

using formats::GgmlType;

struct ProductType {
  const char* name;
  GgmlType type;
  std::vector<int64_t> halves;  // Where a block has fp16 numbers
};

const std::vector<ProductType>& Types() {
  static const std::vector<ProductType> types{
      {"tq2_0", GgmlType::kTq2_0, {}},   {"f16", GgmlType::kF16, {}},
      {"q8_0", GgmlType::kQ8_0, {0}},    {"q4_0", GgmlType::kQ4_0, {0}},
      {"q4_1", GgmlType::kQ4_1, {0, 2}}, {"q4_k", GgmlType::kQ4_K, {0, 2}},
      {"q5_k", GgmlType::kQ5_K, {0, 2}}, {"q6_k", GgmlType::kQ6_K, {208}},
      {"q3_k", GgmlType::kQ3_K, {108}},  {"q2_k", GgmlType::kQ2_K, {80, 82}}};
  return types;
}

const ProductType& Find(const std::string& name) {
  for (const ProductType& type : Types()) {
    if (name == type.name) return type;
  }
  throw UsageError(StrCat("no type of weights is called ", name, "; there are ", ProductTypes()));
}

// Bytes without a pattern that hardware could use; the same piece again and again, because good
// ones take longer to make than to multiply.
HugePageVector<uint8_t> RandomBytes(int64_t count) {
  static const std::vector<uint8_t> piece = [] {
    std::mt19937 random(1);
    std::vector<uint8_t> bytes(1 << 16);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    return bytes;
  }();
  HugePageVector<uint8_t> bytes(static_cast<size_t>(count));
  for (size_t at = 0; at < bytes.size(); at += piece.size())
    std::copy_n(piece.begin(), std::min(piece.size(), bytes.size() - at), &bytes[at]);
  return bytes;
}

HugePageVector<uint8_t> RandomBlocks(const ProductType& type, const ProductShape& shape) {
  HugePageVector<uint8_t> bytes = RandomBytes(shape.n * formats::RowBytes(type.type, shape.k));
  if (type.type == GgmlType::kF16) {
    for (size_t i = 1; i < bytes.size(); i += 2) bytes[i] &= 0xAF;  // Small numbers
  }
  const uint16_t scale = formats::Fp32ToFp16(0.01f);
  const auto block = static_cast<size_t>(formats::InfoOf(type.type).block_bytes);
  for (const int64_t half : type.halves) {
    for (size_t at = static_cast<size_t>(half); at < bytes.size(); at += block)
      std::memcpy(&bytes[at], &scale, sizeof scale);
  }
  return bytes;
}

engine::LinearMatrix RandomMatrix(const ProductType& type, const ProductShape& shape) {
  if (type.type == GgmlType::kTq2_0) {
    engine::TernaryMatrix matrix{{}, 0.02f, shape.n, shape.k};
    matrix.t2 = RandomBytes(shape.n * kernels::T2RowBytes(shape.k));
    for (uint8_t& byte : matrix.t2) byte &= static_cast<uint8_t>(~((byte & 0xAA) >> 1));  // No 3
    return matrix;
  }
  auto bytes = std::make_shared<HugePageVector<uint8_t>>(RandomBlocks(type, shape));
  engine::BlockMatrix matrix;
  matrix.type = type.type;
  matrix.bytes = std::as_bytes(std::span(*bytes));
  matrix.owner = bytes;
  matrix.n = shape.n;
  matrix.k = shape.k;
  return matrix;
}

int64_t BytesOf(const engine::LinearMatrix& matrix) {
  if (const auto* ternary = std::get_if<engine::TernaryMatrix>(&matrix))
    return static_cast<int64_t>(ternary->t2.size());
  return static_cast<int64_t>(std::get<engine::BlockMatrix>(matrix).bytes.size());
}

constexpr int kRepeats = 40;  // Products a round; a fifth as many for many tokens

}  // namespace

ProductShape ParseProductShape(const std::string& text) {
  ProductShape shape;
  const char* end = text.data() + text.size();
  const auto rows = std::from_chars(text.data(), end, shape.n);
  const bool cross = rows.ec == std::errc() && rows.ptr < end && *rows.ptr == 'x';
  const auto columns = std::from_chars(cross ? rows.ptr + 1 : end, end, shape.k);
  constexpr int64_t kMost = 1 << 30;
  if (!cross || columns.ec != std::errc() || columns.ptr != end || shape.n < 1 || shape.n > kMost ||
      shape.k < 256 || shape.k > kMost || shape.k % 256 != 0) {
    throw UsageError(StrCat("the shape is ", text, "; want outputs x inputs, each at most ", kMost,
                            ", the inputs a multiple of 256: 2560x6912"));
  }
  return shape;
}

std::string ProductTypes() {
  std::string names;
  for (const ProductType& type : Types()) names += StrCat(names.empty() ? "" : ", ", type.name);
  return names;
}

BenchCase ProductCase(const std::string& type_name, const std::string& shape_text, int64_t m,
                      engine::CodeActivations activations) {
  const ProductType& type = Find(type_name);
  const ProductShape shape = ParseProductShape(shape_text);
  const int64_t bytes = BytesOf(RandomMatrix(type, {1, shape.k})) * shape.n;
  const int64_t matrices = m == 1 ? BeyondCaches() / bytes + 2 : 1;
  const int repeats = m == 1 ? kRepeats : std::max(kRepeats / 5, 3);
  const auto ours = [=, &type](int threads) {
    std::vector<engine::LinearMatrix> set;
    for (int64_t i = 0; i < matrices; ++i) set.push_back(RandomMatrix(type, shape));
    std::vector<float> x(static_cast<size_t>(m * shape.k));
    std::mt19937 random(2);
    for (float& value : x) value = static_cast<float>(random()) * 0x1p-31f - 1.0f;
    ThreadPool pool(threads);
    const ParallelFor parallel = pool.Runner();
    engine::LinearInput input(parallel, activations);
    std::vector<float> y(static_cast<size_t>(m * shape.n));
    std::vector<double> seconds;
    for (int i = -2; i < repeats; ++i) {
      const engine::LinearMatrix& w = set[static_cast<size_t>((i + 2) % matrices)];
      const auto begin = std::chrono::steady_clock::now();
      input.Set(x.data(), m, shape.k);
      engine::Multiply(input, w, engine::ActivationRule::kInt8Token, y.data(), parallel);
      const auto end = std::chrono::steady_clock::now();
      if (i >= 0) seconds.push_back(std::chrono::duration<double>(end - begin).count());
    }
    return seconds;
  };
  const auto peer = [=](int threads) -> std::vector<std::string> {
    return {"gemm",
            type_name,
            std::to_string(threads),
            StrCat(shape.n, ",", shape.k, ",", m),
            std::to_string(matrices),
            std::to_string(repeats)};
  };
  return {StrCat(type_name, " ", shape_text, m == 1 ? "" : StrCat(" m ", m)),
          static_cast<double>(shape.n * shape.k * m) * 1e-9,
          "GMAC",
          m == 1 ? static_cast<double>(bytes) : 0,
          ours,
          peer};
}

}  // namespace tern::engine_cli
