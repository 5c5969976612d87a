// The typed recipe: what a user may write in YAML, after merging `use:` parts and command-line
// overrides. Plain structs; the schema that names, documents and bounds each key is in schema.cc,
// the YAML reader in load.cc. A key that is not here does not exist: the reader refuses it. Units
// are in the names or in the comments.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "arch/model_config.h"
#include "recipe/quantize_settings.h"

namespace tern::recipe {

// ---- data
// ----------------------------------------------------------------------------------------------------------
struct TokenizerConfig {
  std::string file;  // An existing SentencePiece model; empty: train one on the training documents
  int64_t vocab_size = 4096;  // Pieces of a trained tokenizer, byte pieces included
};

enum class Packing {
  kStream,     // Windows of the concatenated documents; attention may look across a border
  kDocuments,  // As kStream, but attention and positions stop at document borders
  kSamples,    // As kDocuments, and no sample has a part of a document (data/packed_samples.h)
};

// What a record of JSON is; kText: text_field.
enum class SourceRecord { kText, kMessages, kCompletion };

// What the files of a source are; kAuto: by their names.
enum class SourceFormat {
  kAuto,
  kText,
  kJsonl,
  kJson,
  kParquet,
  kShards,
  kTokens,
  kMegatron,
  kLlmc
};
enum class SourceSplit { kAuto, kTrain, kValidation };

struct SourceConfig {
  std::string name;  // Its key under data.sources
  std::vector<std::string> files;
  SourceFormat format = SourceFormat::kAuto;
  std::string text_field = "text";
  SourceRecord record = SourceRecord::kText;
  std::string messages_field = "messages", prompt_field = "prompt", completion_field = "completion";
  bool prompts_count = false;              // Prompts count in the loss, too
  SourceSplit split = SourceSplit::kAuto;  // kAuto: train, and held-out documents or split if any
  double weight = 1.0;                     // Share of the samples, relative to the others'
};

struct DataConfig {
  std::string fetch;  // Name of a script in scripts/fetch that brings a public corpus; empty: none
  std::vector<std::string>
      files;  // UTF-8 text files or globs, a document each; "{fetched}" is the fetched folder
  std::vector<SourceConfig> sources;  // Instead of files: text of any size and token files, mixed
  std::string shards;  // Folder for the shards of sources; empty: data/ of the run folder
  int64_t shard_tokens = 100'000'000;
  double validation_fraction = 0.1;  // Share of whole documents held out, by bytes, chosen by seed
  std::vector<std::string> validation_files;  // Globs that name the held-out documents instead;
                                              // then the share is ignored
  TokenizerConfig tokenizer;
  std::string chat_template;  // Jinja file for messages; empty: that of the tokenizer's model
  Packing packing = Packing::kStream;
};

// ---- train
// ---------------------------------------------------------------------------------------------------------
enum class Precision { kFp32, kBf16, kFp16 };
enum class ScheduleKind { kTwoStage, kCosine, kLinear, kWsd, kConstant };
enum class ScalingMode { kOff, kStatic, kDynamic };
enum class ActivationCheckpointing { kNone, kBlock };
enum class AttentionBackend { kAuto, kMath, kFlash, kMemoryEfficient, kCudnn };
enum class LossRows { kLabels, kAll };
enum class HiddenDistance { kMse, kCosine };
enum class HiddenLayers { kLast, kAll };
enum class RelationReduction { kMean, kBatch };
enum class BalanceBy { kNone, kGradientNorm };
enum class GeneratedBy { kNone, kStudent, kTeacher };
enum class Runtime { kLibtorch, kEngine };  // What runs a model
enum class FaultAction { kStop, kSkip, kRollback };

struct OptimizerConfig {  // AdamW (arXiv 1711.05101), libtorch's fused step
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // On matrices only: never on norms, embeddings or scales
  double weight_decay_until =
      0.5;                 // Share of the steps after which it is 0 (b1.58: the switch); 1 keeps it
  double clip_norm = 1.0;  // Global gradient norm; 0 switches clipping off
  double scale_lr_factor = 1.0;  // Rate of the quantizers' learned scales / the schedule's
  bool offload = false;          // A GPU's moments are in host memory, its updates made there
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kTwoStage;
  double peak_lr = 1.5e-3;
  double second_lr = 1e-3;   // two_stage: the rate at the switch, from which stage 2 falls
  double final_lr = 0.0;     // Rate at the last step
  double switch_at = 0.5;    // two_stage: share of the steps of stage 1
  double decay_share = 0.2;  // wsd: share of the steps of the final decay
  int64_t warmup_steps = 0;  // Linear from 0
};

struct LossScalingConfig {
  ScalingMode mode = ScalingMode::kOff;
  double initial = 65536.0;  // The scale itself when static
  double growth = 2.0;
  double backoff = 0.5;
  int64_t growth_interval = 2000;  // Good steps in a row before it grows
  double floor = 1.0;              // Below it the run stops with a numeric error
};

struct FaultPolicy {
  FaultAction nonfinite =
      FaultAction::kStop;  // Loss or gradient norm is NaN or Inf (without loss scaling)
  FaultAction spike = FaultAction::kSkip;  // Loss more than spike_sigmas above its running mean
  double spike_sigmas = 0.0;               // 0: spikes are not looked for
  int64_t max_events = 10;                 // More than these in a run stop it, whatever the action
};

// What a stage minimises: a weighted sum. A weight of 0 leaves a loss out; all but cross-entropy
// compare with the teacher (src/distill).
struct LossWeight {
  double first = 0;  // At the first step
  double last = -1;  // At the last one, linear in between; negative: as the first

  bool IsUsed() const { return first > 0 || last > 0; }
};
struct DivergenceConfig {
  LossWeight weight;
  double temperature = 1;
  bool tau_squared = true;  // Multiply by temperature^2
};
struct HiddenLossConfig {
  LossWeight weight;
  HiddenDistance distance = HiddenDistance::kMse;
  HiddenLayers layers = HiddenLayers::kLast;
};
struct RelationLossConfig {
  LossWeight weight;
  int64_t student_layer = -1;  // From the end when negative
  int64_t teacher_layer = -1;
  int64_t heads = 0;       // 0: the student's num_kv_heads
  double temperature = 0;  // 0: the square root of such a head's width
  bool normalize = false;
  RelationReduction reduction = RelationReduction::kMean;
};
// Weights that follow the losses' gradients (distill/balance.h).
struct BalanceConfig {
  BalanceBy by = BalanceBy::kNone;
  int64_t every = 10;      // Steps between two measurements
  double smoothing = 0.9;  // Share of the old mean that a measurement leaves
  double limit = 1000;     // Factors stay within 1 / limit and limit
};
// Steps that train on continuations written by a model instead of the text (distill/generate.h).
struct GeneratedConfig {
  GeneratedBy by = GeneratedBy::kNone;
  double share = 0.5;         // Of the steps
  int64_t prompt_tokens = 0;  // Of each sequence; 0: up to its first label
  int64_t tokens = 0;         // Written at most; 0: to the end of the sequence
  double temperature = 1;     // 0: the most probable token
};
struct LossesConfig {
  LossRows rows = LossRows::kLabels;
  LossWeight cross_entropy{1, -1};
  DivergenceConfig forward_kl, reverse_kl, jsd, topk_kl;
  double jsd_beta = 0.5;
  int64_t topk_k = 64;
  HiddenLossConfig hidden;
  RelationLossConfig relations;
  int64_t log_gradients_every = 0;  // Steps; 0: never
  BalanceConfig balance;
  GeneratedConfig generated;
};

// Fake quantizers in the linear layers (src/qat). Order: that of kWeightQuantizers in
// schema_quantize.cc.
enum class WeightQuantizer {
  kNone,
  kTernary,
  kInt8,
  kInt4,
  kInt3,
  kInt2,
  kFp8,
  kFp8Tensor,
  kFp8Block,
  kFp8E5m2,
  kFp8E5m2Tensor,
  kFp8E5m2Block,
  kNvfp4,
  kMxfp4,
  kQ4_0,
  kQ8_0,
  kLsq8,
  kLsq4,
  kLsq3,
  kSeq2,
  kSeqTernary,
  kSign,
};
std::span<const char* const> WeightQuantizerNames();
std::span<const char* const> InputQuantizerNames();

enum class Rounding { kNearest, kStochastic };
// Of integers: found in each step from the weights, or those of the model it starts from.
enum class ScaleSource { kWeights, kStart };
enum class InputQuantizer { kNone, kInt8, kInt4Absmean, kInt4Absmax, kInt8Dynamic, kFp8Dynamic };

struct QuantizeRule {
  std::string name;                         // Its key under quantize.rules
  std::vector<std::string> layers = {"*"};  // Globs over the names of linear layers
  WeightQuantizer weights = WeightQuantizer::kInt4;
  // Weights that share a scale, of kInt8 to kInt2 and of learned scales; 0: a row; -1: 64 of the
  // former, a row of the latter.
  int64_t group = -1;
  bool symmetric = true;
  ScaleSource scales = ScaleSource::kWeights;
  bool clipped_gradient = false;           // No gradient to a weight beyond the last level
  Rounding rounding = Rounding::kNearest;  // In training; what is evaluated and shipped: nearest
  InputQuantizer inputs = InputQuantizer::kNone;  // Of BitLinear kNone is its own int8
  bool hadamard = false;                          // Inputs are rotated first (BitNet v2)

  int64_t Group() const;  // `group`, and what its -1 means
};

enum class QuantizeWarmup { kLinear, kExponential, kSigmoid };

struct QuantizeConfig {
  std::vector<QuantizeRule> rules;  // The last that matches a layer has it
  int64_t warmup_steps = 0;         // Weights (and inputs of BitLinear) go over to quantized ones
  QuantizeWarmup warmup = QuantizeWarmup::kLinear;
  std::vector<std::string> progressive;  // Quantizers of every rule before its own
  double progressive_until = 0.5;        // Share of the steps in which they take turns
};

struct LoraConfig {                         // Low-rank adapters: everything else stays as it is
  int64_t rank = 0;                         // 0: none
  double alpha = 16;                        // The adapter's product counts alpha / rank times
  std::vector<std::string> layers = {"*"};  // As in quantize.rules
};

struct TrainStage {
  std::string id = "train";
  int64_t steps = 300;
  int64_t tokens_per_step = 4096;  // B * T * accumulation * ranks
  int64_t sequence_length = 256;   // T
  int64_t micro_batch =
      0;  // B, sequences a forward; 0: tokens_per_step in one forward if at most 8 sequences
  Precision precision = Precision::kBf16;
  std::string device = "auto";  // auto | cpu | cuda
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  LossScalingConfig loss_scaling;
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::kNone;
  AttentionBackend attention = AttentionBackend::kAuto;
  int64_t loss_chunk_tokens = 512;  // Rows of logits held at once by the chunked cross-entropy
  int64_t eval_every = 100;         // Steps; 0: only at the end
  int64_t eval_tokens = 65536;      // Validation tokens of a periodic evaluation; 0: all
  int64_t checkpoint_every = 100;   // Steps
  int64_t keep_last = 2;
  bool checkpoint_async = false;
  bool keep_best = true;      // By validation loss
  int64_t health_every = 20;  // Steps between ternary health records
  FaultPolicy faults;
  LossesConfig losses;
  QuantizeConfig quantize;
  std::vector<std::string> freeze;  // Globs over parameters that stay as they are (frozen.h)
  LoraConfig lora;
};

// ---- other stages
// --------------------------------------------------------------------------------------------------
struct PrepareStage {
  std::string id = "prepare";
};
struct EvalStage {
  std::string id = "eval";
  std::string split = "validation";  // perplexity: {split: ...}
  int64_t tokens = 0;                // 0: all
  bool recovery = false;  // Beside it the teacher (or model.from) and the untrained start
};
struct ExportStage {
  std::string id = "export";
  std::vector<std::string> formats;  // gguf/tq2_0, hf/bitnet, ...: arch/format_rules.cc has all
  std::string embedding = "f16";     // Type of embedding and head in GGUF: f16 | f32 | q8_0
  std::string checkpoint = "last";   // last | best
};
// Of the training before it, or without one of model.from; into the run's exports folder.
struct QuantizeStage : QuantizeSettings {
  std::string id = "quantize";
  std::string checkpoint = "last";  // last | best
};
struct VerifyStage {
  std::string id = "verify";
  int64_t tokens = 64;  // Validation tokens whose logits are compared, of exports
};
struct GenerateStage {
  std::string id = "generate";
  std::string prompt = "To be, or not";
  int64_t tokens = 64;
  double temperature = 0.0;  // 0: greedy
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;
};
struct ReportStage {
  std::string id = "report";
};

using Stage = std::variant<PrepareStage, TrainStage, EvalStage, ExportStage, VerifyStage,
                           GenerateStage, ReportStage, QuantizeStage>;

// ---- ranks
// ---------------------------------------------------------------------------------------------------------
enum class DataSplit { kAuto };
enum class Sharding {
  kNone,   // Every rank holds everything; gradients are summed
  kZero1,  // Optimizer state is spread over the ranks
  kZero2,  // And gradients
  kZero3   // And the linear layers' latents: forward gathers their 2-bit codes
};
enum class ReduceType { kFp32, kBf16 };

struct ParallelConfig {
  DataSplit data = DataSplit::kAuto;  // Each rank takes its share of every step's sequences
  // Ranks next to each other that share every product of attention and FFN (tensor parallelism):
  // they run the same sequences, each with a part of the heads and of the FFN; 1: none
  int64_t tensor = 1;
  Sharding shard = Sharding::kNone;
  // Hybrid: so many ranks, next to each other, spread the state among themselves, and groups of
  // them hold the same; 0: all ranks are one group
  int64_t shard_size = 0;
  ReduceType reduce = ReduceType::kFp32;  // Of gradients on their way between ranks when sharded
  double bucket_mib = 25;                 // shard none: gradients that are summed in one go
  double start_timeout_s = 600;           // For all ranks to arrive
  double first_step_timeout_s = 1800;     // Of one exchange before the first step is done
  double step_timeout_s = 300;            // Of one exchange after it
  double lost_after_s = 30;               // Without a sign of life a rank is lost
};

// ---- the job
// -------------------------------------------------------------------------------------------------------
struct BudgetConfig {  // 0: not limited
  double minutes = 0;
  double memory_gib = 0;
};
struct ExpectConfig {
  double validation_perplexity_below = 0;  // 0: nothing expected
};

// A model of a file or folder that the recipe names: anything that tern opens.
struct SourceModel {
  std::string from;  // Path; empty: none
  // Not keys; whoever opens the model fills them (job/start.h):
  std::string sha256;            // Of its files
  ModelConfig config;            // Its shape
  bool gives_tokenizer = false;  // The data is made with its tokenizer
  // Where the engine runs it, what it keeps of the weights: bytes, types of the layers ("Q4_1").
  int64_t weight_bytes = 0;
  std::string weight_types;
};

inline constexpr const char* kCrossEntropy = "cross_entropy";
struct NamedWeight {
  std::string name;  // Its key under losses
  LossWeight weight;
};
// The losses with a weight above 0 at the first or the last step, in the schema's order but
// cross-entropy last of those over the vocabulary.
std::vector<NamedWeight> UsedLosses(const LossesConfig& losses);
// Whether a loss compares with the teacher.
bool ComparesWithTeacher(const LossesConfig& losses);
// Cross-entropy alone, with weight 1.
bool IsPlain(const LossesConfig& losses);
// Whether a teacher is needed at all: it is compared with, or writes text.
bool UsesTeacher(const LossesConfig& losses);

struct Recipe {
  std::string name;  // Run folder: checkpoints/<name>
  int64_t seed = 42;
  int64_t threads = 0;  // 0: all processors
  ModelConfig model;    // vocab_size comes from data.tokenizer, or from `start`
  SourceModel start;    // model.from: whose parameters training starts with, and whose tokenizer
                        // is used; empty: random ones
  SourceModel teacher;  // teacher.from: what losses compare with; frozen
  Runtime teacher_runtime = Runtime::kLibtorch;  // teacher.runtime: fp32 weights, or as stored
  std::string teacher_store;  // teacher.store: folder that keeps what it says; empty: in memory
  DataConfig data;
  std::vector<Stage> stages;
  ParallelConfig parallel;
  BudgetConfig budget;
  ExpectConfig expect;
};

}  // namespace tern::recipe
