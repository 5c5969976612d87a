// Accessors of GgufReader of gguf.h; the file is taken apart in gguf_parser.cc.
#include <algorithm>

#include "base/error.h"
#include "formats/gguf.h"

namespace tern::formats {

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
  return rows;
}
int64_t GgufTensor::row_elements() const { return shape.back(); }
const uint8_t* GgufTensor::row(int64_t index) const {
  return reinterpret_cast<const uint8_t*>(bytes.data()) + index * RowBytes(type, row_elements());
}

template <class T>
const T& GgufReader::Typed(const std::string& key, const char* want) const {
  const auto found = metadata_.find(key);
  TERN_CHECK_FORMAT(found != metadata_.end(), path(), ": the key ", key, " is missing; want ",
                    want);
  const T* value = std::get_if<T>(&found->second);
  TERN_CHECK_FORMAT(value != nullptr, path(), ": the key ", key, " has another type; want ", want);
  return *value;
}

std::vector<std::string> GgufReader::Keys(std::string_view prefix) const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : metadata_) {
    if (key.starts_with(prefix)) keys.push_back(key);
  }
  return keys;
}

std::string GgufReader::String(const std::string& key) const {
  return Typed<std::string>(key, "text");
}
int64_t GgufReader::Int(const std::string& key) const { return Typed<int64_t>(key, "an integer"); }
double GgufReader::Real(const std::string& key) const { return Typed<double>(key, "a number"); }
bool GgufReader::Flag(const std::string& key) const { return Typed<bool>(key, "true or false"); }
std::vector<std::string> GgufReader::Strings(const std::string& key) const {
  return Typed<std::vector<std::string>>(key, "an array of texts");
}
std::vector<double> GgufReader::Numbers(const std::string& key) const {
  return Typed<std::vector<double>>(key, "an array of numbers");
}

const GgufTensor* GgufReader::Find(std::string_view name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.name == name; });
  return found == tensors_.end() ? nullptr : &*found;
}

const GgufTensor& GgufReader::Get(std::string_view name) const {
  const GgufTensor* tensor = Find(name);
  TERN_CHECK_FORMAT(tensor != nullptr, path(), ": the tensor ", name, " is missing");
  return *tensor;
}

nlohmann::json GgufReader::Metadata(size_t max_items) const {
  using nlohmann::json;
  const auto shown = [max_items](const auto& array) {
    const size_t count = std::min(array.size(), max_items);
    return json{{"items", array.size()},
                {"first", std::vector(array.begin(), array.begin() + static_cast<long>(count))}};
  };
  json out = json::object();
  for (const auto& [key, value] : metadata_) {
    if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
      out[key] = shown(*texts);
    } else if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
      out[key] = shown(*numbers);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      out[key] = *text;
    } else if (const auto* integer = std::get_if<int64_t>(&value)) {
      out[key] = *integer;
    } else if (const auto* real = std::get_if<double>(&value)) {
      out[key] = *real;
    } else {
      out[key] = std::get<bool>(value);
    }
  }
  return json::parse(out.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace tern::formats
