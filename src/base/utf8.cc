// See utf8.h.
#include "base/utf8.h"

#include <algorithm>

#include "base/error.h"

namespace tern {
namespace {

bool IsContinuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Whether the second byte makes a shortest form below U+110000 that is no surrogate (RFC 3629,
// section 4).
bool SecondByteFits(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0;
    case 0xED:
      return second <= 0x9F;
    case 0xF0:
      return second >= 0x90;
    case 0xF4:
      return second <= 0x8F;
    default:
      return true;
  }
}

}  // namespace

int SequenceLength(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

std::optional<int64_t> FirstInvalidUtf8(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const unsigned char lead = static_cast<unsigned char>(bytes[at]);
    const size_t length = static_cast<size_t>(SequenceLength(lead));
    if (length == 0 || at + length > bytes.size()) return static_cast<int64_t>(at);
    for (size_t i = 1; i < length; ++i) {
      const unsigned char byte = static_cast<unsigned char>(bytes[at + i]);
      if (!IsContinuation(byte) || (i == 1 && !SecondByteFits(lead, byte)))
        return static_cast<int64_t>(at);
    }
    at += length;
  }
  return std::nullopt;
}

void CheckText(std::string_view bytes, const std::string& name) {
  const auto line_of = [&](size_t at) {
    return 1 + std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(at), '\n');
  };
  if (const size_t zero = bytes.find('\0'); zero != std::string_view::npos) {
    throw InputError(StrCat(name, ": byte ", zero, " (line ", line_of(zero),
                            ") is NUL: this is binary data, not text"));
  }
  if (const auto bad = FirstInvalidUtf8(bytes)) {
    throw InputError(StrCat(name, ": byte ", *bad, " (line ", line_of(static_cast<size_t>(*bad)),
                            ") is not UTF-8; convert the file, for example with iconv -t UTF-8"));
  }
}

int64_t IncompleteTail(std::string_view bytes) {
  const size_t most = std::min<size_t>(3, bytes.size());
  for (size_t back = 1; back <= most; ++back) {
    const unsigned char byte = static_cast<unsigned char>(bytes[bytes.size() - back]);
    if (IsContinuation(byte)) continue;
    const size_t length = static_cast<size_t>(SequenceLength(byte));
    if (length <= back) return 0;
    if (back >= 2 &&
        !SecondByteFits(byte, static_cast<unsigned char>(bytes[bytes.size() - back + 1])))
      return 0;
    return static_cast<int64_t>(back);
  }
  return 0;
}

size_t CharacterBorder(std::string_view bytes, size_t at) {
  while (at > 0 && at < bytes.size() && IsContinuation(static_cast<unsigned char>(bytes[at]))) --at;
  return at;
}

std::string EscapeControls(std::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool c1 = byte == 0xC2 && next >= 0x80 && next <= 0x9F;
    if (byte >= 0x20 && byte != 0x7F && !c1) {
      out.push_back(text[i]);
      continue;
    }
    if (c1) byte = static_cast<unsigned char>(text[++i]);
    out.append({'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]});
  }
  return out;
}

}  // namespace tern
