// The keys of a quantize stage (schema.h): the options of tern quantize under their names.
#include "recipe/schema_parts.h"

namespace tern::recipe {
namespace {

constexpr const char* kOrders[] = {"activation", "file"};

void DescribeOrder(FieldVisitor& v, bool& activation_order) {
  int index = activation_order ? 0 : 1;
  v.Choice("order", index, kOrders, {"gptq: columns with the largest inputs first, or the file's"});
  activation_order = index == 0;
}

void DescribeCalibration(FieldVisitor& v, QuantizeSettings& s) {
  v.Text("calibration", s.calibration,
         {"Text, JSONL, Parquet, *.tokens.h5 or Megatron *.idx; empty: the recipe's training text "
          "(never its validation text); none: without one"});
  v.Text("field", s.field, {"Key of the text in JSONL and Parquet"});
  v.Int("calibration_tokens", s.calibration_tokens, {"How many of it", "tokens", 1, 1e12});
  v.Int("sequence", s.sequence, {"Length of a calibration sequence", "tokens", 16, 1 << 24});
}

void DescribeSettings(FieldVisitor& v, QuantizeSettings& s) {
  v.Text("to", s.to, {"int4, w3, fp8, nvfp4, ...: a folder; q4_k_m, q8_0, ...: a GGUF file"});
  v.Text(
      "to_size", s.to_size,
      {"Instead of to: mixed types in so many bytes, such as 90MiB; a GGUF file, with container: "
       "compressed-tensors a folder"});
  v.Real("to_bits", s.to_bits,
         {"The same, of the file's bits for each weight; 0: not asked", "bits", 0, 32});
  v.Text("types", s.types,
         {"Of mixed types those that may be chosen: q4_0,q6_k or int4,w8; empty: all"});
  v.Int("group", s.group,
        {"Weights of a row that share a scale; 0: the row; -1: 128, or 64 or 32 where rows do not "
         "divide",
         "weights", -1, 1 << 20});
  v.Text("container", s.container, {"compressed-tensors (empty), gptq, gptq_v2, awq or fp8"});
  v.Text(
      "method", s.method,
      {"rtn, hqq, gptq, autoround, block_ap; of GGUF rtn, imatrix; empty: gptq or imatrix with a "
       "calibration"});
  v.Flag("min_max", s.min_max, {"Ranges from the largest weights, without a search"});
  v.Flag("rotate", s.rotate,
         {"Hadamard rotations go into the weights first, which unties a tied head"});
  v.Flag("channel_scales", s.channel_scales,
         {"Columns of inputs and weights are scaled first: AWQ, of int8 and fp8 SmoothQuant"});
  DescribeCalibration(v, s);
  v.Real("damping", s.gptq.damping,
         {"gptq: part of the Hessian's mean diagonal added to it", "", 1e-6, 1});
  DescribeOrder(v, s.gptq.activation_order);
  v.Int("rounds", s.gptq.rounds,
        {"gptq: turns of better scales and codes afterwards; 0: GPTQ as published", "", 0, 20});
  v.Int("steps", s.layer_steps,
        {"autoround, block_ap: steps of training a layer; 0: 200", "steps", 0, 100000});
  v.Int("batch", s.batch, {"Of steps and scale_steps", "sequences", 1, 1024});
  v.Real("weight_lr", s.block_ap.weight_lr, {"block_ap: learning rate of weights", "", 0, 1});
  v.Real("scale_lr", s.block_ap.scale_lr,
         {"block_ap: learning rate of scales and zero points", "", 0, 1});
  v.Int("scale_steps", s.scale_steps,
        {"Steps of training the scales of integers behind any method, codes fixed; 0: none",
         "steps", 0, 100000});
  v.Text("imatrix", s.imatrix, {"GGUF: importance matrix, read when it is there, else written"});
  v.Flag("pure", s.pure, {"GGUF: one type for all matrices"});
  v.Text("memory", s.memory,
         {"Limit of the whole process's memory, such as 2GiB; the activations of the calibration go "
          "to the disk where they do not fit; empty: none"});
  v.Flag("allow_requantize", s.allow_requantize, {"Take a source that is quantized already"});
  v.Real("max_kl", s.max_kl,
         {"A result whose mean KL to the source is larger is an error; 0: any", "nats", 0, 1e6});
}

}  // namespace

void DescribeQuantizeStage(FieldVisitor& v, QuantizeStage& s) {
  DescribeSettings(v, s);
  constexpr const char* kWhich[] = {"last", "best"};
  int index = s.checkpoint == "best" ? 1 : 0;
  v.Choice("checkpoint", index, kWhich, {"Of the training before it; without one: model.from"});
  s.checkpoint = kWhich[index];
}

}  // namespace tern::recipe
