// See bench_device.h.
#include "engine_cli/bench_device.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "engine_cli/bench_product.h"
#include "kernels/device/device.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine_cli {
namespace {

constexpr int64_t kBeyondCaches = 256 << 20;  // The L2 of an H100 has 50 MB, of an RTX 4090 72
constexpr int64_t kMostCopies = 64;

// Device memory of one product: weights in copies that take turns, activations, results.
class ProductMemory {
 public:
  ProductMemory(kernels::Device& device, int64_t weight_bytes, int64_t input_bytes,
                int64_t scale_bytes, int64_t output_bytes, bool emulated)
      : weight_bytes_(weight_bytes),
        copies_(emulated ? 2
                         : std::clamp<int64_t>(kBeyondCaches / weight_bytes + 1, 2, kMostCopies)),
        weights_(Filled(device, copies_ * weight_bytes, RandomPiece())),
        input_(Filled(device, input_bytes, RandomPiece())),
        scales_(Filled(device, scale_bytes, std::vector<char>(kPieceBytes))),
        output_(device.Allocate(output_bytes)) {}

  int64_t copies() const { return copies_; }
  uint8_t* Weights(int64_t copy) const {
    return reinterpret_cast<uint8_t*>(weights_.data()) + copy * weight_bytes_;
  }
  char* input() const { return input_.data(); }
  char* scales() const { return scales_.data(); }
  float* output() const { return reinterpret_cast<float*>(output_.data()); }

 private:
  static constexpr size_t kPieceBytes = 1 << 20;

  // Weights and activations of every type, finite as fp16; no code 3 of two bits. Numbers without a
  // pattern, because hardware is quicker with zeros.
  static std::vector<char> RandomPiece() {
    std::mt19937 random(1);
    std::vector<char> bytes(kPieceBytes);
    for (char& byte : bytes) {
      const unsigned bits = random() & 0xAF;
      byte = static_cast<char>(bits & ~((bits & 0xAA) >> 1));
    }
    return bytes;
  }

  static kernels::DeviceMemory Filled(kernels::Device& device, int64_t size_bytes,
                                      const std::vector<char>& piece) {
    kernels::DeviceMemory memory = device.Allocate(size_bytes);
    for (int64_t at = 0; at < size_bytes; at += std::ssize(piece))
      device.CopyIn(memory.data() + at, piece.data(),
                    std::min<int64_t>(std::ssize(piece), size_bytes - at));
    return memory;
  }

  int64_t weight_bytes_, copies_;
  kernels::DeviceMemory weights_, input_, scales_, output_;
};

// Queues one product with copy `copy` of the weights.
using QueueProduct = std::function<void(int64_t copy)>;

double LeastMicroseconds(kernels::Device& device, const QueueProduct& queue, int64_t copies,
                         int rounds) {
  queue(0);  // Loads the kernel, which cannot be recorded
  device.Synchronize();
  const kernels::DeviceRecording recording = device.Record([&] {
    for (int64_t copy = 0; copy < copies; ++copy) queue(copy);
  });
  double least = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    device.Replay(recording);
    device.Synchronize();
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    const double one = time.count() / static_cast<double>(copies);
    least = round == 0 ? one : std::min(least, one);
  }
  return least;
}

double TernaryMicroseconds(kernels::Device& device, const ProductShape& shape, int64_t m,
                           const DeviceBenchFlags& flags) {
  const int64_t padded = kernels::T2PaddedK(shape.k);
  const ProductMemory memory(device, shape.n * kernels::T2RowBytes(shape.k), m * padded, 2 * m * 4,
                             m * shape.n * 4, device.info().major == 0);
  const auto queue = [&](int64_t copy) {
    const auto k = static_cast<int>(padded), n = static_cast<int>(shape.n);
    const kernels::TernaryLinearArgs args{memory.Weights(copy),
                                          reinterpret_cast<const int8_t*>(memory.input()),
                                          reinterpret_cast<const int32_t*>(memory.scales()),
                                          reinterpret_cast<const float*>(memory.scales()) + m,
                                          memory.output(),
                                          static_cast<int>(m),
                                          n,
                                          k,
                                          k,
                                          n};
    device.Check("ternary product", device.kernels().ternary_linear(args, device.stream()));
  };
  return LeastMicroseconds(device, queue, memory.copies(), flags.rounds);
}

double Int4Microseconds(kernels::Device& device, const ProductShape& shape, int64_t m,
                        const DeviceBenchFlags& flags) {
  const int64_t groups = kernels::W4Groups(shape.k), padded = groups * kernels::kW4Group;
  const ProductMemory memory(device, shape.n * kernels::W4RowBytes(shape.k), m * padded * 2,
                             groups * shape.n * 2, m * shape.n * 4, device.info().major == 0);
  const auto queue = [&](int64_t copy) {
    kernels::W4A16CudaArgs args;
    args.w = memory.Weights(copy);
    args.scales_GN = reinterpret_cast<const uint16_t*>(memory.scales());
    args.x = reinterpret_cast<const uint16_t*>(memory.input());
    args.y = memory.output();
    args.m = m;
    args.n = args.ldy = shape.n;
    args.k = shape.k;
    args.ldx = padded;
    device.Check("4-bit product", device.kernels().w4a16(args, device.stream()));
  };
  return LeastMicroseconds(device, queue, memory.copies(), flags.rounds);
}

}  // namespace

void RunDeviceBench(const DeviceBenchFlags& flags) {
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open(flags.device);
  nlohmann::json rows = nlohmann::json::array();
  if (!flags.json) std::printf("%-16s %6s %14s %14s\n", "product", "tokens", "out x in", "us");
  for (const std::string& text : flags.shapes) {
    const ProductShape shape = ParseProductShape(text);
    for (const int64_t m : flags.tokens) {
      for (const bool ternary : {true, false}) {
        const double time = ternary ? TernaryMicroseconds(*device, shape, m, flags)
                                    : Int4Microseconds(*device, shape, m, flags);
        const char* product = ternary ? "ternary" : "4-bit symmetric";
        rows.push_back(
            {{"product", product}, {"tokens", m}, {"shape", text}, {"microseconds", time}});
        if (!flags.json)
          std::printf("%-16s %6ld %14s %14.2f\n", product, static_cast<long>(m), text.c_str(),
                      time);
      }
    }
  }
  if (flags.json)
    std::cout << nlohmann::json{{"device", device->info().name}, {"rows", rows}}.dump() << "\n";
}

}  // namespace tern::engine_cli
