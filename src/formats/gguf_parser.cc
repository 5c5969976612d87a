// Parser behind GgufReader of gguf.h: walks a file once, front to back. Nothing is allocated by a
// number that the file merely claims: counts are held against limits and against the bytes left.
#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/gguf.h"

namespace tern::formats {
namespace {

// Limits far above any real model and far below what could hurt: the largest vocabularies with
// scores and merges have some 1.5 million array items and 30 MB of metadata.
constexpr uint64_t kMaxKeys = 1 << 16, kMaxTensors = 1 << 16, kMaxDims = 4, kMaxNameBytes = 65535;
constexpr uint64_t kMaxArrayItems = 1 << 22;   // Of all arrays together
constexpr uint64_t kMaxHeaderBytes = 1 << 28;  // Everything before the tensors' data
constexpr int64_t kMaxAxis = int64_t{1} << 40;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kMagic = 0x46554747, kVersion = 3;  // "GGUF"

// Types of metadata values, by number.
enum : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

}  // namespace

// Walks the file once; every read checks what is left.
class GgufParser {
 public:
  explicit GgufParser(GgufReader& out) : out_(out), bytes_(out.file_->bytes()) {}

  void Run() {
    const uint32_t magic = Number<uint32_t>();
    if (magic != kMagic) Fail("not a GGUF file: it does not begin with the letters GGUF");
    if (const uint32_t version = Number<uint32_t>(); version != kVersion) {
      Fail(StrCat("GGUF version ", version, "; want ", kVersion));
    }
    const uint64_t num_tensors = Count(kMaxTensors, "tensors"),
                   num_keys = Count(kMaxKeys, "metadata keys");
    for (uint64_t i = 0; i < num_keys; ++i) ReadKey();
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < num_tensors; ++i) offsets.push_back(ReadTensorInfo());
    PlaceTensors(offsets);
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw FormatError(StrCat(out_.path(), ": at byte ", at_, ": ", EscapeControls(what)));
  }

  const std::byte* Take(uint64_t size) {
    if (at_ + std::min(size, kMaxHeaderBytes) > kMaxHeaderBytes) {
      Fail(StrCat("metadata of more than ", kMaxHeaderBytes, " bytes"));
    }
    if (size > bytes_.size() - at_)
      Fail(StrCat("the file ends here, ", size, " more bytes are announced"));
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
    if (count > limit)
      Fail(StrCat(count, " ", what, " are announced; at most ", limit, " are believed"));
    return count;
  }
  std::string Text(uint64_t limit) {
    const uint64_t size = Number<uint64_t>();
    if (size > limit)
      Fail(StrCat("a text of ", size, " bytes; at most ", limit, " are believed here"));
    const std::byte* data = Take(size);
    return {reinterpret_cast<const char*>(data), size};
  }

  void ReadKey() {
    const std::string key = Text(kMaxNameBytes);
    const uint32_t type = Number<uint32_t>();
    GgufReader::Value value = type == kArray ? Array() : Scalar(type);
    if (!out_.metadata_.emplace(key, std::move(value)).second)
      Fail(StrCat("the key ", key, " for the second time"));
  }

  GgufReader::Value Scalar(uint32_t type) {
    switch (type) {
      case kU8:
        return int64_t{Number<uint8_t>()};
      case kI8:
        return int64_t{Number<int8_t>()};
      case kU16:
        return int64_t{Number<uint16_t>()};
      case kI16:
        return int64_t{Number<int16_t>()};
      case kU32:
        return int64_t{Number<uint32_t>()};
      case kI32:
        return int64_t{Number<int32_t>()};
      case kF32:
        return double{Number<float>()};
      case kF64:
        return Number<double>();
      case kI64:
        return Number<int64_t>();
      case kU64: {
        const uint64_t value = Number<uint64_t>();
        if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
          Fail("an integer above 2^63");
        return static_cast<int64_t>(value);
      }
      case kBool: {
        const uint8_t value = Number<uint8_t>();
        if (value > 1) Fail(StrCat("a truth value of ", int{value}));
        return value == 1;
      }
      case kString:
        return Text(bytes_.size());
      default:
        Fail(StrCat("unknown metadata type ", type));
    }
  }

  GgufReader::Value Array() {
    const uint32_t type = Number<uint32_t>();
    const uint64_t count = Count(kMaxArrayItems - array_items_, "more array items");
    array_items_ += count;
    if (type == kArray) Fail("an array of arrays");
    if (type > kF64) Fail(StrCat("an array of the unknown type ", type));
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
    if (dims < 1 || dims > kMaxDims)
      Fail(StrCat("tensor ", tensor.name, " has ", dims, " axes; want 1 to 4"));
    for (uint32_t d = 0; d < dims; ++d) {
      const int64_t size = Number<int64_t>();
      if (size < 1 || size > kMaxAxis)
        Fail(StrCat("tensor ", tensor.name, " has an axis of ", size));
      tensor.shape.insert(tensor.shape.begin(), size);
    }
    const uint32_t type = Number<uint32_t>();
    const auto info = FindGgmlType(type);
    if (!info) {
      Fail(StrCat("tensor ", tensor.name, " has the type ", type,
                  ", which this version does not read (it reads ", WeightTypeNames(), ")"));
    }
    tensor.type = info->type;
    if (!names_.insert(tensor.name).second)
      Fail(StrCat("the tensor ", tensor.name, " for the second time"));
    out_.tensors_.push_back(std::move(tensor));
    return Number<uint64_t>();
  }

  uint64_t SizeOf(const GgufTensor& tensor) const {
    const GgmlTypeInfo& info = InfoOf(tensor.type);
    if (tensor.row_elements() % info.block_weights != 0) {
      Fail(StrCat("tensor ", tensor.name, " has rows of ", tensor.row_elements(),
                  ", and blocks of ", info.name, " have ", info.block_weights));
    }
    unsigned __int128 size =
        static_cast<uint64_t>(tensor.row_elements() / info.block_weights * info.block_bytes);
    for (size_t d = 0;; ++d) {
      // Before each factor, because four axes can exceed 128 bits.
      if (size > bytes_.size()) Fail(StrCat("tensor ", tensor.name, " is larger than the file"));
      if (d + 1 == tensor.shape.size()) break;
      size *= static_cast<uint64_t>(tensor.shape[d]);
    }
    return static_cast<uint64_t>(size) + static_cast<uint64_t>(TailBytes(tensor.type));
  }

  uint64_t Alignment() const {
    if (!out_.Has("general.alignment")) return kDefaultAlignment;
    const auto alignment = static_cast<uint64_t>(out_.Int("general.alignment"));
    if (alignment == 0 || alignment > kMaxAlignment || (alignment & (alignment - 1)) != 0) {
      Fail(StrCat("general.alignment is ", alignment, "; want a power of two up to ",
                  kMaxAlignment));
    }
    return alignment;
  }

  void PlaceTensors(const std::vector<uint64_t>& offsets) {
    const uint64_t alignment = Alignment();
    const uint64_t begin = (at_ + alignment - 1) / alignment * alignment;
    if (!offsets.empty() && begin > bytes_.size()) Fail("the file ends before its tensors");
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (size_t i = 0; i < offsets.size(); ++i) {
      GgufTensor& tensor = out_.tensors_[i];
      const uint64_t size = SizeOf(tensor), room = bytes_.size() - begin;
      if (offsets[i] % alignment != 0) {
        Fail(StrCat("tensor ", tensor.name, " is not aligned to ", alignment));
      }
      if (offsets[i] > room || size > room - offsets[i]) {
        Fail(StrCat("tensor ", tensor.name, " of ", size, " bytes at offset ", offsets[i],
                    " ends after a data part of ", room, " bytes; the file is cut short"));
      }
      tensor.bytes = bytes_.subspan(begin + offsets[i], size);
      ranges.emplace_back(offsets[i], size);
    }
    std::sort(ranges.begin(), ranges.end());
    for (size_t i = 1; i < ranges.size(); ++i) {
      if (ranges[i].first - ranges[i - 1].first < ranges[i - 1].second) {
        Fail(StrCat("two tensors overlap at offset ", ranges[i].first, " of the data part"));
      }
    }
  }

  GgufReader& out_;
  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  uint64_t array_items_ = 0;  // So far
  std::set<std::string> names_;
};

GgufReader::GgufReader(const std::string& path) : file_(std::make_shared<const MappedFile>(path)) {
  GgufParser(*this).Run();
}

}  // namespace tern::formats
