// TensorBoard event files without TensorBoard: records of u64 length, masked CRC-32C of the length,
// a protobuf Event encoded by hand (wall_time, step, summary of scalar values), masked CRC-32C of
// the event (docs/formats/metrics.md). A resumed run opens a new file that begins with a SessionLog
// START event, at which TensorBoard drops the points of earlier files from that step on. Scalars
// only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metrics/append_file.h"
#include "metrics/journal.h"

namespace tern {

// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) and TensorBoard's masking of it: rotated
// right by 15 bits, plus a constant, so that a checksum of data that holds checksums stays strong.
uint32_t Crc32c(std::string_view bytes);
uint32_t MaskedCrc32c(std::string_view bytes);

class TensorBoardWriter {
 public:
  using Scalar =
      std::pair<std::string_view, double>;  // Tag ("train/loss") and value, stored as fp32.

  // Starts a new event file in `folder` (made when missing) whose name sorts after those that are
  // there. With resume_step > 0, or when earlier files are there, points of steps after resume_step
  // are dropped by TensorBoard. Throws ResourceError when the file cannot be written.
  TensorBoardWriter(const std::string& folder, int64_t resume_step,
                    WallClock clock = SystemWallClock);

  // One event with all values of a step. One write a call: a reader never waits for a buffer.
  void Add(int64_t step, const std::vector<Scalar>& scalars);
  // Points after `step` are dropped: the run goes back to an earlier checkpoint.
  void RollBackTo(int64_t step);

  const std::string& path() const { return path_; }

 private:
  void WriteEvent(std::string_view event);

  std::string path_;
  WallClock clock_;
  std::optional<AppendFile> file_;
};

}  // namespace tern
