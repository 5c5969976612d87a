// See memory_plan.h.
#include "ptq/memory_plan.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "base/progress.h"
#include "ptq/check.h"

namespace tern::ptq {
namespace {

constexpr int64_t kFloat = 4;
// Code of libraries that is not touched before the work, threads' stacks, the writers' buffers.
constexpr int64_t kProcess = 64 << 20;
// What the C library keeps between freed blocks, of all that is not mapped: measured 5 to 15 %.
constexpr double kHeap = 1.15;
constexpr int64_t kPassRows = 256;     // Of the engine at once
constexpr int64_t kKlRows = 16;        // Of KlOfRows at once, in fp64
constexpr int64_t kKlArrays = 6;       // Logits, logarithms and products of both models
constexpr int64_t kSystems = 1 << 24;  // refine.cc: numbers of its systems at once

// Sizes of the shape, in bytes.
struct Shape {
  explicit Shape(const ModelConfig& c) {
    for (const ParameterSpec& spec : ParameterTable(c)) {
      all += kFloat * spec.Count();
      if (spec.name.starts_with("model.layers.0.")) layer += kFloat * spec.Count();
      if (spec.role == ParameterRole::kLinear) {
        matrix = std::max(matrix, kFloat * spec.Count());
        columns = std::max(columns, spec.shape[1]);
        rows = std::max(rows, spec.shape[0]);
      }
    }
    table = kFloat * c.vocab_size * c.hidden_size;
    heads = c.num_heads * c.HeadDim();
    // Residual stream and norms, queries and their output, keys and values, gate, up and product.
    token = kFloat * (6 * c.hidden_size + 4 * heads + 4 * c.num_kv_heads * c.HeadDim() +
                      4 * c.intermediate_size);
  }
  int64_t all = 0, layer = 0, matrix = 0, columns = 0, rows = 0, table = 0, heads = 0, token = 0;
};

class Predictor {
 public:
  Predictor(const MemoryFacts& facts, bool on_disk) : f_(facts), s_(facts.config) {
    plan_.activations_on_disk = on_disk;
  }

  MemoryPlan Run() {
    if (f_.measures) Measures();
    if (f_.gguf) {
      if (f_.importance) Add("means of the inputs", Activations() + s_.layer + Sequence());
      const int64_t largest = std::max(s_.matrix, s_.table);
      Add("the largest matrix", largest + largest / 2);  // As fp32 and as blocks
    } else {
      Add("a layer", Activations() + Layer());
      Add("the tables", (f_.fp32_tables ? s_.table : 0) + s_.table / 2);
    }
    if (f_.sequences > 0 || !f_.gguf) Check();
    return std::move(plan_);
  }

 private:
  void Add(const char* name, int64_t bytes) {
    const auto heap = static_cast<int64_t>(kHeap * static_cast<double>(bytes));
    plan_.moments.push_back({name, f_.base_bytes + kProcess + heap});
  }

  // Residual stream and attention's outputs; of training the layer's inputs and outputs, too.
  int64_t Activations() const {
    if (plan_.activations_on_disk) return 0;
    const int64_t d = f_.config.hidden_size;
    return kFloat * f_.sequences * f_.sequence * (d + s_.heads + (f_.trains ? 2 * d : 0));
  }

  int64_t Sequence() const {
    const int64_t scores = kFloat * f_.config.num_heads * f_.sequence * f_.sequence;
    return f_.sequences > 0 ? f_.sequence * s_.token + scores : 0;
  }

  // The layer in fp32, its packed form, and the work on its largest matrix. Hessians in fp32: the
  // mean, GPTQ's two and its factor; two in fp64 (gptq.cc).
  int64_t Layer() const {
    int64_t bytes = s_.layer + s_.layer / 4 + 8 * s_.matrix + Sequence();
    if (f_.sequences > 0) bytes += 3 * kFloat * s_.columns * s_.columns;
    if (f_.gptq) {
      constexpr int64_t kLeastGroup = 32;
      const int64_t groups = s_.columns / kLeastGroup;
      bytes += 5 * kFloat * s_.columns * s_.columns;
      bytes += 3 * 2 * kFloat * std::min(s_.rows * groups * groups, kSystems);
    }
    if (f_.trains) bytes += 10 * s_.layer + 3 * Sequence();
    return bytes;
  }

  // sensitivity.cc: parameters, gradients and, of one sequence, all layers and some logits.
  void Measures() {
    Add("sensitivity", 2 * s_.all + f_.config.num_layers * 2 * Sequence() +
                           5 * kFloat * f_.sequence * f_.config.vocab_size);
    Add("means of the inputs", Activations() + s_.layer + Sequence());
  }

  // check.h: the heads of both models, one layer of one of them, logits and their fp64 of some
  // tokens.
  void Check() {
    const int64_t v = f_.config.vocab_size;
    const int64_t rows = std::min(f_.sequence, kPassRows);
    const int64_t heads =
        (f_.fp32_tables || f_.checkpoint ? s_.table : s_.table / 2) + s_.table / 2;
    const int64_t logits = 2 * std::max(kCheckLogitsBytes, 2 * kKlRows * kFloat * v) +
                           kKlRows * kKlArrays * 2 * kFloat * v;
    const int64_t layer = s_.layer + s_.matrix + rows * s_.token;
    const int64_t whole = f_.checkpoint ? s_.all : 0;
    Add("the check",
        std::max(f_.sequences > 0 ? heads + logits + layer + whole : 0, 2 * s_.matrix + s_.table));
  }

  const MemoryFacts& f_;
  Shape s_;
  MemoryPlan plan_;
};

}  // namespace

const MemoryPlan::Moment& MemoryPlan::Largest() const {
  TERN_CHECK(!moments.empty(), "a plan of nothing");
  return *std::max_element(moments.begin(), moments.end(),
                           [](const Moment& a, const Moment& b) { return a.bytes < b.bytes; });
}

MemoryPlan PredictMemory(const MemoryFacts& facts, bool activations_on_disk) {
  return Predictor(facts, activations_on_disk).Run();
}

MemoryPlan PlanMemory(const MemoryFacts& facts, int64_t limit_bytes) {
  MemoryPlan plan = PredictMemory(facts, false);
  if (limit_bytes == 0 || plan.Largest().bytes <= limit_bytes) return plan;
  if (facts.sequences > 0) plan = PredictMemory(facts, true);
  const MemoryPlan::Moment& largest = plan.Largest();
  if (largest.bytes <= limit_bytes) return plan;
  const int64_t mib = (largest.bytes + (1 << 20) - 1) >> 20;
  throw InputError(StrCat("--memory of ", FormatBytes(static_cast<double>(limit_bytes)),
                          " is too small: ", largest.name, " is predicted to need ", mib,
                          "MiB, of which the process has ", facts.base_bytes >> 20,
                          "MiB already; want at least --memory ", mib, "MiB"));
}

int64_t ResidentBytes() {
  std::ifstream fields("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  fields >> pages >> resident;
  TERN_CHECK(resident > 0, "/proc/self/statm");
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace tern::ptq
