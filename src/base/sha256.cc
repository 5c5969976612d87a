// See sha256.h.
#include "base/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace tern {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  TERN_CHECK(EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1,
             "libcrypto");
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::Update(const void* data, size_t size_bytes) {
  TERN_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, size_bytes) == 1,
             "libcrypto");
}

std::string Sha256::HexDigest() {
  std::array<unsigned char, 32> digest{};
  unsigned int size = 0;
  TERN_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &size) == 1,
             "libcrypto");
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : digest) hex.append({kDigits[byte >> 4], kDigits[byte & 15]});
  return hex;
}

std::string Sha256Hex(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  return hash.HexDigest();
}

std::string Sha256OfFile(const std::string& path) {
  const MappedFile file(path);
  Sha256 hash;
  constexpr size_t kPart = size_t{1} << 20;
  const auto bytes = file.bytes();
  for (size_t at = 0; at < bytes.size(); at += kPart) {
    const auto part = bytes.subspan(at, std::min(kPart, bytes.size() - at));
    hash.Update(part.data(), part.size());
    DropMappedPages(part);  // Else a checkpoint's size would count as memory of the training
  }
  return hash.HexDigest();
}

std::string Sha256OfPath(const std::string& path) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(path)) return Sha256OfFile(path);
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (entry.is_regular_file()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  std::string lines;
  for (const std::string& name : names)
    lines += StrCat(name, " ", Sha256OfFile((fs::path(path) / name).string()), "\n");
  return Sha256Hex(lines);
}

}  // namespace tern
