// Names of checkpoint folders, shared by the writer and by what lists, chooses and deletes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tern::checkpoint {

inline constexpr char kTemporaryPrefix[] = ".tmp-";  // Being written.
inline constexpr char kDeletedPrefix[] = ".old-";    // Being deleted.

// The step of "step-00000600"; nothing for another name.
std::optional<int64_t> StepOfFolderName(std::string_view name);

}  // namespace tern::checkpoint
