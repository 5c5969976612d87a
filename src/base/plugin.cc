// See plugin.h.
#include "base/plugin.h"

#include <dlfcn.h>

#include <filesystem>

#include "base/error.h"

namespace tern {
namespace {

// With a slash at its end; empty where the system does not say.
std::string ProgramFolder() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "" : program.parent_path().string() + "/";
}

}  // namespace

void* OpenPlugin(const std::string& library, int flags, std::string* why_not) {
  const std::string folder = ProgramFolder();
  why_not->clear();
  for (const std::string& path : {folder + library, folder + "../lib/" + library, library}) {
    if (void* opened = ::dlopen(path.c_str(), flags)) return opened;
    *why_not += StrCat(why_not->empty() ? "" : "; ", ::dlerror());
  }
  return nullptr;
}

}  // namespace tern
