// Continuations of prompts: what is kept, what is written and where it counts; greedy against whole
// forward passes, sampling against the softmax.
#include "distill/generate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "distill/objective.h"
#include "model/batch_input.h"

namespace tern::distill {
namespace {

constexpr int64_t kTokens = 10, kVocabulary = 40;

ModelConfig Config(LinearKind linear = LinearKind::kDense) {
  ModelConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.context_length = kTokens;
  config.linear = linear;
  config.init_std = 0.3f;
  return config;
}

model::Decoder Writer(LinearKind linear = LinearKind::kDense) {
  model::Decoder decoder(Config(linear));
  decoder.Initialize(4);
  return decoder;
}

data::Batch Prompts(int64_t batch) {
  RandomStream random(3, "tokens");
  data::Batch out;
  out.batch = batch;
  out.tokens = kTokens;
  for (int64_t i = 0; i < batch * kTokens; ++i) {
    out.inputs.push_back(static_cast<int32_t>(random.NextU64() % kVocabulary));
    out.targets.push_back(static_cast<int32_t>(random.NextU64() % kVocabulary));
  }
  return out;
}

WriteOptions Options(double temperature) {
  WriteOptions options;
  options.temperature = temperature;
  options.stream = "sampling/test";
  options.seed = 9;
  return options;
}

// The tokens of row `row` with the last target behind them.
std::vector<int32_t> Sequence(const data::Batch& batch, int64_t row) {
  const auto begin = batch.inputs.begin() + row * batch.tokens;
  std::vector<int32_t> all(begin, begin + batch.tokens);
  all.push_back(batch.targets[static_cast<size_t>((row + 1) * batch.tokens - 1)]);
  return all;
}

TEST(ContinueTest, GreedyIsTheArgmaxOfWholePasses) {
  for (const LinearKind linear : {LinearKind::kDense, LinearKind::kBitLinear}) {
    const model::Decoder writer = Writer(linear);
    const data::Batch prompts = Prompts(3);
    const std::vector<int64_t> lengths = {4, 1, kTokens};
    const data::Batch written = Continue(writer, prompts, lengths, Options(0));
    for (int64_t row = 0; row < 3; ++row) {
      const int64_t length = lengths[static_cast<size_t>(row)];
      const std::vector<int32_t> got = Sequence(written, row);
      for (int64_t t = 0; t < kTokens; ++t) {
        const auto index = static_cast<size_t>(row * kTokens + t);
        if (t < length) {
          EXPECT_EQ(written.inputs[index], prompts.inputs[index]);
        }
        EXPECT_EQ(written.targets[index], t + 1 < length ? -1 : got[static_cast<size_t>(t + 1)]);
      }
      const at::NoGradGuard no_grad;
      const model::DecoderInput input = model::InputOf(written, row, 1);
      const at::Tensor logits = writer.Logits(input, {});
      for (int64_t t = length; t <= kTokens; ++t) {
        // Another order of sums: the token is one of the highest logits, to rounding.
        const at::Tensor z = logits[t - 1];
        const double chosen = z[got[static_cast<size_t>(t)]].item<double>();
        const double slack = linear == LinearKind::kBitLinear ? 0.5 : 1e-4;
        EXPECT_GE(chosen, z.max().item<double>() - slack) << row << " " << t;
      }
    }
    EXPECT_TRUE(written.document_ids.empty() && written.positions.empty());
  }
}

// One token behind one prompt, 4,000 times: frequencies are the softmax's within 5 standard
// deviations.
TEST(ContinueTest, SamplesTheSoftmax) {
  constexpr int64_t kRows = 4000;
  const model::Decoder writer = Writer();
  data::Batch prompts = Prompts(1);
  data::Batch many = prompts;
  many.batch = kRows;
  many.tokens = 2;
  many.inputs.clear();
  for (int64_t row = 0; row < kRows; ++row) many.inputs.insert(many.inputs.end(), {7, 11});
  many.targets.assign(2 * kRows, 0);
  for (const double temperature : {1.0, 0.5}) {
    WriteOptions options = Options(temperature);
    options.tokens = 1;
    const data::Batch written = Continue(writer, many, std::vector<int64_t>(kRows, 2), options);
    std::map<int32_t, int64_t> counts;
    for (int64_t row = 0; row < kRows; ++row) ++counts[written.targets[2 * row + 1]];
    const at::NoGradGuard no_grad;
    const at::Tensor z =
        writer.Logits({at::tensor({7, 11}, at::kLong).view({1, 2}), {}, {}}, {})[1];
    const at::Tensor p = at::softmax(z.to(at::kDouble) / temperature, 0);
    for (int32_t token = 0; token < kVocabulary; ++token) {
      const double want = p[token].item<double>();
      const double deviation = std::sqrt(want * (1 - want) / kRows);
      EXPECT_NEAR(static_cast<double>(counts[token]) / kRows, want, 5 * deviation + 1e-9) << token;
    }
  }
}

TEST(ContinueTest, IsAPureFunctionOfSeedStepAndStream) {
  const model::Decoder writer = Writer();
  const data::Batch prompts = Prompts(4);
  const std::vector<int64_t> lengths(4, 3);
  const data::Batch first = Continue(writer, prompts, lengths, Options(1));
  EXPECT_EQ(Continue(writer, prompts, lengths, Options(1)).inputs, first.inputs);
  WriteOptions other = Options(1);
  other.step = 1;
  EXPECT_NE(Continue(writer, prompts, lengths, other).inputs, first.inputs);
  other = Options(1);
  other.seed = 10;
  EXPECT_NE(Continue(writer, prompts, lengths, other).inputs, first.inputs);
}

// Ranks write their rows: prompts of other lengths, one without, a stop token that some rows reach.
// Greedy choices and those of a uniform number are of the row in the batch, not in the part.
TEST(ContinueTest, RowsInPartsAreThoseOfTheWhole) {
  const data::Batch prompts = Prompts(6);
  const std::vector<int64_t> lengths = {4, 0, kTokens, 3, 6, 5};
  for (const LinearKind linear : {LinearKind::kDense, LinearKind::kBitLinear}) {
    const model::Decoder writer = Writer(linear);
    for (const double temperature : {0.0, 1.0}) {
      WriteOptions options = Options(temperature);
      options.step = 3;
      options.stop_token = Sequence(Continue(writer, prompts, lengths, options), 0)[6];
      const data::Batch whole = Continue(writer, prompts, lengths, options);
      data::Batch joined;
      joined.batch = 6;
      joined.tokens = kTokens;
      for (const auto& [first, rows] : {std::pair(0, 1), {1, 1}, {2, 4}}) {
        options.first_row = first;
        options.rows = rows;
        const data::Batch part = Continue(writer, prompts, lengths, options);
        EXPECT_EQ(part.batch, rows);
        joined.inputs.insert(joined.inputs.end(), part.inputs.begin(), part.inputs.end());
        joined.targets.insert(joined.targets.end(), part.targets.begin(), part.targets.end());
      }
      EXPECT_EQ(joined.inputs, whole.inputs);
      EXPECT_EQ(joined.targets, whole.targets);
      EXPECT_EQ(joined.Hash(), whole.Hash());
    }
  }
}

TEST(ContinueTest, StopsAtItsLengthAndAtTheStopToken) {
  const model::Decoder writer = Writer();
  const data::Batch prompts = Prompts(2);
  WriteOptions options = Options(0);
  const data::Batch whole = Continue(writer, prompts, {4, 0}, options);
  const std::vector<int32_t> text = Sequence(whole, 0);
  options.tokens = 3;
  const data::Batch three = Continue(writer, prompts, {4, 0}, options);
  for (int64_t t = 0; t < kTokens; ++t) {
    EXPECT_EQ(three.targets[static_cast<size_t>(t)],
              t >= 3 && t < 6 ? text[static_cast<size_t>(t + 1)] : -1);
    EXPECT_EQ(three.targets[static_cast<size_t>(kTokens + t)], -1);  // A row without a prompt
  }
  // The second written token ends the text, and counts.
  options.tokens = 0;
  options.stop_token = text[5];
  const data::Batch stopped = Continue(writer, prompts, {4, 0}, options);
  const int64_t end = text[4] == text[5] ? 4 : 5;
  for (int64_t t = 0; t < kTokens; ++t) {
    const auto index = static_cast<size_t>(t);
    EXPECT_EQ(stopped.targets[index], t >= 3 && t < end ? text[index + 1] : -1) << t;
    if (t > end) {
      EXPECT_EQ(stopped.inputs[index], text[5]);
    }
  }
}

TEST(ContinueTest, AWriterOfNanIsAnError) {
  model::Decoder writer = Writer();
  {
    const at::NoGradGuard no_grad;
    at::Tensor norm = writer.Get("model.norm.weight");
    norm[0] = NAN;
  }
  EXPECT_THROW(Continue(writer, Prompts(1), {2}, Options(1)), NumericError);
}

TEST(PromptTokensTest, ByCountOrByTheFirstLabelOfTheFirstDocument) {
  data::Batch batch = Prompts(2);
  recipe::GeneratedConfig config;
  config.prompt_tokens = 6;
  EXPECT_EQ(PromptTokens(config, batch, 0), 6);
  batch.document_ids = {0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 6, 6};
  EXPECT_EQ(PromptTokens(config, batch, 0), 4);
  EXPECT_EQ(PromptTokens(config, batch, 1), 6);
  config.prompt_tokens = 0;
  for (int64_t t = 0; t < 2; ++t) batch.targets[static_cast<size_t>(t)] = -1;
  EXPECT_EQ(PromptTokens(config, batch, 0), 3);  // Tokens 0 to 2; the label is that of token 3
  for (int64_t t = 0; t < 4; ++t) batch.targets[static_cast<size_t>(t)] = -1;
  EXPECT_EQ(PromptTokens(config, batch, 0), 0);  // Its label is in another document
}

TEST(IsGeneratedTest, DrawsItsShareOfTheSteps) {
  recipe::GeneratedConfig config;
  config.by = recipe::GeneratedBy::kStudent;
  config.share = 0.3;
  int64_t count = 0, same = 0;
  for (int64_t step = 0; step < 2000; ++step) {
    count += IsGenerated(config, 1, "train", step);
    same += IsGenerated(config, 1, "train", step) == IsGenerated(config, 2, "train", step);
  }
  EXPECT_NEAR(static_cast<double>(count) / 2000, 0.3, 5 * std::sqrt(0.21 / 2000));
  EXPECT_LT(same, 2000);
  config.share = 1;
  EXPECT_TRUE(IsGenerated(config, 1, "train", 7));
  config.by = recipe::GeneratedBy::kNone;
  EXPECT_FALSE(IsGenerated(config, 1, "train", 7));
}

// A step on the student's text: no cross-entropy, and the divergence there is the one of a plain
// step on that very text.
TEST(ObjectiveTest, AStepOnGeneratedTextIsAStepOnThatText) {
  recipe::TrainStage stage;
  stage.sequence_length = kTokens;
  stage.losses.reverse_kl.weight.first = 1;
  stage.losses.generated = {recipe::GeneratedBy::kStudent, 1.0, 3, 0, 1.0};
  const model::Decoder student = Writer();
  model::Decoder teacher(Config());
  teacher.Initialize(5);
  const auto clear = [&] {
    for (const model::Parameter& parameter : student.parameters())
      parameter.value.mutable_grad() = at::Tensor();
  };
  DecoderTeacher frozen(teacher);
  const Objective objective(stage, Config(), &frozen, nullptr, 9);
  const StepLosses got = objective.ForwardBackward(student, Prompts(2), 4, {});
  EXPECT_EQ(got.written_by, "student");
  EXPECT_EQ(got.written_tokens, 2 * (kTokens + 1 - 3));
  ASSERT_EQ(got.values.back().name, "cross_entropy");
  EXPECT_EQ(got.values.back().weight, 0);
  const at::Tensor gradient = student.Get("model.norm.weight").grad().clone();
  clear();

  WriteOptions options = Options(1);
  options.stream = "sampling/train";
  options.step = 4;
  const data::Batch text = Continue(student, Prompts(2), {3, 3}, options);
  EXPECT_EQ(text.Hash(), got.written_hash);
  stage.losses.generated = {};
  stage.losses.cross_entropy.first = 0;
  const Objective plain(stage, Config(), &frozen, nullptr, 9);
  const StepLosses want = plain.ForwardBackward(student, text, 4, {});
  EXPECT_EQ(want.written_by, "");
  EXPECT_EQ(want.values.front().value, got.values.front().value);
  EXPECT_TRUE(at::equal(student.Get("model.norm.weight").grad(), gradient));
  clear();

  // What the teacher writes is learned by cross-entropy.
  stage.losses.cross_entropy.first = 1;
  stage.losses.reverse_kl.weight.first = 0;
  stage.losses.generated = {recipe::GeneratedBy::kTeacher, 1.0, 3, 0, 0.0};
  const Objective by_teacher(stage, Config(), &frozen, nullptr, 9);
  const StepLosses sequence = by_teacher.ForwardBackward(student, Prompts(2), 4, {});
  EXPECT_EQ(sequence.written_by, "teacher");
  EXPECT_EQ(sequence.values.back().weight, 1);
  options.temperature = 0;
  EXPECT_EQ(Continue(teacher, Prompts(2), {3, 3}, options).Hash(), sequence.written_hash);
}

// Where no row's first document has a label to write from, the step is one on the text.
TEST(ObjectiveTest, AStepWithNothingToWriteFromIsOneOnTheText) {
  recipe::TrainStage stage;
  stage.sequence_length = kTokens;
  stage.losses.reverse_kl.weight.first = 1;
  const model::Decoder student = Writer();
  model::Decoder teacher(Config());
  teacher.Initialize(5);
  data::Batch batch = Prompts(2);
  for (int64_t i = 0; i < 2 * kTokens; ++i) {
    const bool first = i % kTokens < 5;
    batch.document_ids.push_back(first ? 0 : 1);
    batch.positions.push_back(static_cast<int32_t>(first ? i % kTokens : i % kTokens - 5));
    if (first) batch.targets[static_cast<size_t>(i)] = -1;
  }
  const auto step = [&] {
    for (const model::Parameter& parameter : student.parameters())
      parameter.value.mutable_grad() = at::Tensor();
    DecoderTeacher frozen(teacher);
    const Objective objective(stage, Config(), &frozen, nullptr, 9);
    return objective.ForwardBackward(student, batch, 4, {});
  };
  const StepLosses want = step();
  const at::Tensor gradient = student.Get("model.norm.weight").grad().clone();
  stage.losses.generated = {recipe::GeneratedBy::kStudent, 1.0, 0, 0, 1.0};
  const StepLosses got = step();
  EXPECT_EQ(got.written_by, "");
  EXPECT_EQ(got.written_tokens, 0);
  ASSERT_EQ(got.values.size(), want.values.size());
  for (size_t i = 0; i < want.values.size(); ++i)
    EXPECT_EQ(got.values[i].value, want.values[i].value) << want.values[i].name;
  EXPECT_TRUE(at::equal(student.Get("model.norm.weight").grad(), gradient));
}

}  // namespace
}  // namespace tern::distill
