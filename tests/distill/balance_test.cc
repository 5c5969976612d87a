// Weights that follow gradients: the rule by hand, its state, and the gradients that a step of
// several losses measures.
#include "distill/balance.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "distill/objective.h"
#include "model/batch_input.h"

namespace tern::distill {
namespace {

recipe::LossesConfig Losses() {
  recipe::LossesConfig losses;
  losses.forward_kl.weight.first = 0.5;
  losses.relations.weight.first = 2;
  losses.balance.by = recipe::BalanceBy::kGradientNorm;
  losses.balance.every = 3;
  losses.balance.smoothing = 0.75;
  losses.balance.limit = 100;
  return losses;
}

TEST(LossBalanceTest, WeightsAreGradientsInUnitsOfTheAnchor) {
  LossBalance balance(Losses());
  EXPECT_EQ(balance.Factor("forward_kl"), 1);  // Nothing known
  EXPECT_TRUE(balance.Lacks({{"forward_kl", 1, 0.5}}));
  EXPECT_FALSE(balance.Lacks({{"forward_kl", 1, 0}}));  // Does not count
  balance.Observe({{"cross_entropy", 3, 1, 4}, {"forward_kl", 1, 0.5, 2}, {"relations", 1, 2, 40}});
  EXPECT_FALSE(balance.Lacks({{"forward_kl", 1, 0.5}}));
  EXPECT_EQ(balance.Factor("cross_entropy"), 1);
  EXPECT_EQ(balance.Factor("forward_kl"), 2);
  EXPECT_EQ(balance.Factor("relations"), 0.1);
  // A quarter of the new one; what was not measured or is not finite stays.
  balance.Observe(
      {{"cross_entropy", 3, 1, 8}, {"forward_kl", 1, 0.5, NAN}, {"relations", 1, 2, -1}});
  EXPECT_EQ(balance.Factor("forward_kl"), (0.75 * 4 + 0.25 * 8) / 2);
  EXPECT_EQ(balance.Factor("relations"), 5.0 / 40);
  balance.Observe({{"relations", 1, 2, 1e6}});
  EXPECT_EQ(balance.Factor("relations"), 0.01);  // The limit
  LossBalance other(Losses());
  other.Load(balance.Save());
  for (const char* name : {"cross_entropy", "forward_kl", "relations"})
    EXPECT_EQ(other.Factor(name), balance.Factor(name));
  EXPECT_TRUE(other.IsDue(0) && other.IsDue(3) && !other.IsDue(4));
}

TEST(LossBalanceTest, WithoutCrossEntropyTheFirstLossIsTheAnchor) {
  recipe::LossesConfig losses = Losses();
  losses.cross_entropy.first = 0;
  LossBalance balance(losses);
  balance.Observe({{"forward_kl", 1, 0.5, 2}, {"relations", 1, 2, 40}});
  EXPECT_EQ(balance.Factor("forward_kl"), 1);
  EXPECT_EQ(balance.Factor("relations"), 0.05);
  losses.balance.by = recipe::BalanceBy::kNone;
  LossBalance off(losses);
  off.Observe({{"forward_kl", 1, 0.5, 2}, {"relations", 1, 2, 40}});
  EXPECT_EQ(off.Factor("relations"), 1);
  EXPECT_FALSE(off.IsDue(0));
  EXPECT_FALSE(off.Lacks({{"hidden", 1, 1}}));
}

TEST(WhyUnbalancedTest, NamesTheLossesWithTheNumbers) {
  EXPECT_EQ(WhyUnbalanced({{"a", 3, 1}, {"b", 0.01, 1}}), "");
  const std::string why = WhyUnbalanced({{"cross_entropy", 3, 1}, {"relations", 0.4, 1e5}});
  EXPECT_NE(why.find("losses.relations (100000 x 0.4) is 13333"), std::string::npos) << why;
  EXPECT_NE(why.find("losses.cross_entropy (1 x 3)"), std::string::npos) << why;
  EXPECT_EQ(WhyUnbalanced({{"a", 3, 1}, {"b", 0.001, 1}}, /*is_balanced=*/true), "");
  const std::string gradients = WhyUnbalanced({{"a", 3, 1, 5000}, {"b", 2, 1, 2}}, true);
  EXPECT_NE(gradients.find("gradient of losses.a (1 x 5000) is 2500 times"), std::string::npos)
      << gradients;
  EXPECT_EQ(WhyUnbalanced({{"a", 3, 1, 5}, {"b", 0, 0}}), "");  // One that counts for nothing
}

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 60;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.context_length = 12;
  config.linear = LinearKind::kDense;
  config.sub_norms = SubNorms::kNone;
  config.init_std = 0.2f;
  return config;
}

data::Batch Tokens(int64_t batch) {
  RandomStream random(3, "tokens");
  data::Batch out;
  out.batch = batch;
  out.tokens = 12;
  for (int64_t i = 0; i < batch * 12; ++i) {
    out.inputs.push_back(static_cast<int32_t>(random.NextU64() % 60));
    out.targets.push_back(i % 5 == 0 ? -1 : static_cast<int32_t>(random.NextU64() % 60));
  }
  return out;
}

class GradientsTest : public ::testing::Test {
 protected:
  GradientsTest() : student_(Config()), teacher_(Config()) {
    student_.Initialize(1);
    teacher_.Initialize(2);
    for (const model::Parameter& parameter : teacher_.parameters()) {
      at::Tensor frozen = parameter.value;
      frozen.set_requires_grad(false);
    }
    stage_.steps = 100;
    stage_.sequence_length = 12;
    stage_.losses.forward_kl.weight.first = 0.5;
    stage_.losses.forward_kl.temperature = 2;
  }
  std::vector<LossValue> Step(const PassOptions& options) {
    for (const model::Parameter& parameter : student_.parameters())
      parameter.value.mutable_grad() = at::Tensor();
    DecoderTeacher teacher(teacher_);
    const Objective objective(stage_, Config(), &teacher, nullptr, 7);
    return objective.ForwardBackward(student_, Tokens(4), 0, options).values;
  }
  std::vector<at::Tensor> Gradients() const {
    std::vector<at::Tensor> gradients;
    for (const model::Parameter& parameter : student_.parameters())
      gradients.push_back(parameter.value.grad().clone());
    return gradients;
  }
  static double NormOf(const std::vector<LossValue>& values, const std::string& name) {
    for (const LossValue& value : values)
      if (value.name == name) return value.grad_norm;
    return -2;
  }
  // The gradient of one loss alone, at weight 1, with respect to the input of block `layer`, or the
  // last norm's output when that is the number of blocks: autograd of plain formulas.
  double NormAlone(const std::string& name, int64_t layer) const {
    const data::Batch batch = Tokens(4);
    model::Capture ours, theirs;
    for (int64_t l = 0; l < 3; ++l) {
      ours.layers.insert(l);
      theirs.layers.insert(l);
    }
    const model::DecoderInput input = model::InputOf(batch, 0, 4);
    const at::Tensor targets = model::TargetsOf(batch, 0, 4).to(at::kLong);
    model::ForwardOptions mine, its;
    mine.capture = &ours;
    its.capture = &theirs;
    const at::Tensor h = student_.Hidden(input, mine);
    const at::Tensor rows = (targets >= 0).to(at::kFloat);
    const at::Tensor z = at::matmul(h, student_.HeadWeight().t());
    at::Tensor loss;
    const at::Tensor h_teacher = teacher_.Hidden(input, its);
    if (name == "cross_entropy") {
      const at::Tensor nll =
          -at::log_softmax(z, 1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
      loss = (nll * rows).sum() / rows.sum();
    } else if (name == "forward_kl") {
      const at::Tensor log_t =
          at::log_softmax(at::matmul(h_teacher, teacher_.HeadWeight().t()) / 2, 1);
      const at::Tensor kl = (log_t.exp() * (log_t - at::log_softmax(z / 2, 1))).sum(1) * 4;
      loss = (kl * rows).sum() / rows.sum();
    } else {
      const at::Tensor difference =
          (ours.features.at(2).hidden_MD - theirs.features.at(2).hidden_MD).square().mean(1);
      loss = (difference * rows).sum() / rows.sum();
    }
    const at::Tensor shared = layer == 3 ? h : ours.features.at(layer).input_MD;
    return torch::autograd::grad({loss}, {shared})[0].norm().item<double>();
  }

  model::Decoder student_, teacher_;
  recipe::TrainStage stage_;
};

// fp32 sums of some thousand terms: relative 1e-5.
constexpr double kRelative = 1e-5;

TEST_F(GradientsTest, OfLossesOverTheVocabularyByTheLastNorm) {
  for (const int64_t micro : {1, 2, 4}) {
    for (const double scale : {1.0, 256.0}) {
      PassOptions options;
      options.micro_batch = micro;
      options.chunk_rows = 7;
      options.loss_scale = scale;
      options.measures_gradients = true;
      const auto values = Step(options);
      for (const char* name : {"cross_entropy", "forward_kl"}) {
        const double want = NormAlone(name, 3);
        EXPECT_NEAR(NormOf(values, name), want, kRelative * want) << name << micro;
      }
    }
  }
}

// A hidden loss on the last block: all are measured where they enter it.
TEST_F(GradientsTest, OfFeatureLossesByTheLowestBlock) {
  stage_.losses.hidden.weight.first = 0.1;
  PassOptions options;
  options.micro_batch = 2;
  options.measures_gradients = true;
  const auto values = Step(options);
  for (const char* name : {"cross_entropy", "forward_kl", "hidden"}) {
    const double want = NormAlone(name, 2);
    EXPECT_NEAR(NormOf(values, name), want, kRelative * want) << name;
  }
  stage_.losses.relations.weight.first = 1;
  stage_.losses.relations.student_layer = 1;  // Lower: the norms are those at block 1
  const auto lower = Step(options);
  EXPECT_NEAR(NormOf(lower, "hidden"), NormAlone("hidden", 1), kRelative * NormOf(lower, "hidden"));
  EXPECT_GT(NormOf(lower, "relations"), 0);
}

TEST_F(GradientsTest, MeasuringChangesNothing) {
  stage_.losses.hidden.weight.first = 0.1;
  stage_.losses.relations.weight.first = 1;
  PassOptions options;
  options.micro_batch = 2;
  const auto plain = Step(options);
  const auto gradients = Gradients();
  EXPECT_LT(NormOf(plain, "hidden"), 0);
  options.measures_gradients = true;
  const auto measured = Step(options);
  const auto same = Gradients();
  for (size_t i = 0; i < gradients.size(); ++i) EXPECT_TRUE(at::equal(gradients[i], same[i])) << i;
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(plain[i].value, measured[i].value);
}

// Losses on features never ask for the teacher's logits: its hidden states are looked at.
TEST_F(GradientsTest, ATeacherOfNanIsAnErrorOfFeatureLosses) {
  stage_.losses.forward_kl.weight.first = 0;
  stage_.losses.hidden.weight.first = 1;
  {
    const at::NoGradGuard no_grad;
    at::Tensor w = teacher_.Get("model.layers.1.mlp.down_proj.weight");
    w[3][4] = NAN;
  }
  try {
    Step({});
    ADD_FAILURE() << "not refused";
  } catch (const NumericError& error) {
    EXPECT_NE(std::string(error.what()).find("the teacher's hidden states of step 1"),
              std::string::npos)
        << error.what();
  }
}

// Where nothing below the block is trained (adapters), its input is differentiated all the same.
TEST_F(GradientsTest, AFrozenBottomIsMeasured) {
  stage_.losses.hidden.weight.first = 0.1;
  stage_.losses.hidden.layers = recipe::HiddenLayers::kAll;  // Block 0's input: the embedding
  at::Tensor embedding = student_.Get("model.embed_tokens.weight");
  embedding.set_requires_grad(false);
  PassOptions options;
  options.micro_batch = 2;
  options.measures_gradients = true;
  const auto values = Step(options);
  for (const char* name : {"cross_entropy", "forward_kl", "hidden"})
    EXPECT_GT(NormOf(values, name), 0) << name;
}

// From the first step on weighted gradients are in the recipe's proportion, and those of the
// parameters are those of the balanced sum.
TEST_F(GradientsTest, TheFirstStepIsBalanced) {
  stage_.losses.hidden.weight.first = 3;
  stage_.losses.balance.by = recipe::BalanceBy::kGradientNorm;
  stage_.losses.balance.every = 2;
  LossBalance balance(stage_.losses);
  PassOptions options;
  options.micro_batch = 2;
  options.measures_gradients = true;
  options.balance = &balance;
  const auto values = Step(options);
  const double anchor = NormOf(values, "cross_entropy");
  for (const LossValue& value : values) {
    const double want = value.name == "hidden" ? 3 : value.name == "forward_kl" ? 0.5 : 1;
    EXPECT_NEAR(value.weight * value.grad_norm / anchor, want, 1e-5 * want) << value.name;
  }
  const auto balanced = Gradients();
  std::map<std::string, double> weights;
  for (const LossValue& value : values) weights[value.name] = value.weight;
  stage_.losses.forward_kl.weight.first = weights.at("forward_kl");
  stage_.losses.hidden.weight.first = weights.at("hidden");
  stage_.losses.balance.by = recipe::BalanceBy::kNone;
  options.balance = nullptr;
  Step(options);
  const auto plain = Gradients();
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], balanced[i])) << i;
}

}  // namespace
}  // namespace tern::distill
