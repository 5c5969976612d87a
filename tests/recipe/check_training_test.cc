// Rules across keys of quantizers, exports of what they train, and losses.
#include "recipe/check.h"
#include "recipe/schema.h"
#include "tests/recipe/good_recipe.h"

namespace tern::recipe {
namespace {

TEST(CheckTest, RoundingAndScaleRatesNeedWhatTheyActOn) {
  Recipe good = Good();
  Quantize(good, WeightQuantizer::kInt4);
  Train(good).quantize.rules[0].rounding = Rounding::kStochastic;
  EXPECT_EQ(Refusal(good), "");
  for (const WeightQuantizer weights : {WeightQuantizer::kLsq4, WeightQuantizer::kSeq2,
                                        WeightQuantizer::kSign, WeightQuantizer::kNone}) {
    ExpectRefused(
        [&](Recipe& r) {
          Quantize(r, weights);
          Train(r).quantize.rules[0].rounding = Rounding::kStochastic;
        },
        {"train.quantize.rules.body.rounding", "stochastic", "want nearest"});
  }
  const auto factor = [](WeightQuantizer weights) {
    return [=](Recipe& r) {
      Quantize(r, weights);
      Train(r).optimizer.scale_lr_factor = 0.1;
    };
  };
  ExpectRefused(factor(WeightQuantizer::kInt4),
                {"train.optimizer.scale_lr_factor = 0.1", "learn a scale", "want 1"});
  Recipe learned = Good();
  factor(WeightQuantizer::kSeqTernary)(learned);
  EXPECT_EQ(Refusal(learned), "");
}

TEST(CheckTest, KeysThatAQuantizerDoesNotHaveAreRefused) {
  const auto rule = [](WeightQuantizer weights, int64_t group, bool symmetric) {
    return [=](Recipe& r) {
      Quantize(r, weights);
      Train(r).quantize.rules[0].group = group;
      Train(r).quantize.rules[0].symmetric = symmetric;
    };
  };
  ExpectRefused(rule(WeightQuantizer::kNvfp4, 32, true),
                {"train.quantize.rules.body.group", "nvfp4", "want weights: int8 to int2"});
  ExpectRefused(rule(WeightQuantizer::kLsq3, 64, false),
                {"train.quantize.rules.body.symmetric", "lsq3"});
  ExpectRefused(
      [&](Recipe& r) {
        rule(WeightQuantizer::kInt4, 64, true)(r);
        Train(r).quantize.progressive_until = 0.25;
      },
      {"train.quantize.progressive_until", "0.25", "without progressive"});
  ExpectRefused(
      [&](Recipe& r) {
        rule(WeightQuantizer::kInt4, 64, true)(r);
        Train(r).quantize.progressive = {"int8"};
        Train(r).quantize.progressive_until = 1;
      },
      {"train.quantize.progressive_until", "leaves no step"});
  Recipe good = Good();
  rule(WeightQuantizer::kInt4, 32, false)(good);
  EXPECT_EQ(Refusal(good), "");
}

TEST(CheckTest, AFormatIsExportedOnce) {
  ExpectRefused(
      [](Recipe& r) {
        Stage again = r.stages[2];
        std::get<ExportStage>(again).id = "again";
        r.stages.push_back(again);
      },
      {"again.formats", "is exported twice"});
}

// Whatever the format: none says so of these.
TEST(CheckTest, NoExportHoldsTransformedInputs) {
  for (const char* format : {"hf/f32", "gguf/f32", "hf/compressed_tensors"}) {
    for (const bool hadamard : {false, true}) {
      ExpectRefused(
          [&](Recipe& r) {
            const Stage exported = r.stages[2];
            Quantize(r, WeightQuantizer::kInt4);
            r.model.sub_norms = SubNorms::kNone;
            r.stages.push_back(exported);
            std::get<ExportStage>(r.stages[2]).formats = {format};
            Train(r).quantize.rules[0].hadamard = hadamard;
            if (!hadamard) Train(r).quantize.rules[0].inputs = InputQuantizer::kInt4Absmean;
          },
          {format, "cannot hold", hadamard ? "hadamard: true" : "inputs: int4_absmean",
           "train.quantize.rules.body", "hf/compressed_tensors alone has a place"});
    }
  }
  Recipe trained = Good();
  Quantize(trained, WeightQuantizer::kInt4);
  Train(trained).quantize.rules[0].hadamard = true;
  EXPECT_EQ(Refusal(trained), "") << "without an export there is nothing to hold";
}

// A dense recipe of one rule that exports `format`.
void ShipsInputs(Recipe& r, WeightQuantizer weights, InputQuantizer inputs, const char* format) {
  const Stage exported = r.stages[2];
  Quantize(r, weights);
  r.model.sub_norms = SubNorms::kNone;
  r.stages.push_back(exported);
  std::get<ExportStage>(r.stages[2]).formats = {format};
  Train(r).quantize.rules[0].inputs = inputs;
}

// compressed-tensors says which inputs are rounded to 8 bits, beside 8-bit weights of the same
// kind in whole rows or matrices.
TEST(CheckTest, InputsOfEightBitsAreHeldBesideTheirWeights) {
  using enum InputQuantizer;
  constexpr const char* kFolder = "hf/compressed_tensors";
  const auto refusal = [&](WeightQuantizer weights, InputQuantizer inputs, const char* format,
                           int64_t group = -1) {
    Recipe r = Good();
    ShipsInputs(r, weights, inputs, format);
    Train(r).quantize.rules[0].group = group;
    return Refusal(r);
  };
  EXPECT_EQ(refusal(WeightQuantizer::kInt8, kInt8Dynamic, kFolder, 0), "");
  EXPECT_EQ(refusal(WeightQuantizer::kLsq8, kInt8Dynamic, kFolder), "");
  EXPECT_EQ(refusal(WeightQuantizer::kFp8, kFp8Dynamic, kFolder), "");
  EXPECT_EQ(refusal(WeightQuantizer::kFp8Tensor, kFp8Dynamic, kFolder), "");
  for (const std::string& why : {refusal(WeightQuantizer::kInt8, kInt8Dynamic, kFolder, 32),
                                 refusal(WeightQuantizer::kInt8, kFp8Dynamic, kFolder, 0),
                                 refusal(WeightQuantizer::kInt8, kInt8, kFolder, 0),
                                 refusal(WeightQuantizer::kInt4, kInt8Dynamic, kFolder, 0),
                                 refusal(WeightQuantizer::kFp8, kInt8Dynamic, kFolder),
                                 refusal(WeightQuantizer::kFp8Block, kFp8Dynamic, kFolder),
                                 refusal(WeightQuantizer::kNone, kInt8Dynamic, kFolder),
                                 refusal(WeightQuantizer::kQ8_0, kInt8Dynamic, "gguf/quantized"),
                                 refusal(WeightQuantizer::kFp8, kFp8Dynamic, "hf/f32")})
    EXPECT_NE(why.find("hf/compressed_tensors alone has a place"), std::string::npos) << why;
}

// FP8 layers are stored alike with and without rounded inputs.
TEST(CheckTest, Fp8LayersOfOneFolderAgreeOnTheirInputs) {
  const auto two = [](WeightQuantizer other, InputQuantizer inputs) {
    return [=](Recipe& r) {
      ShipsInputs(r, WeightQuantizer::kFp8, InputQuantizer::kFp8Dynamic, "hf/compressed_tensors");
      QuantizeRule& rule = Train(r).quantize.rules.emplace_back();
      rule.name = "down";
      rule.layers = {"down_proj"};
      rule.weights = other;
      rule.inputs = inputs;
    };
  };
  ExpectRefused(two(WeightQuantizer::kFp8, InputQuantizer::kNone),
                {"rules.body and down", "could not be told apart", "in both or none"});
  Recipe equal = Good(), tensor = Good();
  two(WeightQuantizer::kFp8, InputQuantizer::kFp8Dynamic)(equal);
  two(WeightQuantizer::kFp8Tensor, InputQuantizer::kNone)(tensor);
  EXPECT_EQ(Refusal(equal), "");
  EXPECT_EQ(Refusal(tensor), "");
}

void Teach(Recipe& r) {
  r.teacher.from = "model";
  Train(r).losses.forward_kl.weight.first = 1;
}

TEST(CheckTest, GradientsOfLossesWantTwo) {
  ExpectRefused([](Recipe& r) { Train(r).losses.log_gradients_every = 10; },
                {"train.losses.log_gradients_every = 10", "a single loss", "want two"});
  ExpectRefused(
      [](Recipe& r) {
        Teach(r);
        Train(r).losses.cross_entropy.first = 0;
        Train(r).losses.balance.by = BalanceBy::kGradientNorm;
      },
      {"train.losses.balance.by", "gradient_norm", "a single loss"});
  Recipe good = Good();
  Teach(good);
  Train(good).losses.log_gradients_every = 10;
  Train(good).losses.balance.by = BalanceBy::kGradientNorm;
  EXPECT_EQ(Refusal(good), "");
}

TEST(CheckTest, ATeacherByTheEngineGivesLogitsOnly) {
  const auto taught = [](const std::function<void(LossesConfig&)>& change) {
    return [=](Recipe& r) {
      Teach(r);
      r.teacher_runtime = Runtime::kEngine;
      change(Train(r).losses);
    };
  };
  Recipe good = Good();
  taught([](LossesConfig& l) {
    l.reverse_kl.weight.first = l.jsd.weight.first = l.topk_kl.weight.first = 1;
    l.generated.by = GeneratedBy::kStudent;
    l.generated.prompt_tokens = 8;
  })(good);
  EXPECT_EQ(Refusal(good), "");
  ExpectRefused([](Recipe& r) { r.teacher_runtime = Runtime::kEngine; },
                {"teacher.runtime: found engine", "want teacher: {from: MODEL}"});
  ExpectRefused(taught([](LossesConfig& l) {
                  l.hidden.weight = {0, 0.5};
                }),
                {"train.losses.hidden.weight: found 0.5", "teacher.runtime: engine",
                 "want forward_kl", "or teacher.runtime: libtorch"});
  ExpectRefused(taught([](LossesConfig& l) { l.relations.weight.first = 2; }),
                {"train.losses.relations.weight: found 2", "teacher.runtime: engine"});
  ExpectRefused(taught([](LossesConfig& l) {
                  l.generated.by = GeneratedBy::kTeacher;
                  l.generated.prompt_tokens = 8;
                }),
                {"train.losses.generated.by: found teacher", "writes none", "want by: student"});
}

TEST(CheckTest, GeneratedTextNeedsAWriterAndAJudge) {
  const auto by = [](GeneratedBy who) {
    return [=](Recipe& r) {
      Teach(r);
      Train(r).losses.generated.by = who;
      Train(r).losses.generated.prompt_tokens = 64;
    };
  };
  for (const GeneratedBy who : {GeneratedBy::kStudent, GeneratedBy::kTeacher}) {
    Recipe good = Good();
    by(who)(good);
    EXPECT_EQ(Refusal(good), "");
    const auto refused = [&](const std::function<void(Recipe&)>& change,
                             std::initializer_list<const char*> words) {
      ExpectRefused(
          [&](Recipe& r) {
            by(who)(r);
            change(r);
          },
          words);
    };
    refused([](Recipe& r) { r.teacher_store = "store"; }, {"train.losses.", "teacher.store"});
    refused([](Recipe& r) { Train(r).losses.generated.share = 0; },
            {"train.losses.generated.share", "found 0"});
    refused([](Recipe& r) { Train(r).losses.generated.prompt_tokens = 257; },
            {"train.losses.generated.prompt_tokens = 257", "sequence_length = 256"});
    refused([](Recipe& r) { Train(r).losses.generated.prompt_tokens = 0; },
            {"train.losses.generated.prompt_tokens", "packing: stream"});
  }
  ExpectRefused(
      [&](Recipe& r) {
        by(GeneratedBy::kStudent)(r);
        Train(r).losses.forward_kl.weight.first = 0;
      },
      {"train.losses.generated.by", "student", "reverse_kl"});
  ExpectRefused(
      [](Recipe& r) {
        Train(r).losses.generated.by = GeneratedBy::kTeacher;
        Train(r).losses.generated.prompt_tokens = 64;
      },
      {"train.losses.generated.by", "teacher: {from: MODEL}"});
  Recipe alone = Good();  // Cross-entropy on what the teacher writes
  by(GeneratedBy::kTeacher)(alone);
  Train(alone).losses.forward_kl.weight.first = 0;
  EXPECT_EQ(Refusal(alone), "");
  EXPECT_TRUE(UsesTeacher(Train(alone).losses));
}

}  // namespace
}  // namespace tern::recipe
