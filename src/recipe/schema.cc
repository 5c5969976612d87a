// See schema.h.
#include "recipe/schema.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "recipe/schema_parts.h"

namespace tern::recipe {
namespace {

constexpr double kBillion = 1e9;
constexpr const char* kKinds[] = {"prepare", "train",    "eval",   "export",
                                  "verify",  "generate", "report", "quantize"};
static_assert(std::size(kKinds) == std::variant_size_v<Stage>);

constexpr const char* kActivations[] = {"silu", "relu2"};
constexpr const char* kLinears[] = {"dense", "bitlinear"};
constexpr const char* kSubNorms[] = {"none", "outputs", "every_linear", "every_linear_only"};
constexpr const char* kSourceFormats[] = {"auto",   "text",   "jsonl",    "json", "parquet",
                                          "shards", "tokens", "megatron", "llmc"};
constexpr const char* kSourceSplits[] = {"auto", "train", "validation"};
constexpr const char* kPackings[] = {"stream", "documents", "samples"};
constexpr const char* kRuntimes[] = {"libtorch", "engine"};
constexpr const char* kRecords[] = {"text", "messages", "completion"};
constexpr const char* kPrecisions[] = {"fp32", "bf16", "fp16"};
constexpr const char* kSchedules[] = {"two_stage", "cosine", "linear", "wsd", "constant"};
constexpr const char* kScalings[] = {"off", "static", "dynamic"};
constexpr const char* kCheckpointings[] = {"none", "block"};
constexpr const char* kAttentions[] = {"auto", "math", "flash", "memory_efficient", "cudnn"};
constexpr const char* kDevices[] = {"auto", "cpu", "cuda"};
constexpr const char* kSplits[] = {"validation", "train"};
constexpr const char* kEmbeddings[] = {"f16", "f32", "q8_0"};
constexpr const char* kExported[] = {"last", "best"};
constexpr const char* kBesideFrom[] = {"from", "context_length", "linear", "sub_norms"};
constexpr const char* kDataSplits[] = {"auto"};
constexpr const char* kShardings[] = {"none", "zero1", "zero2", "zero3"};
constexpr const char* kReduceTypes[] = {"fp32", "bf16"};
constexpr const char* kFaults[] = {"stop", "skip", "rollback"};

// A word kept as text. REQUIRES: value is one of names.
void Word(FieldVisitor& v, const char* key, std::string& value, ChoiceNames names,
          const Meta& meta) {
  const auto found = std::find(names.begin(), names.end(), value);
  TERN_CHECK(found != names.end(), key, " is ", value);
  int index = static_cast<int>(found - names.begin());
  v.Choice(key, index, names, meta);
  value = names[static_cast<size_t>(index)];
}

// The double whose shortest decimal is the float's: 1e-05, not 9.999999747378752e-06. Narrows back
// to the same float.
double Widened(float value) {
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  double wide = value;
  std::from_chars(buffer, end, wide);
  return wide;
}

void Float(FieldVisitor& v, const char* key, float& value, const Meta& meta) {
  double wide = Widened(value);
  v.Real(key, wide, meta);
  value = static_cast<float>(wide);
}

void DescribeOptimizer(FieldVisitor& v, OptimizerConfig& o) {
  v.Real("beta1", o.beta1, {"Decay of the mean of gradients (AdamW)", "", 0, 0.999999});
  v.Real("beta2", o.beta2, {"Decay of the mean of squared gradients", "", 0, 0.9999999});
  v.Real("epsilon", o.epsilon, {"Keeps the division finite", "", 1e-20, 1});
  v.Real("weight_decay", o.weight_decay,
         {"Pull of matrices towards 0; norms and embeddings never decay", "", 0, 10});
  v.Real("weight_decay_until", o.weight_decay_until,
         {"After this share of the steps the decay is 0, as b1.58 does at its switch; 1 keeps it",
          "share of steps", 0, 1});
  v.Real("clip_norm", o.clip_norm,
         {"Gradients longer than this are shortened to it; 0 switches clipping off", "", 0, 1e9});
  v.Real("scale_lr_factor", o.scale_lr_factor,
         {"Learning rate of learned scales (quantize.rules: lsq, seq, sign) over the schedule's",
          "", 0, 1e6});
  v.Flag("offload", o.offload,
         {"Training on a GPU: moments stay in host memory and updates are made there; 8 bytes a "
          "parameter less on the GPU, 12 over its bus in each step",
          "", 0, 0, true});
}

void DescribeSchedule(FieldVisitor& v, ScheduleConfig& s) {
  Choice(v, "kind", s.kind, kSchedules,
         {"Shape of the learning rate; two_stage is BitNet b1.58's"});
  v.Real("peak_lr", s.peak_lr, {"Rate after warm-up", "", 1e-10, 100});
  v.Real("second_lr", s.second_lr,
         {"two_stage: rate at the switch, from which stage 2 falls", "", 0, 100});
  v.Real("final_lr", s.final_lr, {"Rate at the last step", "", 0, 100});
  v.Real("switch_at", s.switch_at,
         {"two_stage: where stage 2 begins", "share of steps", 0.01, 0.99});
  v.Real("decay_share", s.decay_share,
         {"wsd: length of the final decay", "share of steps", 0.001, 1});
  v.Int("warmup_steps", s.warmup_steps, {"Linear rise from 0", "steps", 0, kBillion});
}

void DescribeScaling(FieldVisitor& v, LossScalingConfig& s) {
  Choice(v, "mode", s.mode, kScalings,
         {"Multiplies the loss so that small fp16 gradients survive; bf16 rarely needs it"});
  v.Real("initial", s.initial, {"First scale; the scale itself when static", "", 1e-6, 1e12});
  v.Real("growth", s.growth, {"Factor after growth_interval good steps", "", 1, 1e6});
  v.Real("backoff", s.backoff, {"Factor after an overflow", "", 1e-6, 0.999});
  v.Int("growth_interval", s.growth_interval,
        {"Good steps in a row before it grows", "steps", 1, kBillion});
  v.Real("floor", s.floor, {"A dynamic scale below this stops the run", "", 1e-9, 1e12});
}

void DescribeFaults(FieldVisitor& v, FaultPolicy& f) {
  Choice(v, "nonfinite", f.nonfinite, kFaults,
         {"When loss or gradients are NaN or Inf (without loss scaling)"});
  Choice(v, "spike", f.spike, kFaults, {"When the loss jumps above spike_sigmas"});
  v.Real("spike_sigmas", f.spike_sigmas,
         {"Height of a spike above the running mean; 0: not looked for", "sigma", 0, 1e6});
  v.Int("max_events", f.max_events,
        {"More faults than these stop the run, whatever the action", "faults", 0, kBillion});
}

void DescribeParallel(FieldVisitor& v, ParallelConfig& p) {
  Choice(v, "data", p.data, kDataSplits,
         {"Each rank takes its share of every step's sequences", "", 0, 0, true});
  v.Int("tensor", p.tensor,
        {"Tensor parallelism: ranks next to each other that share every product of attention and "
         "FFN and run the same sequences; the others are data parallel. Divides the ranks, "
         "model.num_kv_heads and model.intermediate_size",
         "ranks", 1, 1024, true});
  Choice(v, "shard", p.shard, kShardings,
         {"What is spread over the ranks: nothing, optimizer state (zero1), and gradients (zero2), "
          "and the BitLinear layers' latents (zero3)",
          "", 0, 0, true});
  v.Int(
      "shard_size", p.shard_size,
      {"Sharded: ranks next to each other (such as those of one machine) that spread the state "
       "among themselves, while groups of them hold the same (hybrid); 0: all ranks are one group",
       "ranks", 0, 1 << 20, true});
  Choice(v, "reduce", p.reduce, kReduceTypes,
         {"Sharded: type of gradients on their way; they are added in fp32", "", 0, 0, true});
  v.Real("bucket_mib", p.bucket_mib,
         {"Not sharded: gradients summed in one go", "MiB", 0.001, 4096, true});
  v.Real("start_timeout_s", p.start_timeout_s,
         {"For all ranks to arrive", "seconds", 1, 1e6, true});
  v.Real("first_step_timeout_s", p.first_step_timeout_s,
         {"Of one exchange between ranks until a stage's first step is done: ranks load and start "
          "at their own pace",
          "seconds", 1, 1e6, true});
  v.Real("step_timeout_s", p.step_timeout_s,
         {"Of one exchange between ranks after it", "seconds", 1, 1e6, true});
  v.Real("lost_after_s", p.lost_after_s,
         {"A rank without a sign of life for so long is lost", "seconds", 3, 1e6, true});
}

void DescribeTrain(FieldVisitor& v, TrainStage& t) {
  v.Int(
      "steps", t.steps,
      {"Updates of the whole stage; may grow between two starts", "optimizer steps", 1, kBillion});
  v.Int("tokens_per_step", t.tokens_per_step,
        {"Batch: sequences x length x accumulation, all ranks", "tokens", 1, kBillion});
  v.Int("sequence_length", t.sequence_length, {"Context seen in training", "tokens", 1, 1 << 24});
  v.Int(
      "micro_batch", t.micro_batch,
      {"Sequences a forward pass; 0: up to 8. Lower it to save memory", "sequences", 0, kBillion});
  Choice(v, "precision", t.precision, kPrecisions,
         {"Operands of dense products; masters and sums stay fp32"});
  Word(v, "device", t.device, kDevices,
       {"Where it is trained, and evaluated after it; auto takes a GPU where there is one for each "
        "rank of a machine",
        "", 0, 0, true});
  Section(v, "optimizer", t.optimizer, "AdamW", DescribeOptimizer);
  Section(v, "schedule", t.schedule, "Learning rate over the steps", DescribeSchedule);
  Section(v, "loss_scaling", t.loss_scaling, "For fp16", DescribeScaling);
  Choice(v, "activation_checkpointing", t.activation_checkpointing, kCheckpointings,
         {"block keeps only each block's input and runs it again: less memory, a third more work"});
  Choice(v, "attention", t.attention, kAttentions,
         {"Back end of attention; memory_efficient and cudnn want a GPU"});
  v.Int("loss_chunk_tokens", t.loss_chunk_tokens,
        {"Rows of logits held at once", "tokens", 1, kBillion});
  v.Int("eval_every", t.eval_every,
        {"Between two evaluations; 0: only at the end", "steps", 0, kBillion, true});
  v.Int("eval_tokens", t.eval_tokens,
        {"Length of a periodic evaluation; 0: all", "tokens", 0, 1e12, true});
  v.Int("checkpoint_every", t.checkpoint_every,
        {"Between two checkpoints", "steps", 1, kBillion, true});
  v.Int("keep_last", t.keep_last, {"Newest checkpoints kept", "checkpoints", 1, 1000, true});
  v.Flag("checkpoint_async", t.checkpoint_async,
         {"Training goes on while a copy of its state (12 bytes a parameter) is written", "", 0, 0,
          true});
  v.Flag("keep_best", t.keep_best, {"Also keep the one of lowest validation loss", "", 0, 0, true});
  v.Int("health_every", t.health_every,
        {"Between two ternary health records; 0: none", "steps", 0, kBillion, true});
  Section(v, "faults", t.faults, "What to do when numbers go bad", DescribeFaults);
  Section(v, "losses", t.losses, "What is minimised: a weighted sum (docs/distillation.md)",
          DescribeLosses);
  Section(v, "quantize", t.quantize, "Fake quantization of linear layers (docs/distillation.md)",
          DescribeQuantize);
  v.Texts("freeze", t.freeze,
          {"Parameters that stay as they are: globs over names (model.embed_tokens) or their last "
           "part (down_proj, *norm)"});
  Section(v, "lora", t.lora, "Low-rank adapters, trained instead of the model", DescribeLora);
}

void DescribeStage(FieldVisitor&, PrepareStage&) {}
void DescribeStage(FieldVisitor& v, TrainStage& s) { DescribeTrain(v, s); }
void DescribeStage(FieldVisitor& v, EvalStage& s) {
  v.Enter("perplexity", {"exp of the mean negative log-likelihood, every token predicted once"});
  Word(v, "split", s.split, kSplits, {"Documents that are read"});
  v.Int("tokens", s.tokens, {"Predicted tokens at most; 0: all", "tokens", 0, 1e12});
  v.Leave();
  v.Flag("recovery", s.recovery,
         {"Also the teacher (without one: model.from), KL to it, block by block, and what training "
          "won back of the loss that quantizing model.from costs"});
}
void DescribeStage(FieldVisitor& v, ExportStage& s) {
  v.Texts(
      "formats", s.formats,
      {.why = "gguf/tq2_0, gguf/tq1_0, gguf/i2_s, gguf/f32, gguf/f16, gguf/bf16, "
              "gguf/quantized, hf/bitnet, hf/autobitnet, hf/compressed_tensors, hf/f32, hf/f16, "
              "hf/bf16, tern/model",
       .required = true});
  Word(v, "embedding", s.embedding, kEmbeddings,
       {"Type of embedding and head in GGUF and model files"});
  Word(v, "checkpoint", s.checkpoint, kExported, {"Which checkpoint of the training is shipped"});
}
void DescribeStage(FieldVisitor& v, VerifyStage& s) {
  v.Int("tokens", s.tokens, {"Validation tokens whose logits are compared", "tokens", 1, 1 << 20});
}
void DescribeStage(FieldVisitor& v, GenerateStage& s) {
  v.Text("prompt", s.prompt, {"What the model continues"});
  v.Int("tokens", s.tokens, {"New tokens at most", "tokens", 1, 1 << 20});
  v.Real("temperature", s.temperature, {"0: greedy", "", 0, 100});
  v.Int("top_k", s.top_k, {"Keep the k most probable; 0: all", "tokens", 0, 1 << 24});
  v.Real("top_p", s.top_p, {"Keep the fewest that reach this probability", "", 0, 1});
}
void DescribeStage(FieldVisitor&, ReportStage&) {}
void DescribeStage(FieldVisitor& v, QuantizeStage& s) { DescribeQuantizeStage(v, s); }

}  // namespace

namespace {

void DescribeContext(FieldVisitor& v, ModelConfig& m, bool required) {
  v.Int("context_length", m.context_length,
        {.why = "Longest sequence the model runs",
         .unit = "tokens",
         .low = 1,
         .high = 1 << 24,
         .required = required});
}

void DescribeKind(FieldVisitor& v, ModelConfig& m) {
  Choice(v, "linear", m.linear, kLinears, {"bitlinear: ternary weights and int8 activations"});
  Choice(v, "sub_norms", m.sub_norms, kSubNorms,
         {"RMSNorms right before linear layers. none: LLaMA's pre-norms alone (false before); "
          "outputs: before o_proj and down_proj, as "
          "b1.58-2B-4T (true before); every_linear: before each, behind the pre-norms; "
          "every_linear_only: before "
          "each, without pre-norms (BitNet's Training Tips)"});
}

}  // namespace

std::span<const char* const> KeysBesideFrom() { return kBesideFrom; }

void DescribeModel(FieldVisitor& v, Recipe& r) {
  v.Text("from", r.start.from,
         {"A model to start from: GGUF file, Hugging Face folder, model file or checkpoint. Shape "
          "and tokenizer are its own; beside it only context_length, linear and sub_norms",
          "", 0, 0, true});
  ModelConfig& m = r.model;
  if (!r.start.from.empty()) {
    DescribeContext(v, m, false);
    DescribeKind(v, m);
    return;
  }
  const auto size = [&](const char* key, int64_t& value, const char* why, const char* unit,
                        double high) {
    v.Int(key, value, {.why = why, .unit = unit, .low = 1, .high = high, .required = true});
  };
  size("hidden_size", m.hidden_size, "Width D", "", 1 << 20);
  size("intermediate_size", m.intermediate_size, "Width of the gated FFN", "", 1 << 20);
  size("num_layers", m.num_layers, "Decoder blocks", "", 10000);
  size("num_heads", m.num_heads, "Query heads", "", 10000);
  size("num_kv_heads", m.num_kv_heads, "Key and value heads; divides num_heads", "", 10000);
  v.Int("head_dim", m.head_dim, {"Width of a head; 0: hidden_size / num_heads", "", 0, 1 << 20});
  DescribeContext(v, m, true);
  Float(v, "rope_theta", m.rope_theta, {"Base of the rotary frequencies", "", 1, 1e12});
  Float(v, "norm_eps", m.norm_eps, {"Keeps RMSNorm finite", "", 1e-12, 1});
  Choice(v, "activation", m.activation, kActivations,
         {"Gate of the FFN; relu2 runs in Microsoft's fork of llama.cpp only"});
  DescribeKind(v, m);
  v.Flag("qk_norm", m.qk_norm, {"RMSNorm over each head of q and k, as Qwen3"});
  v.Flag("tied_head", m.tied_head, {"The head is the embedding"});
  Float(v, "init_std", m.init_std,
        {"Standard deviation of every matrix at the start", "", 1e-6, 10});
}

namespace {

void DescribeSource(FieldVisitor& v, SourceConfig& s) {
  v.Texts("files", s.files,
          {.why = "Files or globs, relative to the current folder", .required = true});
  Choice(v, "format", s.format, kSourceFormats,
         {"What the files are; auto: by their names. shards: a manifest.json; tokens: .tokens.h5"});
  v.Text("text_field", s.text_field, {"Key or column that holds the text (JSON, Parquet)"});
  Choice(
      v, "record", s.record, kRecords,
      {"What a JSON object is: a text, a conversation for the chat template, or a prompt and its "
       "completion"});
  v.Text("messages_field", s.messages_field, {"messages: key of the list of {role, content}"});
  v.Text("prompt_field", s.prompt_field, {"completion: key of the prompt"});
  v.Text("completion_field", s.completion_field, {"completion: key of what follows it"});
  v.Flag("prompts_count", s.prompts_count,
         {"messages, completion: all tokens count in the loss, not the answers alone"});
  Choice(v, "split", s.split, kSourceSplits,
         {"Side of token files; auto: train, and of text the held-out documents"});
  v.Real("weight", s.weight,
         {"Share of the samples, relative to the other sources", "", 1e-9, 1e9});
}

// Sources are a map whose keys the user chooses.
void DescribeSources(FieldVisitor& v, std::vector<SourceConfig>& sources) {
  constexpr Meta kMeta{"Instead of files: text of any size and token files, mixed by weight"};
  std::vector<std::string> names;
  for (const SourceConfig& source : sources) names.push_back(source.name);
  names = v.Names("sources", std::move(names), kMeta);
  if (names.empty()) return;
  sources.resize(names.size());
  v.Enter("sources", kMeta);
  for (size_t i = 0; i < names.size(); ++i) {
    sources[i].name = names[i];
    v.Enter(names[i].c_str(), {"A source under a name of your choice"});
    DescribeSource(v, sources[i]);
    v.Leave();
  }
  v.Leave();
}

}  // namespace

void DescribeData(FieldVisitor& v, Recipe& r) {
  DataConfig& d = r.data;
  DescribeSources(v, d.sources);
  v.Text("fetch", d.fetch,
         {"Script in scripts/fetch that brings a public corpus; its folder is {fetched}"});
  v.Texts(
      "files", d.files,
      {.why = "UTF-8 text files or globs, a document each, relative to the current folder; held "
              "in memory. Required unless there are sources",
       .required = d.sources.empty()});
  v.Text("shards", d.shards,
         {"Folder in which sources of text are tokenized, one for several runs; empty: the run's",
          "", 0, 0, true});
  v.Int("shard_tokens", d.shard_tokens,
        {"Length of a shard: at most this is done again after a kill", "tokens", 1, 2e9});
  v.Real("validation_fraction", d.validation_fraction,
         {"Whole documents held out, chosen by seed", "share of bytes", 0, 0.99});
  v.Texts("validation_files", d.validation_files,
          {"Globs that name the held-out documents instead"});
  if (r.start.from.empty() && !r.teacher.gives_tokenizer) {  // Else it is that model's
    v.Enter("tokenizer", {"SentencePiece BPE with byte fallback"});
    v.Text("file", d.tokenizer.file, {"An existing model; empty: train one"});
    v.Int("vocab_size", d.tokenizer.vocab_size,
          {"Pieces of a trained tokenizer, 256 bytes included", "pieces", 260, 1 << 20});
    v.Leave();
  }
  v.Text("chat_template", d.chat_template,
         {"Jinja file that writes messages; empty: the template of the tokenizer's model"});
  Choice(v, "packing", d.packing, kPackings,
         {"documents: attention stops at document borders; samples: and whole documents are packed "
          "into samples"});
}

void Describe(FieldVisitor& v, Recipe& r) {
  v.Text("name", r.name, {.why = "Run folder: checkpoints/NAME", .required = true});
  v.Int("seed", r.seed, {"Of initialisation, data order and split", "", 0, 9e15});
  v.Int("threads", r.threads, {"0: all processors", "threads", 0, 4096, true});
  Section(v, "model", r, "What is trained", DescribeModel);
  v.Enter("teacher", {"A model whose distributions the student learns (docs/distillation.md)"});
  v.Text("from", r.teacher.from,
         {"GGUF file, Hugging Face folder, model file or checkpoint, of the same tokenizer", "", 0,
          0, true});
  Choice(v, "runtime", r.teacher_runtime, kRuntimes,
         {"libtorch: weights in fp32, any loss. engine: weights as the file has them, low-bit CPU "
          "kernels; losses over the vocabulary"});
  v.Text("store", r.teacher_store,
         {"Folder that keeps the teacher's top k of every sample: made when it is not there, then "
          "no teacher is in memory. For losses.topk_kl",
          "", 0, 0, true});
  v.Leave();
  Section(v, "data", r, "What it is trained on", DescribeData);
  Section(v, "parallel", r.parallel, "How several ranks share a training (docs/distributed.md)",
          DescribeParallel);
  v.Enter("budget", {"The planner refuses a job that does not fit"});
  v.Real("minutes", r.budget.minutes, {"0: not limited", "minutes", 0, 1e9, true});
  v.Real("memory_gib", r.budget.memory_gib,
         {"Of a rank; 0: its share of this machine's, or its GPU's", "GiB", 0, 1e6, true});
  v.Leave();
  v.Enter("expect", {"Checked at the end; missed: exit code 4"});
  v.Real("validation_perplexity_below", r.expect.validation_perplexity_below,
         {"0: nothing expected", "", 0, 1e12, true});
  v.Leave();
}

void Describe(FieldVisitor& v, Stage& stage) {
  v.Text("id", IdOf(stage), {"Name of the stage in overrides and files; its kind unless given"});
  std::visit([&](auto& s) { DescribeStage(v, s); }, stage);
}

std::span<const char* const> StageKinds() { return kKinds; }
const char* KindOf(const Stage& stage) { return kKinds[stage.index()]; }
std::string& IdOf(Stage& stage) {
  return std::visit([](auto& s) -> std::string& { return s.id; }, stage);
}
const std::string& IdOf(const Stage& stage) {
  return std::visit([](const auto& s) -> const std::string& { return s.id; }, stage);
}

Stage MakeStage(const std::string& kind) {
  const Stage stages[] = {PrepareStage{}, TrainStage{},    EvalStage{},   ExportStage{},
                          VerifyStage{},  GenerateStage{}, ReportStage{}, QuantizeStage{}};
  for (const Stage& stage : stages) {
    if (kind == KindOf(stage)) return stage;
  }
  throw BugError(StrCat("no stage kind ", kind));
}

}  // namespace tern::recipe
