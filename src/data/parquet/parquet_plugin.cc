// The Parquet plug-in (../parquet_plugin.h): rows of a file as JSON objects, through Arrow's
// reader. Lists, structs and maps (as lists of {"key", "value"}) are nested; numbers are numbers,
// NaN and infinities null; dates, times and decimals are text as Arrow prints them; bytes are text.
// One batch of rows is held at a time, and all of Arrow's memory is capped. Exceptions stop at the
// C border. Does not know what a record should be.
#include "data/parquet_plugin.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int64_t kBatchRows = 256;
constexpr int64_t kMaxMemory = int64_t{4} << 30;  // A page that unpacks to more is refused
constexpr int kMaxDepth = 32;

void Check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}
template <class T>
T Value(arrow::Result<T> result) {
  Check(result.status());
  return std::move(result).ValueUnsafe();
}

void AppendString(std::string_view value, std::string* json) {
  constexpr char kHex[] = "0123456789abcdef";
  json->push_back('"');
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      *json += {'\\', c};
    } else if (byte < 0x20) {
      *json += {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      json->push_back(c);
    }
  }
  json->push_back('"');
}

void AppendCell(const arrow::Array& array, int64_t row, int depth, std::string* json);

template <class Number>
void AppendNumber(Number value, std::string* json) {
  char text[64];
  json->append(text, std::to_chars(text, text + sizeof text, value).ptr);
}

template <class ArrayType>
void AppendFloat(const arrow::Array& array, int64_t row, std::string* json) {
  const auto value = static_cast<const ArrayType&>(array).Value(row);
  std::isfinite(value) ? AppendNumber(value, json) : (void)json->append("null");
}

template <class ArrayType>
void AppendInteger(const arrow::Array& array, int64_t row, std::string* json) {
  AppendNumber(static_cast<const ArrayType&>(array).Value(row), json);
}

template <class ArrayType>
void AppendText(const arrow::Array& array, int64_t row, std::string* json) {
  AppendString(static_cast<const ArrayType&>(array).GetView(row), json);
}

template <class ArrayType>
void AppendList(const arrow::Array& array, int64_t row, int depth, std::string* json) {
  const auto& list = static_cast<const ArrayType&>(array);
  const int64_t begin = list.value_offset(row), end = begin + list.value_length(row);
  json->push_back('[');
  for (int64_t i = begin; i < end; ++i) {
    if (i > begin) json->push_back(',');
    AppendCell(*list.values(), i, depth + 1, json);
  }
  json->push_back(']');
}

void AppendMap(const arrow::Array& array, int64_t row, int depth, std::string* json) {
  const auto& map = static_cast<const arrow::MapArray&>(array);
  const int64_t begin = map.value_offset(row), end = begin + map.value_length(row);
  json->push_back('[');
  for (int64_t i = begin; i < end; ++i) {
    json->append(i > begin ? ",{\"key\":" : "{\"key\":");
    AppendCell(*map.keys(), i, depth + 1, json);
    json->append(",\"value\":");
    AppendCell(*map.items(), i, depth + 1, json);
    json->push_back('}');
  }
  json->push_back(']');
}

void AppendStruct(const arrow::Array& array, int64_t row, int depth, std::string* json) {
  const auto& parts = static_cast<const arrow::StructArray&>(array);
  json->push_back('{');
  for (int i = 0; i < parts.num_fields(); ++i) {
    if (i > 0) json->push_back(',');
    AppendString(parts.struct_type()->field(i)->name(), json);
    json->push_back(':');
    AppendCell(*parts.field(i), row, depth + 1, json);
  }
  json->push_back('}');
}

// One value of a column. A type without a case of its own is written as text.
void AppendCell(const arrow::Array& array, int64_t row, int depth, std::string* json) {
  using arrow::Type;
  if (depth > kMaxDepth)
    throw std::runtime_error("columns are nested deeper than " + std::to_string(kMaxDepth));
  if (array.IsNull(row)) return (void)json->append("null");
  switch (array.type_id()) {
    case Type::BOOL:
      return (void)json->append(
          static_cast<const arrow::BooleanArray&>(array).Value(row) ? "true" : "false");
    case Type::INT8:
      return AppendInteger<arrow::Int8Array>(array, row, json);
    case Type::INT16:
      return AppendInteger<arrow::Int16Array>(array, row, json);
    case Type::INT32:
      return AppendInteger<arrow::Int32Array>(array, row, json);
    case Type::INT64:
      return AppendInteger<arrow::Int64Array>(array, row, json);
    case Type::UINT8:
      return AppendInteger<arrow::UInt8Array>(array, row, json);
    case Type::UINT16:
      return AppendInteger<arrow::UInt16Array>(array, row, json);
    case Type::UINT32:
      return AppendInteger<arrow::UInt32Array>(array, row, json);
    case Type::UINT64:
      return AppendInteger<arrow::UInt64Array>(array, row, json);
    case Type::FLOAT:
      return AppendFloat<arrow::FloatArray>(array, row, json);
    case Type::DOUBLE:
      return AppendFloat<arrow::DoubleArray>(array, row, json);
    case Type::STRING:
    case Type::BINARY:
      return AppendText<arrow::BinaryArray>(array, row, json);
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY:
      return AppendText<arrow::LargeBinaryArray>(array, row, json);
    case Type::LIST:
      return AppendList<arrow::ListArray>(array, row, depth, json);
    case Type::LARGE_LIST:
      return AppendList<arrow::LargeListArray>(array, row, depth, json);
    case Type::FIXED_SIZE_LIST:
      return AppendList<arrow::FixedSizeListArray>(array, row, depth, json);
    case Type::MAP:
      return AppendMap(array, row, depth, json);
    case Type::STRUCT:
      return AppendStruct(array, row, depth, json);
    case Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return AppendCell(*coded.dictionary(), coded.GetValueIndex(row), depth + 1, json);
    }
    default:
      return AppendString(Value(array.GetScalar(row))->ToString(), json);
  }
}

class Reader {
 public:
  Reader(const char* path, const char* const* columns, size_t num_columns) {
    parquet::ReaderProperties properties(&pool_);
    properties.enable_buffered_stream();  // Pages, not whole column chunks
    parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
    arrow_properties.set_batch_size(kBatchRows);
    arrow_properties.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    Check(builder.Open(Value(arrow::io::ReadableFile::Open(path, &pool_)), properties));
    builder.memory_pool(&pool_)->properties(arrow_properties);
    Check(builder.Build(&file_));
    rows_ = file_->parquet_reader()->metadata()->num_rows();
    Select(columns, num_columns);
    if (rows_ < 0) throw std::runtime_error("the footer tells of a negative number of rows");
  }

  int64_t rows() const { return rows_; }

  // Null at the end.
  const std::string* Next() {
    if (!Fill()) return nullptr;
    json_.assign("{");
    for (int i = 0; i < batch_->num_columns(); ++i) {
      if (i > 0) json_.push_back(',');
      AppendString(batch_->schema()->field(i)->name(), &json_);
      json_.push_back(':');
      AppendCell(*batch_->column(i), at_, 1, &json_);
    }
    json_.push_back('}');
    ++at_;
    return &json_;
  }

  void Skip(int64_t count) {
    while (count > 0) {
      const auto metadata = file_->parquet_reader()->metadata();
      if (batch_ == nullptr && group_ < metadata->num_row_groups() && !group_open_) {
        const int64_t in_group = metadata->RowGroup(group_)->num_rows();
        if (in_group <= count) {
          count -= in_group;
          ++group_;
          continue;
        }
      }
      if (!Fill()) throw std::runtime_error("the file ends early");
      const int64_t passed = std::min(count, batch_->num_rows() - at_);
      at_ += passed;
      count -= passed;
      if (at_ == batch_->num_rows()) batch_.reset();
    }
  }

 private:
  void Select(const char* const* columns, size_t num_columns) {
    const parquet::SchemaDescriptor& schema = *file_->parquet_reader()->metadata()->schema();
    std::vector<bool> found(num_columns);
    std::string names;
    for (int i = 0; i < schema.group_node()->field_count(); ++i)
      names += (i > 0 ? ", " : "") + schema.group_node()->field(i)->name();
    for (int leaf = 0; leaf < schema.num_columns(); ++leaf) {
      const std::string top = schema.Column(leaf)->path()->ToDotVector().front();
      bool wanted = num_columns == 0;
      for (size_t i = 0; i < num_columns; ++i) {
        if (top != columns[i]) continue;
        found[i] = true;
        wanted = true;
      }
      if (wanted) leaves_.push_back(leaf);
    }
    for (size_t i = 0; i < num_columns; ++i) {
      if (!found[i])
        throw std::runtime_error(std::string("no column \"") + columns[i] +
                                 "\"; columns here: " + names);
    }
  }

  // Makes batch_ hold row at_; false at the end.
  bool Fill() {
    while (batch_ == nullptr || at_ == batch_->num_rows()) {
      batch_.reset();
      if (!group_open_) {
        if (group_ >= file_->num_row_groups()) return false;
        stream_ = Value(file_->GetRecordBatchReader({group_++}, leaves_));
        group_open_ = true;
      }
      Check(stream_->ReadNext(&batch_));
      at_ = 0;
      group_open_ = batch_ != nullptr;
    }
    return true;
  }

  arrow::CappedMemoryPool pool_{arrow::default_memory_pool(), kMaxMemory};
  std::unique_ptr<parquet::arrow::FileReader> file_;
  std::vector<int> leaves_;
  std::unique_ptr<arrow::RecordBatchReader> stream_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  std::string json_;
  int64_t rows_ = 0, at_ = 0;
  int group_ = 0;            // The next to open
  bool group_open_ = false;  // stream_ has more of the one before
};

// Runs `body`; an exception becomes its message and `failed`.
template <class Result, class Body>
Result Guard(Result failed, char* error, size_t error_size, const Body& body) {
  try {
    return body();
  } catch (const std::exception& exception) {
    std::snprintf(error, error_size, "%s", exception.what());
  }
  return failed;
}

void* Open(const char* path, const char* const* columns, size_t num_columns, char* error,
           size_t error_size) {
  return Guard<void*>(nullptr, error, error_size,
                      [&] { return new Reader(path, columns, num_columns); });
}

void Close(void* reader) { delete static_cast<Reader*>(reader); }

int64_t NumRows(void* reader) { return static_cast<Reader*>(reader)->rows(); }

int Next(void* reader, const char** json, size_t* size, char* error, size_t error_size) {
  return Guard(-1, error, error_size, [&] {
    const std::string* row = static_cast<Reader*>(reader)->Next();
    if (row == nullptr) return 0;
    *json = row->data();
    *size = row->size();
    return 1;
  });
}

int Skip(void* reader, int64_t count, char* error, size_t error_size) {
  return Guard(-1, error, error_size, [&] {
    static_cast<Reader*>(reader)->Skip(count);
    return 1;
  });
}

constexpr TernParquetApi kApi = {TERN_PARQUET_VERSION, Open, Close, NumRows, Next, Skip};

}  // namespace

extern "C" __attribute__((visibility("default"))) const TernParquetApi* tern_parquet_api(void) {
  return &kApi;
}
