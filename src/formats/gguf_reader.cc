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
  TERN_CHECK_FORMAT(found != metadata_.end(), path(), ": the key ", key, " is missing; want ", want);
  const T* value = std::get_if<T>(&found->second);
  TERN_CHECK_FORMAT(value != nullptr, path(), ": the key ", key, " has another type; want ", want);
  return *value;
}

std::string GgufReader::String(const std::string& key) const { return Typed<std::string>(key, "text"); }
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
  const auto found = std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.name == name; });
  return found == tensors_.end() ? nullptr : &*found;
}

const GgufTensor& GgufReader::Get(std::string_view name) const {
  const GgufTensor* tensor = Find(name);
  TERN_CHECK_FORMAT(tensor != nullptr, path(), ": the tensor ", name, " is missing");
  return *tensor;
}

nlohmann::json GgufReader::Metadata(size_t max_items) const {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [key, value] : metadata_) {
    std::visit(
        [&, &name = key](const auto& v) {
          if constexpr (requires { v.push_back(v.front()); } && !std::is_same_v<decltype(v), const std::string&>) {
            json[name] = {{"items", v.size()}, {"first", std::vector(v.begin(), v.begin() + std::min(v.size(), max_items))}};
          } else {
            json[name] = v;
          }
        },
        value);
  }
  return json;
}

}  // namespace tern::formats
