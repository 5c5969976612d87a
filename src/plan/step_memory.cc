// See step_memory.h. M: tokens of a forward pass; D, F, V: width, FFN, vocabulary; Q, J: widths of
// queries and of keys.
#include "plan/step_memory.h"

#include <algorithm>

#include "kernels/ternary_pack/t2.h"
#include "nn/precision.h"
#include "plan/teacher_memory.h"

namespace tern::plan {
namespace {

using recipe::Precision;
using recipe::Sharding;

constexpr double kFloat = 4, kHalf = 2;  // Bytes

enum class Rounding { kNone, kNative, kEmulated };  // Of matrix products' operands

Rounding RoundingOf(const recipe::TrainStage& stage) {
  if (stage.precision == Precision::kFp32) return Rounding::kNone;
  const bool native = stage.precision == Precision::kBf16 && nn::HasNativeBf16(at::kCPU);
  return native ? Rounding::kNative : Rounding::kEmulated;
}

struct Sizes {
  double m, d, f, v, q, j, heads, layers;  // f, q, j, heads: of this rank
  double whole_f, whole_q;                 // Where sub-norms gather other ranks' columns, else 0
  bool bit;                                // Layers keep int8 inputs and 2-bit weights
  bool blended;  // Or, while BitLinear's quantization ramps up, both as floats
  bool fake;     // Dense layers multiply values that fake quantizers made
  bool pre_norms, input_norms, output_norms, qk_norm, tied, blocks;
  Rounding rounding;
};

bool QuantizesWeights(const recipe::TrainStage& stage) {
  return std::any_of(stage.quantize.rules.begin(), stage.quantize.rules.end(),
                     [](const recipe::QuantizeRule& rule) {
                       return rule.weights != recipe::WeightQuantizer::kNone;
                     });
}

Sizes SizesOf(const StepShape& s) {
  const ModelConfig& c = s.recipe.model;
  const auto real = [](int64_t x) { return static_cast<double>(x); };
  const int64_t tensor = s.recipe.parallel.tensor;
  const bool gathers = tensor > 1 && c.HasOutputNorms(), bit = c.linear == LinearKind::kBitLinear;
  return {.m = real(s.rows),
          .d = real(c.hidden_size),
          .f = real(c.intermediate_size / tensor),
          .v = real(c.vocab_size),
          .q = real(c.num_heads * c.HeadDim() / tensor),
          .j = real(c.num_kv_heads * c.HeadDim() / tensor),
          .heads = real(c.num_heads / tensor),
          .layers = real(c.num_layers),
          .whole_f = gathers ? real(c.intermediate_size) : 0,
          .whole_q = gathers ? real(c.num_heads * c.HeadDim()) : 0,
          .bit = bit && s.stage.quantize.warmup_steps == 0,
          .blended = bit && s.stage.quantize.warmup_steps > 0,
          .fake = !bit && QuantizesWeights(s.stage),
          .pre_norms = c.HasPreNorms(),
          .input_norms = c.HasInputNorms(),
          .output_norms = c.HasOutputNorms(),
          .qk_norm = c.qk_norm,
          .tied = c.tied_head,
          .blocks = s.stage.activation_checkpointing == recipe::ActivationCheckpointing::kBlock,
          .rounding = RoundingOf(s.stage)};
}

double Padded(double k) { return static_cast<double>(kernels::T2PaddedK(static_cast<int64_t>(k))); }

// What one layer keeps for its backward pass, bytes a token.
double LayerKept(const Sizes& s) {
  double bytes = kFloat * 2 * s.d;       // What the block and its FFN read
  if (s.pre_norms) bytes += kFloat * 2;  // Factors of the norms before them
  // Of q, k, v, gate and up: factors of norms of their own, and what these read of pre-norms.
  if (s.input_norms) bytes += kFloat * (5 + (s.pre_norms ? 2 * s.d : 0));
  const double inputs = s.input_norms ? 5 : 2;        // Of width D, that products keep
  bytes += kFloat * (s.q + 2 * s.j + s.q + s.heads);  // Attention: q, k, v, output, log-sums
  if (s.qk_norm) bytes += kFloat * (s.q + s.j);
  bytes += kFloat * 2 * s.f;  // Gate and up
  if (s.bit) {                // Inputs of the linear layers as int8, with scale and sum of each row
    bytes += inputs * Padded(s.d) + Padded(s.q) + Padded(s.f) + (inputs + 2) * 2 * kFloat;
    // The norms' inputs: attention's is its output, unless it is gathered.
    if (s.output_norms) bytes += kFloat * (s.whole_f > 0 ? s.whole_q + s.whole_f + 2 : s.f + 2);
    return bytes;
  }
  bytes += kFloat * (inputs * s.d + s.f);  // Normed inputs, and the gated product
  if (s.blended) return bytes + kFloat * (s.q + (s.output_norms ? s.f + 2 : 0));  // o's are a copy
  if (s.output_norms) bytes += kFloat * (s.q + s.f + s.whole_q + s.whole_f + 2);
  return bytes;
}

// Of it what the FFN's second half kept, and has given back when the gradients of its first
// products are made: bytes a token.
double FfnKept(const Sizes& s) {
  const double norm = s.output_norms ? kFloat * std::max(s.f, s.whole_f) : 0;
  return kFloat * 2 * s.f + norm + (s.bit ? Padded(s.f) : kFloat * s.f);
}

double LinearWeights(const Sizes& s) { return 2 * s.d * s.q + 2 * s.d * s.j + 3 * s.d * s.f; }

// Quantized weights that the graph holds: of 2 bits (zero3: the gathered ones, counted there), or
// as floats.
double KeptWeights(const StepShape& shape, const Sizes& s) {
  if (s.blended) return kFloat * LinearWeights(s) * (s.blocks ? 1 : s.layers);
  if (!s.bit || shape.held.codes > 0) return 0;
  return LinearWeights(s) / 4 * (s.blocks ? 1 : s.layers);
}

double Activations(const StepShape& shape, const Sizes& s) {
  const double layer = LayerKept(s) * s.m;
  const double all = s.blocks ? s.layers * kFloat * s.d * s.m : s.layers * layer;
  return all + KeptWeights(shape, s) + kFloat * s.d * s.m;  // And the last norm's input
}

// A float matrix of n elements as an operand: its rounded copy while it is made.
double Rounded(const Sizes& s, double n) {
  switch (s.rounding) {
    case Rounding::kNone:
      return 0;
    case Rounding::kNative:
      return kHalf * n;
    case Rounding::kEmulated:
      return (kHalf + kFloat) * n;
  }
  __builtin_unreachable();
}
double Kept(const Sizes& s, double n) {
  return s.rounding == Rounding::kEmulated ? kFloat * n : Rounded(s, n);
}

// The loss (nn/loss.cc, distill/logit_losses.cc): hidden states and their gradient, the head's
// gradient, and of one chunk either the logits with what they are compared with, or the logits'
// gradient with its rounded copy beside that of the head.
double LossWork(const StepShape& shape, const Sizes& s) {
  const double c = std::min(static_cast<double>(shape.stage.loss_chunk_tokens), s.m);
  const bool plain = recipe::IsPlain(shape.stage.losses);
  const auto compared = plain ? 1.0 : static_cast<double>(ChunkMatrices(shape.recipe, shape.stage));
  // Of several losses the logits are there beside the gradient.
  const double multiplied = kFloat * c * s.v * (compared > 1 ? 2 : 1) + Kept(s, c * s.v);
  return kFloat * 2 * s.d * s.m + kFloat * s.v * s.d +
         std::max(kFloat * c * s.v * compared, multiplied + Rounded(s, s.v * s.d));
}

// Backward through the FFN's first product, the largest of a layer: both gradients of its outputs
// in two copies, one weight matrix as floats with its rounded copy, and the gradients of both.
double LayerWork(const Sizes& s) {
  const double weights = s.d * s.f;
  const double matrices = kFloat * 2 * weights + Rounded(s, weights);
  return matrices + s.m * (kFloat * (2 * s.f + 3 * s.d) + kFloat * s.f + Rounded(s, s.f));
}

struct Gradients {
  double before = 0;  // .grad when the last micro-batch begins
  double after = 0;   // .grad when its backward pass ends
  // Both ends of exchanges, beside .grad: left from earlier micro-batches, when the first layer's
  // are sent, and when the embedding's is.
  double under_way_before = 0, under_way_layer = 0, under_way_end = 0;
  bool are_parameters = false;  // A matrix's new gradient becomes .grad: no copy beside it
};

Gradients GradientsOf(const StepShape& shape) {
  const auto real = [](int64_t x) { return static_cast<double>(x); };
  const HeldByRank& held = shape.held;
  const double mine = real(held.gradients), passes = real(shape.micro_batches);
  const bool several = shape.micro_batches > 1;
  const Sharding shard = shape.ranks == 1 ? Sharding::kNone : shape.recipe.parallel.shard;
  if (shard == Sharding::kNone) {
    if (shape.ranks == 1) return {several ? mine : 0, mine, 0, 0, 0, !several};
    // The Reducer's buckets are always there; earlier micro-batches add up beside them.
    return {several ? 2 * mine : mine, several ? 2 * mine : mine, 0, 0, 0, false};
  }
  const double share = shape.recipe.parallel.reduce == recipe::ReduceType::kBf16 ? 0.5 : 1;
  const double a_pass = share * real(held.exchanged);
  const double kept = real(MaxBytesUnderWay(held.exchanged));
  const double layer = kept + share * real(held.largest_linear);
  const double end = kept + share * real(held.largest_matrix);
  // Sums of this rank's rows are made when exchanges end: not before there are more than may be
  // under way.
  const auto sums = [&](double sent) { return sent > kept ? mine : 0.0; };
  const auto both_ends = [](double sent, double most) { return 2 * std::min(sent, most); };
  if (shard == Sharding::kZero1 && several) {  // What is sent is the .grad of all micro-batches.
    return {real(held.exchanged),     sums(a_pass),           0,
            both_ends(a_pass, layer), both_ends(a_pass, end), false};
  }
  const double earlier = shard == Sharding::kZero1 ? 0 : (passes - 1) * a_pass;
  return {sums(earlier),
          sums(earlier + a_pass),
          both_ends(earlier, kept),
          both_ends(earlier + a_pass, layer),
          both_ends(earlier + a_pass, end),
          false};
}

double Sum(const std::vector<MemoryLine>& lines) {
  double sum = 0;
  for (const MemoryLine& line : lines) sum += line.bytes;
  return sum;
}

}  // namespace

std::vector<MemoryLine> StepLines(const StepShape& shape) {
  const Sizes s = SizesOf(shape);
  const Gradients g = GradientsOf(shape);
  const double layer = LayerKept(s) * s.m, all = Activations(shape, s);
  const double head = kFloat * s.v * s.d;
  const double recomputed = s.blocks ? layer : 0;
  // For the whole step, and counted for all layers, whichever the rules take.
  const double fake = s.fake ? kFloat * LinearWeights(s) * s.layers : 0;
  using Lines = std::vector<MemoryLine>;
  const auto lines = [&](double gradients, double under_way, double activations, double loss,
                         double work) {
    return Lines{
        {"gradients (fp32)", gradients},         {"quantized values (fp32)", fake},
        {"gradients on their way", under_way},   {"activations kept for backward", activations},
        {"loss and gradient of the head", loss}, {"workspace", work}};
  };
  const double end = std::max(g.before, g.after);
  const double given_back = FfnKept(s) * s.m;
  // Gradients that the first layer's FFN comes before: of its other weights, and of a tied head.
  const double missing =
      g.are_parameters ? kFloat * (LinearWeights(s) - s.d * s.f) + (s.tied ? head : 0) : 0;
  const bool exchanged = g.under_way_end > 0;  // The head's and the embedding's gradients, too
  const double last_head = s.tied && !exchanged ? head : 0;
  const Lines moments[] = {lines(g.before, g.under_way_before, all, LossWork(shape, s), 0),
                           lines(g.before, g.under_way_before, all + recomputed - given_back, head,
                                 LayerWork(s) + kFloat * s.d * s.m),
                           lines(end - missing, g.under_way_layer,
                                 layer - given_back + kFloat * s.d * s.m, last_head, LayerWork(s)),
                           lines(end, g.under_way_end, 0, last_head,
                                 (g.are_parameters || exchanged ? 0 : head) + kFloat * s.d * s.m)};
  return *std::max_element(std::begin(moments), std::end(moments),
                           [](const Lines& a, const Lines& b) { return Sum(a) < Sum(b); });
}

}  // namespace tern::plan
