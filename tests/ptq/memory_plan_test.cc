// The limit of memory: what is predicted, what is refused before any work, and that activations on
// the disk change nothing.
#include "ptq/memory_plan.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "ptq/activation_room.h"
#include "ptq/ledger.h"
#include "tests/ptq/tiny_source.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;

// SmolLM2-135M with 65,536 tokens.
MemoryFacts Facts() {
  MemoryFacts facts;
  ModelConfig& c = facts.config;
  c.vocab_size = 49152;
  c.hidden_size = 576;
  c.intermediate_size = 1536;
  c.num_layers = 30;
  c.num_heads = 9;
  c.num_kv_heads = 3;
  c.tied_head = true;
  c.linear = LinearKind::kDense;
  facts.base_bytes = 150 << 20;
  facts.sequences = 128;
  facts.sequence = 512;
  facts.gptq = true;
  return facts;
}

int64_t BytesOf(const MemoryPlan& plan, const std::string& moment) {
  for (const MemoryPlan::Moment& m : plan.moments)
    if (m.name == moment) return m.bytes;
  ADD_FAILURE() << "no moment " << moment;
  return 0;
}

TEST(MemoryPlanTest, ActivationsAreWhatTheDiskTakes) {
  const MemoryPlan memory = PredictMemory(Facts(), false), disk = PredictMemory(Facts(), true);
  // Residual stream and attention's output of 576 floats each; 1.15: what the heap keeps.
  const int64_t activations = int64_t{65536} * (576 + 576) * 4;
  EXPECT_NEAR(static_cast<double>(BytesOf(memory, "a layer") - BytesOf(disk, "a layer")),
              1.15 * static_cast<double>(activations), 2);
  EXPECT_EQ(BytesOf(memory, "the check"), BytesOf(disk, "the check"));
}

TEST(MemoryPlanTest, TheLimitDecides) {
  const int64_t in_memory = PredictMemory(Facts(), false).Largest().bytes,
                on_disk = PredictMemory(Facts(), true).Largest().bytes;
  ASSERT_LT(on_disk, in_memory);
  EXPECT_FALSE(PlanMemory(Facts(), 0).activations_on_disk);
  EXPECT_FALSE(PlanMemory(Facts(), in_memory).activations_on_disk);
  EXPECT_TRUE(PlanMemory(Facts(), in_memory - 1).activations_on_disk);
  EXPECT_TRUE(PlanMemory(Facts(), on_disk).activations_on_disk);
  try {
    PlanMemory(Facts(), on_disk - 1);
    FAIL() << "not refused";
  } catch (const InputError& error) {
    const std::string said = error.what(), least = "--memory ";
    const int64_t mib = std::stoll(said.substr(said.rfind(least) + least.size()));
    EXPECT_FALSE(said.empty());
    EXPECT_EQ(mib, (on_disk + (1 << 20) - 1) >> 20);
    EXPECT_NO_THROW(PlanMemory(Facts(), mib << 20));  // What it says does
  }
}

TEST(MemoryPlanTest, EveryPartCounts) {
  const int64_t plain = PredictMemory(Facts(), true).Largest().bytes;
  const auto with = [&](auto change) {
    MemoryFacts facts = Facts();
    change(&facts);
    return PredictMemory(facts, true).Largest().bytes;
  };
  EXPECT_GT(with([](MemoryFacts* f) { f->base_bytes += 1 << 20; }), plain);
  EXPECT_GT(with([](MemoryFacts* f) { f->fp32_tables = true; }), plain);
  EXPECT_GT(with([](MemoryFacts* f) { f->checkpoint = true; }), plain);
  EXPECT_GT(with([](MemoryFacts* f) { f->trains = true; }), plain);
  EXPECT_GT(with([](MemoryFacts* f) { f->measures = true; }), plain);
  EXPECT_GT(with([](MemoryFacts* f) { f->config.vocab_size *= 2; }), plain);
}

TEST(ActivationRoomTest, KeepsNumbersAndLeavesNoFile) {
  const testing::TempFolder folder;
  fs::create_directories(folder / "room");
  const ActivationRoom room(folder / "room");
  const at::Tensor x = room.New({3, 64, 100}), y = room.New({3, 64, 100});
  for (int64_t b = 0; b < 3; ++b) {
    x[b].fill_(static_cast<float>(b + 1));
    room.Drop(x[b]);
  }
  y.copy_(x);
  room.Drop(y);
  for (int64_t b = 0; b < 3; ++b)
    EXPECT_EQ(y[b].sum().item<double>(), 6400.0 * static_cast<double>(b + 1));
  EXPECT_TRUE(fs::is_empty(folder / "room"));
  EXPECT_THROW(ActivationRoom(folder / "nowhere").New({4}), ResourceError);
}

class MemoryLimitTest : public ::testing::Test {
 protected:
  MemoryLimitTest() { WriteTinySource(folder_); }
  QuantizeOptions Options(const std::string& to, const std::string& name) {
    QuantizeOptions options = TinyOptions(folder_, to, name);
    options.calibration = folder_ / "text.idx";
    return options;
  }
  testing::TempFolder folder_;
};

TEST_F(MemoryLimitTest, TooSmallIsRefusedBeforeAnyWork) {
  for (const char* to : {"int4", "q4_0"}) {
    QuantizeOptions options = Options(to, std::string(to) == "q4_0" ? "out.gguf" : "out");
    options.memory = "1MiB";
    EXPECT_THROW(QuantizeModel(options), InputError);
    EXPECT_FALSE(fs::exists(options.output));
    EXPECT_FALSE(fs::exists(options.output + ".partial")) << to;
  }
}

// Between what activations on the disk need and what all in memory need. The tiny model's are small
// beside the process, so the plan is asked for the limit, which the process's growth may move: the
// work itself is compared with activations on the disk directly.
TEST_F(MemoryLimitTest, ActivationsOnTheDiskChangeNothing) {
  for (const char* method : {"gptq", "autoround"}) {
    QuantizeOptions options = Options("int4", StrCat("memory_", method));
    options.method = method;
    if (std::string(method) == "autoround") options.layer_steps = 4;
    const QuantizeReport memory = QuantizeModel(options);
    EXPECT_FALSE(memory.activations_on_disk);
    EXPECT_GT(memory.predicted_memory_bytes, 0);
    const std::string before = options.output;
    options.output = folder_ / StrCat("disk_", method);
    options.activations_on_disk = true;
    const QuantizeReport disk = QuantizeModel(options);
    EXPECT_TRUE(disk.activations_on_disk);
    EXPECT_EQ(disk.mean_kl, memory.mean_kl);
    const auto want = ReadLedger(LedgerPath(before)),
               found = ReadLedger(LedgerPath(options.output));
    EXPECT_EQ(found.matrices, want.matrices);
    EXPECT_EQ(found.files, want.files);
  }
}

}  // namespace
}  // namespace tern::ptq
