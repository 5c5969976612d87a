// Libraries that a program opens when it needs them (tern's plug-ins).
#pragma once

#include <string>

namespace tern {

// dlopen of `library` with `flags`: beside this program, in ../lib from there, or on the loader's
// path. Null: none could be loaded, and *why_not has the loader's words of each.
void* OpenPlugin(const std::string& library, int flags, std::string* why_not);

}  // namespace tern
