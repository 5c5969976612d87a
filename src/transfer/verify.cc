// See verify.h.
#include "transfer/verify.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "quant/ternary.h"

namespace tern::transfer {
namespace {

// Largest relative error of a value that went through the type of a float tensor: half a unit of
// fp16's 11, bf16's 8 bits. Q8_0 is bounded by its block's maximum instead: half a step of 127, and
// the rounding of the step to fp16 as often as the code is large.
constexpr double kFp16Rounding = 0x1p-11, kBf16Rounding = 0x1p-8,
                 kQ8Rounding = (0.5 + 127 * 0x1p-11) / 127;
// The same where a number of fp16, or a step that is one, is too small to have all bits.
constexpr double kFp16Floor = 0x1p-24, kQ8Floor = 127 * 0x1p-24;

[[noreturn]] void Differs(const std::string& name, const std::string& what) {
  throw NumericError(StrCat("the export differs from its checkpoint in ", name, ": ", what));
}

// How files hold a scale. An imported model file has it as its source did: both are possible.
enum class ScaleForm { kPlain, kInverse, kEither };

ScaleForm FormOf(const std::string& format) {
  if (format == "hf/bitnet") return ScaleForm::kInverse;
  return format.empty() ? ScaleForm::kEither : ScaleForm::kPlain;
}

void CompareTernary(const model::Parameter& parameter, const engine::TernaryMatrix& found,
                    ScaleForm form) {
  const quant::TernaryWeight want = quant::QuantizeTernary(parameter.value.detach());
  const std::string& name = parameter.spec.name;
  const size_t bytes = static_cast<size_t>(want.t2_NC.numel());
  if (found.t2.size() != bytes)
    Differs(name, StrCat(found.t2.size(), " packed bytes, want ", bytes));
  const uint8_t* codes = want.t2_NC.const_data_ptr<uint8_t>();
  for (size_t i = 0; i < bytes; ++i) {
    if (found.t2[i] == codes[i]) continue;
    Differs(name, StrCat("packed byte ", i, " is ", int{found.t2[i]}, ", want ", int{codes[i]}));
  }
  const float inverse = 1.0f / (1.0f / want.beta);
  const bool equal = (form != ScaleForm::kInverse && found.scale == want.beta) ||
                     (form != ScaleForm::kPlain && found.scale == inverse);
  if (!equal) {
    Differs(name, StrCat("scale ", found.scale, ", want ", want.beta, " (",
                         double{found.scale} / double{want.beta} - 1, " of it more)"));
  }
}

// How far a value may be: `relative` to itself, or to the largest value of its row when `of_row`.
struct Tolerance {
  double relative = 0, absolute = 0;
  bool of_row = false;
};

void CompareFloats(const std::string& name, const at::Tensor& want, const std::vector<float>& found,
                   const Tolerance& tolerance) {
  if (static_cast<int64_t>(found.size()) != want.numel())
    Differs(name, StrCat(found.size(), " values"));
  const at::Tensor flat = want.detach().contiguous();
  const float* values = flat.const_data_ptr<float>();
  const int64_t k = want.size(-1);
  for (int64_t begin = 0; begin < want.numel(); begin += k) {
    double highest = 0;
    for (int64_t i = begin; i < begin + k; ++i)
      highest = std::max(highest, std::fabs(double{values[i]}));
    for (int64_t i = begin; i < begin + k; ++i) {
      const double size = tolerance.of_row ? highest : std::fabs(double{values[i]});
      const double limit = tolerance.relative * size + tolerance.absolute;
      const double error = std::fabs(double{found[static_cast<size_t>(i)]} - double{values[i]});
      if (!(error <= limit)) {
        Differs(name, StrCat("element ", i, " is ", found[static_cast<size_t>(i)], ", want ",
                             values[i], " within ", limit));
      }
    }
  }
}

// What a file of a matrix with these inputs asks of whoever runs it.
engine::InputRounding RoundingOf(const model::Decoder& decoder, const std::string& name) {
  using Code = engine::InputRounding::Code;
  const auto found = decoder.inputs().find(name);
  if (found == decoder.inputs().end()) return {};
  const nn::InputTransform& inputs = found->second;
  if (!inputs.hadamard && inputs.codes == nn::InputCodes::kInt8Dynamic) return {Code::kInt8, 0, 0};
  if (!inputs.hadamard && inputs.codes == nn::InputCodes::kFp8Dynamic)
    return {Code::kFp8E4m3, 0, 0};
  return {Code::kOther, 0, 0};  // No format has it
}

void CompareInputs(const model::Decoder& decoder, const std::string& name,
                   const engine::LinearMatrix& matrix) {
  const auto* scaled = std::get_if<engine::ScaledMatrix>(&matrix);
  const engine::InputRounding found = scaled != nullptr ? scaled->input : engine::InputRounding{};
  if (found == RoundingOf(decoder, name)) return;
  Differs(name, "the file asks for another rounding of its inputs than was trained");
}

// Of the dense matrices of a format, and of everything in a folder.
Tolerance FloatRounding(const std::string& format) {
  if (format.ends_with("/bf16")) return {kBf16Rounding, kFp16Floor};
  return format.ends_with("/f16") ? Tolerance{kFp16Rounding, kFp16Floor} : Tolerance{};
}

// What embedding and head may have lost, by the type that the file has them in.
Tolerance TableTolerance(const engine::TableMatrix& table) {
  const auto* blocks = std::get_if<engine::BlockMatrix>(&table);
  if (blocks == nullptr) return {};
  switch (blocks->type) {
    case formats::GgmlType::kF16:
      return {kFp16Rounding, kFp16Floor};
    case formats::GgmlType::kBf16:
      return {kBf16Rounding, kFp16Floor};
    case formats::GgmlType::kQ8_0:
      return {kQ8Rounding, kQ8Floor, true};
    default:
      return {};
  }
}

// Mean KL of the decoder's logits to those with its first norm's gain changed by 2^-23 of itself,
// up or down.
double KlOfLastBits(const model::Decoder& decoder, const model::DecoderInput& input,
                    const at::Tensor& logits_TV) {
  const std::string norm = decoder.config().HasPreNorms()
                               ? "input_layernorm"
                               : OwnNorm(decoder.config(), "self_attn.q_proj");
  const std::string name = StrCat("model.layers.0.", norm, ".weight");
  const RandomStream random(0, "last bits");
  const at::Tensor gain_D = decoder.Get(name).detach().clone();
  float* gain = gain_D.mutable_data_ptr<float>();
  for (int64_t i = 0; i < gain_D.numel(); ++i)
    gain[i] *= random.At(static_cast<uint64_t>(i)) % 2 == 0 ? 1 + 0x1p-23f : 1 - 0x1p-23f;
  const at::Tensor other_TV = decoder.With({{name, gain_D}}).Logits(input, {});
  return KlOfRows(logits_TV, other_TV).mean().item<double>();
}

}  // namespace

at::Tensor KlOfRows(const at::Tensor& ours_TV, const at::Tensor& theirs_TV) {
  constexpr int64_t kRows = 16;  // At once: 40 bytes a logit
  const int64_t count = ours_TV.size(0);
  const at::Tensor kl_T = at::empty({count}, at::kDouble);
  for (int64_t begin = 0; begin < count; begin += kRows) {
    const int64_t end = std::min(begin + kRows, count);
    const auto log_of = [&](const at::Tensor& logits_TV) {
      return at::log_softmax(logits_TV.slice(0, begin, end).to(at::kDouble), 1);
    };
    const at::Tensor p_RV = log_of(ours_TV), q_RV = log_of(theirs_TV);
    kl_T.slice(0, begin, end).copy_((p_RV.exp() * (p_RV - q_RV)).sum(1));
  }
  return kl_T;
}

WeightReport CompareWeights(const model::Decoder& decoder, const engine::ModelWeights& weights,
                            const std::string& format) {
  WeightReport report;
  const bool gguf = !format.starts_with("hf/");
  for (const model::Parameter& parameter : decoder.parameters()) {
    const std::string& name = parameter.spec.name;
    if (parameter.spec.role == ParameterRole::kEmbedding ||
        parameter.spec.role == ParameterRole::kHead) {
      const bool embedding = parameter.spec.role == ParameterRole::kEmbedding;
      if (!embedding && !weights.head) Differs(name, "the file has no head of its own");
      const engine::TableMatrix& table = embedding ? weights.embedding : *weights.head;
      CompareFloats(name, parameter.value, engine::ValuesOf(table), TableTolerance(table));
      report.floats += parameter.spec.Count();
      continue;
    }
    if (parameter.spec.role == ParameterRole::kNorm ||
        parameter.spec.role == ParameterRole::kBias) {
      CompareFloats(name, parameter.value, engine::VectorOf(weights, name),
                    gguf ? Tolerance{} : FloatRounding(format));
      report.floats += parameter.spec.Count();
      continue;
    }
    const engine::LinearMatrix& matrix = engine::LinearOf(weights, name);
    if (const auto* ternary = std::get_if<engine::TernaryMatrix>(&matrix)) {
      CompareTernary(parameter, *ternary, FormOf(format));
      ++report.matrices;
      report.codes += parameter.spec.Count();
      continue;
    }
    if (decoder.config().linear == LinearKind::kBitLinear)
      Differs(name, "the file holds a dense matrix");
    CompareInputs(decoder, name, matrix);
    CompareFloats(name, parameter.value, engine::ValuesOf(matrix), FloatRounding(format));
    report.floats += parameter.spec.Count();
  }
  return report;
}

void CompareTokenizers(const text::Tokenizer* tokenizer, const engine::ModelWeights& weights) {
  if (tokenizer == nullptr) return;
  if (!weights.tokenizer) Differs("the tokenizer", "the file has none");
  const text::PieceTable &want = tokenizer->table(), &found = weights.tokenizer->table();
  if (found.pieces.size() != want.pieces.size())
    Differs("the tokenizer", StrCat(found.pieces.size(), " pieces, want ", want.pieces.size()));
  for (size_t id = 0; id < want.pieces.size(); ++id) {
    // A free id has no text, which GGUF must give it.
    const bool free_id = want.pieces[id].empty() && want.types[id] == text::PieceType::kUnused;
    const bool equal = (found.pieces[id] == want.pieces[id] || free_id) &&
                       found.types[id] == want.types[id] && found.scores[id] == want.scores[id];
    if (!equal) {
      Differs("the tokenizer",
              StrCat("piece ", id, " is \"", found.pieces[id], "\" of score ", found.scores[id],
                     ", want \"", want.pieces[id], "\" of score ", want.scores[id]));
    }
  }
  // A byte-level vocabulary with all bytes never comes to its unknown token, which GGUF drops.
  const bool byte_level = want.kind == text::ModelKind::kJsonBpe;
  const auto rules = [&](const text::PieceTable& t) {
    return StrCat("unknown ", byte_level ? -1 : t.unk_id, ", BOS ", t.bos_id, ", EOS ", t.eos_id,
                  ", space prefix ", t.add_space_prefix, ", fewer spaces ",
                  t.remove_extra_whitespaces);
  };
  if (rules(found) != rules(want))
    Differs("the tokenizer", StrCat(rules(found), "; want ", rules(want)));
}

namespace {

bool RoundsInputs(const model::Decoder& decoder) {
  return decoder.config().linear == LinearKind::kBitLinear || !decoder.inputs().empty();
}

}  // namespace

double MaxMeanKl(const model::Decoder& decoder, const std::string& format) {
  const bool exact = !RoundsInputs(decoder) && FloatRounding(format).relative == 0;
  return exact ? kMaxMeanKlExact : kMaxMeanKl;
}

LogitsReport CompareLogits(const model::Decoder& decoder, engine::ModelWeights weights,
                           const std::vector<int32_t>& tokens, int num_threads,
                           double max_mean_kl) {
  const at::NoGradGuard no_grad;
  const int64_t count = static_cast<int64_t>(tokens.size()), v = decoder.config().vocab_size;
  // The file's tables on the trainer's side: what they lost in fp16 is not what is compared here.
  model::Decoder copy(decoder.config());
  for (size_t i = 0; i < copy.parameters().size(); ++i) {
    const model::Parameter& parameter = copy.parameters()[i];
    const bool table = parameter.spec.role == ParameterRole::kEmbedding ||
                       parameter.spec.role == ParameterRole::kHead;
    if (table) {
      const bool head = parameter.spec.role == ParameterRole::kHead;
      const std::vector<float> values = engine::ValuesOf(head ? *weights.head : weights.embedding);
      std::memcpy(parameter.value.data_ptr(), values.data(), values.size() * sizeof(float));
    } else {
      parameter.value.copy_(decoder.parameters()[i].value);
    }
  }
  model::DecoderInput input;
  input.tokens_BT = at::empty({1, count}, at::kLong);
  for (int64_t i = 0; i < count; ++i)
    input.tokens_BT.mutable_data_ptr<int64_t>()[i] = tokens[static_cast<size_t>(i)];
  copy = copy.WithInputs(decoder.inputs());
  const at::Tensor ours_TV = copy.Logits(input, {});
  // How the engine rounds activations for small codes (docs/adr/0004) is no matter of the file.
  if (decoder.config().linear != LinearKind::kBitLinear)
    engine::SetActivations(decoder.inputs().empty() ? engine::CodeActivations::kFloat
                                                    : engine::CodeActivations::kFolder,
                           &weights);
  const engine::Engine engine(std::move(weights), num_threads);
  std::vector<float> theirs = engine::Session(engine, count).Append(tokens, engine::LogitsOf::kAll);
  const at::Tensor theirs_TV = at::from_blob(theirs.data(), {count, v}, at::kFloat);

  const at::Tensor kl_T = KlOfRows(ours_TV, theirs_TV);
  LogitsReport report;
  report.tokens = count;
  report.mean_kl = kl_T.mean().item<double>();
  report.max_kl = kl_T.max().item<double>();
  report.max_difference = (ours_TV - theirs_TV).abs().max().item<double>();
  report.top1_agreement =
      (ours_TV.argmax(1) == theirs_TV.argmax(1)).to(at::kDouble).mean().item<double>();
  report.bound_mean_kl = max_mean_kl;
  if (report.mean_kl > max_mean_kl && RoundsInputs(copy)) {
    report.bound_mean_kl = std::max(max_mean_kl, kLastBits * KlOfLastBits(copy, input, ours_TV));
    LogInfo("last bits decide in this model: its logits are held to a mean KL of ",
            report.bound_mean_kl, ", ", kLastBits, " times what they do to its own forward");
  }
  if (!(report.mean_kl <= report.bound_mean_kl)) {
    throw NumericError(StrCat("the engine's logits are not the trainer's: mean KL ", report.mean_kl,
                              " over ", count, " tokens, the bound is ", report.bound_mean_kl));
  }
  return report;
}

}  // namespace tern::transfer
