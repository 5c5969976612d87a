// UTF-8 as RFC 3629 defines it: shortest forms only, no surrogates, nothing above U+10FFFF. Files
// and prompts are checked here before anything else reads them; nothing is repaired silently.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tern {

// Byte offset of the first byte that does not belong to a valid sequence; nothing when all of
// `bytes` is UTF-8.
std::optional<int64_t> FirstInvalidUtf8(std::string_view bytes);

// Throws InputError with `name`, the byte offset and the line when `bytes` is not UTF-8 or holds a
// NUL byte (binary data).
void CheckText(std::string_view bytes, const std::string& name);

// `text` with its control characters (C0, DEL, and C1, which are C2 80 to C2 9F) as "\x00": for
// messages, which a NUL from somebody's file would end, and for terminals, which others would
// steer.
std::string EscapeControls(std::string_view text);

// Length in bytes of the sequence that starts with `lead`, 1 to 4; 0 when no sequence can start so.
int SequenceLength(unsigned char lead);

// How many bytes at the end of `bytes` begin a sequence that more bytes could complete: 0 to 3.
int64_t IncompleteTail(std::string_view bytes);

// Offset of the largest character border <= `at`. REQUIRES: `bytes` is UTF-8, at <= size.
size_t CharacterBorder(std::string_view bytes, size_t at);

}  // namespace tern
