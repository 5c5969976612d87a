// The border to the Parquet plug-in (src/data/parquet/), a library of its own that is opened when a
// Parquet file is, so that no program of ours loads Arrow at its start or needs it to be built.
// Plain C: the two sides may have been compiled with other standards and flags.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Changes whenever anything below does; a plug-in of another number is refused.
#define TERN_PARQUET_VERSION 1

struct TernParquetApi {
  int32_t version;
  // Opens `path`; `columns` (count may be 0: all) are those to read, top-level names. Null and a
  // message in `error` (at most error_size bytes, NUL at its end) when that fails.
  void* (*open)(const char* path, const char* const* columns, size_t num_columns, char* error,
                size_t error_size);
  void (*close)(void* reader);
  int64_t (*num_rows)(void* reader);
  // The next row as a JSON object, valid until the next call: 1; 0 at the end; -1: `error`.
  int (*next)(void* reader, const char** json, size_t* size, char* error, size_t error_size);
  // Passes over `count` rows, whole row groups without reading them: 1, or -1 and `error`.
  // REQUIRES: not more than are left.
  int (*skip)(void* reader, int64_t count, char* error, size_t error_size);
};

typedef const TernParquetApi* (*TernParquetFunction)(void);
#define TERN_PARQUET_SYMBOL "tern_parquet_api"
}
