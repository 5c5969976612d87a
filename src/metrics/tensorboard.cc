// See tensorboard.h. The protobuf messages (tensorflow/core/util/event.proto and
// framework/summary.proto), by field:
//   Event: 1 wall_time double; 2 step int64; 3 file_version string; 5 summary Summary; 7
//   session_log SessionLog Summary: 1 repeated value {1 tag string; 2 simple_value float};
//   SessionLog: 1 status (START = 1)
#include "metrics/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace tern {
namespace {

constexpr uint32_t kMaskDelta = 0xA282EAD8;  // As in LevelDB's crc32c.h, which the format follows.
constexpr char kPrefix[] = "events.out.tfevents.";
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

template <class T>
std::string LittleEndian(T value) {
  static_assert(std::endian::native == std::endian::little);
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

std::string Tag(uint32_t field, WireType type) { return Varint(field << 3 | type); }
std::string BytesField(uint32_t field, std::string_view bytes) {
  return StrCat(Tag(field, kBytes), Varint(bytes.size()), bytes);
}

std::string EventHead(double wall_time, int64_t step) {
  std::string event = Tag(1, kFixed64) + LittleEndian(wall_time);
  if (step != 0) event += Tag(2, kVarint) + Varint(static_cast<uint64_t>(step));
  return event;
}

std::string SessionStart(double wall_time, int64_t first_dropped_step) {
  return EventHead(wall_time, first_dropped_step) + BytesField(7, Tag(1, kVarint) + Varint(1));
}

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}

// Seconds of the newest event file in `folder`, or -1. TensorBoard reads files in name order, so a
// new one must be later.
int64_t NewestFileSeconds(const std::string& folder) {
  int64_t newest = -1;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    newest =
        std::max<int64_t>(newest, std::strtoll(name.c_str() + sizeof kPrefix - 1, nullptr, 10));
  }
  return newest;
}

std::string FileName(int64_t seconds) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {'h', 'o', 's', 't'};
  std::string digits = std::to_string(seconds);
  digits.insert(0, digits.size() < 10 ? 10 - digits.size() : 0, '0');
  return StrCat(kPrefix, digits, ".", host.data(), ".", ::getpid());
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ crc >> 8;
  return ~crc;
}

uint32_t MaskedCrc32c(std::string_view bytes) { return std::rotr(Crc32c(bytes), 15) + kMaskDelta; }

TensorBoardWriter::TensorBoardWriter(const std::string& folder, int64_t resume_step,
                                     WallClock clock)
    : clock_(std::move(clock)) {
  TERN_CHECK(resume_step >= 0, "resume_step ", resume_step);
  MakeFolders(folder);
  const int64_t newest_s = NewestFileSeconds(folder);
  const double now = clock_();
  path_ = StrCat(folder, "/", FileName(std::max(static_cast<int64_t>(now), newest_s + 1)));
  file_.emplace(path_, AppendFile::Mode::kCreateNew);
  WriteEvent(EventHead(now, 0) + BytesField(3, "brain.Event:2"));
  if (resume_step > 0 || newest_s >= 0) WriteEvent(SessionStart(now, resume_step + 1));
}

void TensorBoardWriter::Add(int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    summary += BytesField(
        1, BytesField(1, tag) + Tag(2, kFixed32) + LittleEndian(static_cast<float>(value)));
  }
  WriteEvent(EventHead(clock_(), step) + BytesField(5, summary));
}

void TensorBoardWriter::RollBackTo(int64_t step) { WriteEvent(SessionStart(clock_(), step + 1)); }

void TensorBoardWriter::WriteEvent(std::string_view event) {
  const std::string length = LittleEndian(static_cast<uint64_t>(event.size()));
  file_->Write(
      StrCat(length, LittleEndian(MaskedCrc32c(length)), event, LittleEndian(MaskedCrc32c(event))));
}

}  // namespace tern
