// Rows of Parquet files as records: the plug-in (parquet_plugin.h), found and opened.
#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/plugin.h"
#include "data/parquet_plugin.h"
#include "data/record_streams.h"

namespace tern::data {
namespace {

constexpr char kLibrary[] = "libtern_parquet.so";
constexpr size_t kErrorBytes = 1024;

// Opened once and never closed: Arrow keeps threads and pools that outlive a reader.
const TernParquetApi& Load(const std::string& path) {
  std::string reasons;
  void* library = OpenPlugin(kLibrary, RTLD_NOW | RTLD_LOCAL, &reasons);
  if (library == nullptr) {
    throw ResourceError(StrCat("cannot read ", path, ": this build cannot read parquet: ", kLibrary,
                               " is not there; run scripts/setup and build with -DTERN_PARQUET=ON, "
                               "or turn the file into JSONL. The loader says: ",
                               reasons));
  }
  void* symbol = ::dlsym(library, TERN_PARQUET_SYMBOL);
  const TernParquetApi* api =
      symbol == nullptr ? nullptr : reinterpret_cast<TernParquetFunction>(symbol)();
  if (api == nullptr || api->version != TERN_PARQUET_VERSION) {
    throw ResourceError(StrCat("cannot read ", path, ": ", kLibrary,
                               " is of another version of tern; build both again"));
  }
  return *api;
}

class ParquetRecords : public RecordStream {
 public:
  ParquetRecords(const std::string& path, const RecordOptions& options)
      : path_(path), limit_(options.max_record_bytes) {
    TERN_CHECK_INPUT(::access(path.c_str(), R_OK) == 0, "cannot read ", path);
    size_bytes_ = static_cast<int64_t>(std::filesystem::file_size(path));
    static const TernParquetApi& api = Load(path);
    api_ = &api;
    std::vector<const char*> columns;
    for (const std::string& column : options.columns) columns.push_back(column.c_str());
    char error[kErrorBytes] = "";
    reader_ = api_->open(path.c_str(), columns.data(), columns.size(), error, sizeof error);
    TERN_CHECK_FORMAT(reader_ != nullptr, path, ": ", error);
    rows_ = api_->num_rows(reader_);
  }
  ~ParquetRecords() override { api_->close(reader_); }

  bool Next(Record* record) override {
    const char* json = nullptr;
    size_t size = 0;
    char error[kErrorBytes] = "";
    const int status = api_->next(reader_, &json, &size, error, sizeof error);
    Check(status, error);
    if (status == 0) return false;
    record->number = ++row_;
    TERN_CHECK_FORMAT(size <= static_cast<size_t>(limit_),
                      WhereIn(path_, RecordFormat::kParquet, row_), ": more than ", limit_,
                      " bytes; want records up to that");
    record->text.assign(json, size);
    return true;
  }

  int64_t Skip(int64_t count) override {
    const int64_t skipped = std::min(count, rows_ - row_);
    char error[kErrorBytes] = "";
    Check(api_->skip(reader_, skipped, error, sizeof error), error);
    row_ += skipped;
    return skipped;
  }

  int64_t bytes_read() const override {
    return rows_ == 0
               ? size_bytes_
               : static_cast<int64_t>(static_cast<double>(size_bytes_) * static_cast<double>(row_) /
                                      static_cast<double>(rows_));
  }

 private:
  void Check(int status, const char* error) const {
    TERN_CHECK_FORMAT(status >= 0, WhereIn(path_, RecordFormat::kParquet, row_ + 1), ": ", error);
  }

  const std::string path_;
  const int64_t limit_;
  const TernParquetApi* api_ = nullptr;
  void* reader_ = nullptr;
  int64_t rows_ = 0, row_ = 0, size_bytes_ = 0;
};

}  // namespace

std::unique_ptr<RecordStream> OpenParquetRecords(const std::string& path,
                                                 const RecordOptions& options) {
  return std::make_unique<ParquetRecords>(path, options);
}

}  // namespace tern::data
