// Names inside state.h5 that writer and reader share; docs/formats/checkpoint.md documents them.
#pragma once

#include <string>

namespace tern::checkpoint {

inline constexpr char kStateFormat[] = "tern.state";
inline constexpr char kFormatAttribute[] = "format";    // Text: kStateFormat.
inline constexpr char kVersionAttribute[] = "version";  // Integer: kFormatVersion.
inline constexpr char kStepAttribute[] = "step";        // Integer.
inline constexpr char kKindAttribute[] = "kind";        // Text.
inline constexpr char kStateDataset[] =
    "/state_json";  // Bytes of UTF-8 JSON; an attribute would end at 64 KiB.

}  // namespace tern::checkpoint
