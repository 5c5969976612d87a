// Token ids of some integer type in mapped memory, which need not be aligned. Internal to the
// module.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tern::data {

enum class TokenType { kU8, kU16, kI16, kI32, kU32, kI64 };

constexpr size_t WidthOf(TokenType type) {
  switch (type) {
    case TokenType::kU8:
      return 1;
    case TokenType::kU16:
    case TokenType::kI16:
      return 2;
    case TokenType::kI32:
    case TokenType::kU32:
      return 4;
    case TokenType::kI64:
      return 8;
  }
  __builtin_unreachable();
}

class TokenArray {
 public:
  TokenArray() = default;
  // `path` is for messages. REQUIRES: `bytes` outlives this and holds whole ids.
  TokenArray(std::span<const std::byte> bytes, TokenType type, int64_t vocab_size,
             std::string path);

  int64_t size() const { return size_; }
  int64_t At(int64_t index) const;  // As it stands, not checked. REQUIRES: in range.
  // Throws FormatError for an id outside of [0, vocab_size). REQUIRES: in range.
  void Copy(int64_t begin, int64_t count, int32_t* out) const;

 private:
  std::span<const std::byte> bytes_;
  TokenType type_ = TokenType::kU8;
  int64_t vocab_size_ = 0, size_ = 0;
  std::string path_;
};

}  // namespace tern::data
