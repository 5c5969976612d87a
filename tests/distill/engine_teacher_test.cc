// A teacher that the engine runs beside the same one in libtorch: logits, losses, the student's
// gradient; documents that share a sequence; what does not change a bit.
#include "distill/engine_teacher.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "distill/objective.h"
#include "engine/model_source.h"
#include "tests/engine/tiny_blocks.h"
#include "tests/testing/temp_folder.h"
#include "transfer/import.h"

namespace tern::distill {
namespace {

using formats::GgmlType;

constexpr int64_t kTokens = 48, kVocabulary = 40;  // Of a sequence

// fp32 sums in two orders. A product of K = 256 terms is off by about sqrt(K) 2^-24 = 1e-6 of its
// size; 2 layers of 7 products, 2 norms and attention, and the head, one after another: 20 of them.
constexpr double kRounding = 20 * 1e-6;

class EngineTeacherTest : public ::testing::Test {
 protected:
  std::string Write(GgmlType linear) {
    const std::string path = folder_ / StrCat("teacher", ++files_, ".gguf");
    tern::testing::TinyModel model = tern::testing::MakeTinyModel(
        tern::testing::TinyConfig(ArchName::kLlama, LinearKind::kDense), 3);
    tern::testing::GgufOptions options;
    tern::testing::TinyBlocks blocks;
    options.linear = linear;
    if (linear != GgmlType::kF32) {
      blocks = tern::testing::MakeBlocks(linear, GgmlType::kQ8_0, &model, 5);
      options.blocks = &blocks;
    }
    tern::testing::WriteGguf(model, ArchName::kLlama, path, options);
    return path;
  }
  static EngineTeacher ByEngine(const std::string& path) {
    return EngineTeacher(engine::LoadModel(path), kTokens);
  }
  static DecoderTeacher ByLibtorch(const std::string& path) {
    const model::Decoder decoder = transfer::OpenDecoder(path).decoder;
    for (const model::Parameter& parameter : decoder.parameters()) {
      at::Tensor frozen = parameter.value;
      frozen.set_requires_grad(false);
    }
    return DecoderTeacher(decoder);
  }
  static at::Tensor LogitsOf(Teacher& teacher, const data::Batch& batch, int64_t begin,
                             int64_t count) {
    const at::Tensor h_MD =
        teacher.Hidden(batch, begin, count, nn::ComputeType::kFp32, /*features=*/nullptr);
    return teacher.Logits(h_MD, nn::ComputeType::kFp32);
  }

  tern::testing::TempFolder folder_;
  int files_ = 0;
};

// documents: sequences of several, of 1 token and of more than a page of the engine's cache.
data::Batch Sequences(int64_t batch, bool documents) {
  data::Batch out;
  out.batch = batch;
  out.tokens = kTokens;
  out.inputs = tern::testing::RandomTokens(batch * kTokens, kVocabulary, 7);
  out.targets = tern::testing::RandomTokens(batch * kTokens, kVocabulary, 8);
  for (size_t i = 0; i < out.targets.size(); i += 5) out.targets[i] = -1;
  if (!documents) return out;
  for (int64_t row = 0; row < batch; ++row) {
    int32_t document = 0, position = 0;
    for (int64_t t = 0; t < kTokens; ++t) {
      const bool begins = t == row || t == row + 1 || (row % 2 == 1 && t == 20);
      if (begins && t > 0) ++document;
      if (begins) position = 0;
      out.document_ids.push_back(document);
      out.positions.push_back(position++);
    }
  }
  return out;
}

double Distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>() / b.abs().max().item<double>();
}

TEST_F(EngineTeacherTest, FloatsGiveTheLogitsOfLibtorch) {
  const std::string path = Write(GgmlType::kF32);
  EngineTeacher engine = ByEngine(path);
  DecoderTeacher libtorch = ByLibtorch(path);
  for (const bool documents : {false, true}) {
    const data::Batch batch = Sequences(6, documents);
    EXPECT_LT(Distance(LogitsOf(engine, batch, 1, 5), LogitsOf(libtorch, batch, 1, 5)), kRounding)
        << documents;
  }
  // That a border matters.
  EXPECT_GT(Distance(LogitsOf(engine, Sequences(6, true), 0, 6),
                     LogitsOf(engine, Sequences(6, false), 0, 6)),
            0.1);
}

// Weights are the same numbers; activations have 16 bits: 2^-16 of the largest of 256, which is
// about 3 of their mean size, in each of 20 steps as above.
TEST_F(EngineTeacherTest, BlocksGiveTheLogitsOfTheirValues) {
  for (const GgmlType type : {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ6_K, GgmlType::kQ8_0}) {
    const std::string path = Write(type);
    EngineTeacher engine = ByEngine(path);
    DecoderTeacher libtorch = ByLibtorch(path);
    const data::Batch batch = Sequences(4, true);
    EXPECT_LT(Distance(LogitsOf(engine, batch, 0, 4), LogitsOf(libtorch, batch, 0, 4)),
              20 * 3.0 / 65536)
        << static_cast<int>(type);
  }
}

TEST_F(EngineTeacherTest, BitsDependOnNoBatchAndNoThreads) {
  EngineTeacher teacher = ByEngine(Write(GgmlType::kQ4_1));
  for (const bool documents : {false, true}) {
    const data::Batch batch = Sequences(6, documents);
    at::set_num_threads(1);
    const at::Tensor all = LogitsOf(teacher, batch, 0, 6);
    at::set_num_threads(3);
    EXPECT_TRUE(at::equal(LogitsOf(teacher, batch, 0, 6), all));
    at::set_num_threads(1);
    for (int64_t row = 0; row < 6; ++row) {
      EXPECT_TRUE(
          at::equal(LogitsOf(teacher, batch, row, 1), all.narrow(0, row * kTokens, kTokens)))
          << row;
    }
  }
}

// A step of every loss over the vocabulary. A divergence and its gradient change by
// log-probabilities of the teacher, which are off by what a logit and their sum are: twice the
// tolerance of logits.
TEST_F(EngineTeacherTest, LossesAndTheStudentsGradientAreThoseOfLibtorch) {
  recipe::TrainStage stage;
  stage.sequence_length = kTokens;
  recipe::LossesConfig& l = stage.losses;
  l.cross_entropy.first = 0.5;
  l.forward_kl.weight.first = l.reverse_kl.weight.first = l.jsd.weight.first =
      l.topk_kl.weight.first = 0.3;
  l.topk_k = 8;
  ModelConfig config = tern::testing::TinyConfig(ArchName::kLlama, LinearKind::kDense);
  config.num_layers = 1;
  config.init_std = 0.1f;
  model::Decoder student(config);
  student.Initialize(4);
  const std::string path = Write(GgmlType::kF32);
  EngineTeacher engine = ByEngine(path);
  DecoderTeacher libtorch = ByLibtorch(path);
  const data::Batch batch = Sequences(4, true);
  const auto step = [&](Teacher* teacher) {
    for (const model::Parameter& parameter : student.parameters())
      parameter.value.mutable_grad() = at::Tensor();
    const Objective objective(stage, config, teacher, nullptr, 9);
    PassOptions options;
    options.micro_batch = 2;
    options.chunk_rows = 37;
    return objective.ForwardBackward(student, batch, 0, options);
  };
  const double tolerance =
      2 * kRounding * LogitsOf(libtorch, batch, 0, 4).abs().max().item<double>();
  const StepLosses want = step(&libtorch);
  std::vector<at::Tensor> gradients;
  for (const model::Parameter& parameter : student.parameters())
    gradients.push_back(parameter.value.grad().clone());
  const StepLosses got = step(&engine);
  ASSERT_EQ(got.values.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_GT(want.values[i].value, 0.01) << want.values[i].name;
    EXPECT_NEAR(got.values[i].value, want.values[i].value, tolerance) << want.values[i].name;
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    const model::Parameter& parameter = student.parameters()[i];
    EXPECT_LT(Distance(parameter.value.grad(), gradients[i]), tolerance) << parameter.spec.name;
  }
}

TEST_F(EngineTeacherTest, WantsATeacherThatFits) {
  EngineTeacher teacher = ByEngine(Write(GgmlType::kQ4_1));
  EXPECT_EQ(teacher.decoder(), nullptr);
  recipe::TrainStage stage;
  stage.sequence_length = kTokens;
  stage.losses.forward_kl.weight.first = 1;
  ModelConfig student = teacher.config();
  Objective(stage, student, &teacher, nullptr, 9);
  student.vocab_size = 41;
  EXPECT_THROW(Objective(stage, student, &teacher, nullptr, 9), RecipeError);
  stage.losses.hidden.weight.first = 1;  // CheckLosses refuses it with words
  EXPECT_THROW(Objective(stage, teacher.config(), &teacher, nullptr, 9), BugError);
}

// Not a number is an error of the step, as in libtorch.
TEST_F(EngineTeacherTest, AStateThatIsNotFiniteStopsTheStep) {
  engine::ModelWeights weights = engine::LoadModel(Write(GgmlType::kF32));
  weights.layers[1].post_norm[3] = NAN;
  EngineTeacher teacher(std::move(weights), kTokens);
  recipe::TrainStage stage;
  stage.sequence_length = kTokens;
  stage.losses.forward_kl.weight.first = 1;
  model::Decoder student(teacher.config());
  student.Initialize(4);
  const Objective objective(stage, teacher.config(), &teacher, nullptr, 9);
  EXPECT_THROW(objective.ForwardBackward(student, Sequences(2, false), 0, {}), NumericError);
}

}  // namespace
}  // namespace tern::distill
