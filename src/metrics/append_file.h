// A file that only grows: one write call a record, so that a kill tears at most the last record.
// The logs of this module own one each. Throws ResourceError with the path and the system's words
// (disk full, read-only folder).
#pragma once

#include <string>
#include <string_view>

namespace tern {

class AppendFile {
 public:
  enum class Mode { kOpenOrCreate, kCreateNew };

  AppendFile(const std::string& path, Mode mode);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;

  void Write(std::string_view record);
  // What was written is on disk when this returns.
  void Sync();

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace tern
