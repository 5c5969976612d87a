// How the formats of record_file.h are cut into records. Internal to the module.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/record_file.h"

namespace tern::data {

// Records of one file in order; Where() of record_file.h names them.
class RecordStream {
 public:
  virtual ~RecordStream() = default;
  virtual bool Next(Record* record) = 0;
  // Passes over up to `count` records; returns how many there were.
  virtual int64_t Skip(int64_t count);
  virtual int64_t bytes_read() const = 0;
};

std::string WhereIn(const std::string& path, RecordFormat format, int64_t number);

// kText, kJsonl and kJson. JSON objects are cut out of the text, not parsed.
std::unique_ptr<RecordStream> OpenTextRecords(const std::string& path, RecordFormat format,
                                              const RecordOptions& options);
// Rows through the plug-in (parquet_plugin.h).
std::unique_ptr<RecordStream> OpenParquetRecords(const std::string& path,
                                                 const RecordOptions& options);

}  // namespace tern::data
