// See unicode.h.
#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/utf8.h"

namespace tern::text {

uint32_t NextCodepoint(std::string_view text, size_t* at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[*at + i]); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    *at += 1;
    return lead;
  }
  const auto length = static_cast<size_t>(SequenceLength(static_cast<unsigned char>(lead)));
  TERN_CHECK(length >= 2 && *at + length <= text.size(), "text is no UTF-8 at byte ", *at);
  uint32_t codepoint = lead & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) codepoint = (codepoint << 6) | (byte(i) & 0x3FU);
  *at += length;
  return codepoint;
}

void AppendCodepoint(uint32_t codepoint, std::string* text) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(codepoint), bytes);
  text->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

std::vector<size_t> CodepointOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); ++at)
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

int64_t CountCodepoints(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

bool IsWhiteSpace(uint32_t c) {
  return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsPythonSpace(uint32_t c) { return IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F); }

bool IsLetter(uint32_t codepoint) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(codepoint));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsCased(uint32_t codepoint) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(codepoint));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT;
}

bool IsMark(uint32_t codepoint) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(codepoint));
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

namespace {

template <class Map>
std::string MapCodepoints(std::string_view text, Map map) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) map(NextCodepoint(text, &at), &out);
  return out;
}

// Lower case of the letters that Unicode 15 to 17 added: utf8proc of Debian 12 does not know them,
// HF tokenizers 0.23.3 does (compared letter by letter).
struct AddedCase {
  uint32_t first, last, lower;  // lower: of the first
};
constexpr AddedCase kAddedCases[] = {{0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},
                                     {0xA7CC, 0xA7CC, 0xA7CD},    {0xA7CE, 0xA7CE, 0xA7CF},
                                     {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},
                                     {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x19B},
                                     {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB}};

uint32_t Lower(uint32_t c) {
  if (c >= kAddedCases[0].first)
    for (const AddedCase& added : kAddedCases)
      if (c >= added.first && c <= added.last) return added.lower + (c - added.first);
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

}  // namespace

std::string ToLower(std::string_view text) {
  return MapCodepoints(text, [](uint32_t c, std::string* out) {
    if (c == 0x130) {  // The one letter whose lower case has two code points
      *out += "i\xCC\x87";
      return;
    }
    AppendCodepoint(Lower(c), out);
  });
}

std::string ToUpper(std::string_view text) {
  return MapCodepoints(text, [](uint32_t c, std::string* out) {
    if (c == 0xDF) {
      *out += "SS";
      return;
    }
    AppendCodepoint(static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
  });
}

std::string Normalize(std::string_view text, NormalForm form) {
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  // Nothing below U+0080 changes in any form, nothing below U+0300 in NFC (lead bytes up to 0xCB).
  const unsigned char first = form == NormalForm::kNfc ? 0xCC : 0x80;
  if (std::all_of(text.begin(), text.end(),
                  [&](char c) { return static_cast<unsigned char>(c) < first; }))
    return std::string(text);
  int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compatible) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* result = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &result,
                                 static_cast<utf8proc_option_t>(options));
  if (size < 0 && size == UTF8PROC_ERROR_NOMEM) throw ResourceError("out of memory");
  TERN_CHECK(size >= 0, "utf8proc: ", utf8proc_errmsg(size));
  std::string out(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
  free(result);  // utf8proc's own malloc
  return out;
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string out;
  while (const auto bad = FirstInvalidUtf8(bytes)) {
    const auto at = static_cast<size_t>(*bad);
    out += bytes.substr(0, at);
    out += "\xEF\xBF\xBD";
    bytes.remove_prefix(at);
    // The longest beginning that more bytes could complete, at least one byte.
    size_t part = std::min<size_t>(3, bytes.size());
    while (part > 1 && IncompleteTail(bytes.substr(0, part)) != static_cast<int64_t>(part)) --part;
    bytes.remove_prefix(part);
  }
  out += bytes;
  return out;
}

}  // namespace tern::text
