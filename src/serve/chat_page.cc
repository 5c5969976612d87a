// See chat_page.h.
#include "serve/chat_page.h"

#include <openssl/evp.h>

#include <vector>

#include "base/error.h"
#include "base/sha256.h"

namespace tern::serve {
namespace {

std::string_view Between(std::string_view text, std::string_view open, std::string_view close) {
  const size_t begin = text.find(open), end = text.find(close);
  TERN_CHECK(begin != text.npos && end != text.npos && begin < end, "the page has no ", open);
  return text.substr(begin + open.size(), end - begin - open.size());
}

// 'sha256-<base64>' of CSP level 2.
std::string HashSource(std::string_view text) {
  const std::string hex = Sha256Hex(text);
  std::vector<unsigned char> digest;
  for (size_t i = 0; i < hex.size(); i += 2)
    digest.push_back(static_cast<unsigned char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  std::vector<unsigned char> base64(4 * ((digest.size() + 2) / 3) + 1);
  const int size = EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(digest.size()));
  return StrCat("'sha256-", std::string(base64.begin(), base64.begin() + size), "'");
}

}  // namespace

std::string ChatPagePolicy() {
  return StrCat("default-src 'none'; script-src ",
                HashSource(Between(kChatPage, "<script>", "</script>")), "; style-src ",
                HashSource(Between(kChatPage, "<style>", "</style>")),
                "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'");
}

}  // namespace tern::serve
