// GgufReader of gguf.h.
#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "base/error.h"
#include "formats/gguf.h"

namespace tern::formats {
namespace {

// Limits far above any real model and far below what could hurt.
constexpr uint64_t kMaxKeys = 1 << 16, kMaxTensors = 1 << 20, kMaxDims = 4, kMaxNameBytes = 1 << 16;
constexpr uint64_t kMaxArrayItems = 1 << 24;
constexpr uint64_t kMaxAlignment = 1 << 20;

// Types of metadata values, by number.
enum : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

}  // namespace

// Walks the file once; every read checks what is left.
class GgufParser {
 public:
  explicit GgufParser(GgufReader& out) : out_(out), bytes_(out.file_.bytes()) {}

  void Run() {
    const uint32_t magic = Number<uint32_t>();
    if (magic != 0x46554747) Fail("not a GGUF file: it does not begin with the letters GGUF");
    if (const uint32_t version = Number<uint32_t>(); version != 3) Fail(StrCat("GGUF version ", version, "; want 3"));
    const uint64_t num_tensors = Count(kMaxTensors, "tensors"), num_keys = Count(kMaxKeys, "metadata keys");
    for (uint64_t i = 0; i < num_keys; ++i) ReadKey();
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < num_tensors; ++i) offsets.push_back(ReadTensorInfo());
    PlaceTensors(offsets);
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw FormatError(StrCat(out_.path(), ": at byte ", at_, ": ", what));
  }

  const std::byte* Take(uint64_t size) {
    if (size > bytes_.size() - at_) Fail(StrCat("the file ends here, ", size, " more bytes are announced"));
    const std::byte* data = bytes_.data() + at_;
    at_ += size;
    return data;
  }
  template <class T>
  T Number() {
    T value;
    std::memcpy(&value, Take(sizeof(T)), sizeof(T));
    return value;
  }
  uint64_t Count(uint64_t limit, const char* what) {
    const uint64_t count = Number<uint64_t>();
    if (count > limit) Fail(StrCat(count, " ", what, " are announced; at most ", limit, " are believed"));
    return count;
  }
  std::string Text(uint64_t limit) {
    const uint64_t size = Number<uint64_t>();
    if (size > limit) Fail(StrCat("a text of ", size, " bytes; at most ", limit, " are believed here"));
    const std::byte* data = Take(size);
    return {reinterpret_cast<const char*>(data), size};
  }

  void ReadKey() {
    const std::string key = Text(kMaxNameBytes);
    const uint32_t type = Number<uint32_t>();
    GgufReader::Value value = type == kArray ? Array() : Scalar(type);
    if (!out_.metadata_.emplace(key, std::move(value)).second) Fail(StrCat("the key ", key, " for the second time"));
  }

  GgufReader::Value Scalar(uint32_t type) {
    switch (type) {
      case kU8: return int64_t{Number<uint8_t>()};
      case kI8: return int64_t{Number<int8_t>()};
      case kU16: return int64_t{Number<uint16_t>()};
      case kI16: return int64_t{Number<int16_t>()};
      case kU32: return int64_t{Number<uint32_t>()};
      case kI32: return int64_t{Number<int32_t>()};
      case kF32: return double{Number<float>()};
      case kF64: return Number<double>();
      case kI64: return Number<int64_t>();
      case kU64: {
        const uint64_t value = Number<uint64_t>();
        if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) Fail("an integer above 2^63");
        return static_cast<int64_t>(value);
      }
      case kBool: {
        const uint8_t value = Number<uint8_t>();
        if (value > 1) Fail(StrCat("a truth value of ", int{value}));
        return value == 1;
      }
      case kString: return Text(bytes_.size());
      default: Fail(StrCat("unknown metadata type ", type));
    }
  }

  GgufReader::Value Array() {
    const uint32_t type = Number<uint32_t>();
    const uint64_t count = Count(kMaxArrayItems, "array items");
    // Each item takes at least a byte, so the file's size bounds what is allocated before an item is read.
    if (count > bytes_.size() - at_) Fail(StrCat("an array of ", count, " items in ", bytes_.size() - at_, " bytes"));
    if (type == kArray) Fail("an array of arrays");
    if (type == kString) {
      std::vector<std::string> texts;
      for (uint64_t i = 0; i < count; ++i) texts.push_back(Text(kMaxNameBytes));
      return texts;
    }
    std::vector<double> numbers;
    for (uint64_t i = 0; i < count; ++i) {
      const GgufReader::Value item = Scalar(type);
      if (const auto* real = std::get_if<double>(&item)) {
        numbers.push_back(*real);
      } else if (const auto* integer = std::get_if<int64_t>(&item)) {
        numbers.push_back(static_cast<double>(*integer));
      } else {
        numbers.push_back(std::get<bool>(item) ? 1 : 0);
      }
    }
    return numbers;
  }

  // Adds the tensor without its bytes; returns its offset in the data part.
  uint64_t ReadTensorInfo() {
    GgufTensor tensor;
    tensor.name = Text(kMaxNameBytes);
    const uint32_t dims = Number<uint32_t>();
    if (dims < 1 || dims > kMaxDims) Fail(StrCat("tensor ", tensor.name, " has ", dims, " axes; want 1 to 4"));
    for (uint32_t d = 0; d < dims; ++d) {
      const int64_t size = Number<int64_t>();
      if (size < 1 || size > (int64_t{1} << 40)) Fail(StrCat("tensor ", tensor.name, " has an axis of ", size));
      tensor.shape.insert(tensor.shape.begin(), size);
    }
    const uint32_t type = Number<uint32_t>();
    const auto info = FindGgmlType(type);
    if (!info) {
      Fail(StrCat("tensor ", tensor.name, " has the type ", type,
                  ", which this version does not read (it reads F32, F16, BF16, Q8_0, TQ1_0, TQ2_0)"));
    }
    tensor.type = info->type;
    if (!names_.insert(tensor.name).second) Fail(StrCat("the tensor ", tensor.name, " for the second time"));
    out_.tensors_.push_back(std::move(tensor));
    return Number<uint64_t>();
  }

  uint64_t SizeOf(const GgufTensor& tensor) const {
    const GgmlTypeInfo& info = InfoOf(tensor.type);
    if (tensor.row_elements() % info.block_weights != 0) {
      Fail(StrCat("tensor ", tensor.name, " has rows of ", tensor.row_elements(), ", and blocks of ", info.name, " have ",
                  info.block_weights));
    }
    unsigned __int128 size = static_cast<uint64_t>(tensor.row_elements() / info.block_weights * info.block_bytes);
    for (size_t d = 0; d + 1 < tensor.shape.size(); ++d) size *= static_cast<uint64_t>(tensor.shape[d]);
    if (size > bytes_.size()) Fail(StrCat("tensor ", tensor.name, " is larger than the file"));
    return static_cast<uint64_t>(size);
  }

  void PlaceTensors(const std::vector<uint64_t>& offsets) {
    uint64_t alignment = 32;
    if (out_.Has("general.alignment")) alignment = static_cast<uint64_t>(out_.Int("general.alignment"));
    const bool power = alignment > 0 && alignment <= kMaxAlignment && (alignment & (alignment - 1)) == 0;
    if (!power) Fail(StrCat("general.alignment is ", alignment, "; want a power of two up to ", kMaxAlignment));
    const uint64_t begin = (at_ + alignment - 1) / alignment * alignment;
    if (!offsets.empty() && begin > bytes_.size()) Fail("the file ends before its tensors");
    for (size_t i = 0; i < offsets.size(); ++i) {
      GgufTensor& tensor = out_.tensors_[i];
      const uint64_t size = SizeOf(tensor), room = bytes_.size() - begin;
      if (offsets[i] % alignment != 0) Fail(StrCat("tensor ", tensor.name, " is not aligned to ", alignment));
      if (offsets[i] > room || size > room - offsets[i]) {
        Fail(StrCat("tensor ", tensor.name, " ends at byte ", offsets[i] + size, " of a data part of ", room));
      }
      tensor.bytes = bytes_.subspan(begin + offsets[i], size);
    }
  }

  GgufReader& out_;
  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  std::set<std::string> names_;
};

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
  return rows;
}
int64_t GgufTensor::row_elements() const { return shape.back(); }
const uint8_t* GgufTensor::row(int64_t index) const {
  return reinterpret_cast<const uint8_t*>(bytes.data()) + index * RowBytes(type, row_elements());
}

GgufReader::GgufReader(const std::string& path) : file_(path) { GgufParser(*this).Run(); }

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
