// Losses against their definitions: values by plain sums in double, gradients by autograd of the
// definition in double and, where that shares code, by differences.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/error.h"
#include "distill/feature_losses.h"
#include "distill/logit_losses.h"

namespace tern::distill {
namespace {

at::Tensor Random(at::IntArrayRef shape, int64_t seed, double scale = 1.0) {
  at::Tensor x = at::empty(shape, at::kDouble);
  auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  return x.normal_(0, scale, generator);
}

// The definitions in the header, as sums over probabilities.
at::Tensor Definition(const LogitTerm& term, const at::Tensor& z, const at::Tensor& teacher) {
  const at::Tensor s = at::softmax(z / term.temperature, 1),
                   t = at::softmax(teacher / term.temperature, 1);
  const auto kl = [](const at::Tensor& p, const at::Tensor& q) {
    return (p * (p.log() - q.log())).sum(1);
  };
  at::Tensor loss;
  switch (term.kind) {
    case LogitLoss::kForwardKl:
      loss = kl(t, s);
      break;
    case LogitLoss::kReverseKl:
      loss = kl(s, t);
      break;
    case LogitLoss::kJsd: {
      const at::Tensor m = term.beta * t + (1 - term.beta) * s;
      loss = term.beta * kl(t, m) + (1 - term.beta) * kl(s, m);
      break;
    }
    case LogitLoss::kTopKKl: {
      const at::Tensor top = std::get<1>(at::topk(t, term.k, 1));
      const at::Tensor tk = t.gather(1, top), sk = s.gather(1, top);
      const at::Tensor t_rest = 1 - tk.sum(1), s_rest = 1 - sk.sum(1);
      loss = kl(tk, sk) + t_rest * (t_rest / s_rest).log();
      break;
    }
    case LogitLoss::kCrossEntropy:
      throw BugError("not here");
  }
  return loss * (term.tau_squared ? term.temperature * term.temperature : 1.0);
}

class LogitLossTest : public ::testing::TestWithParam<LogitTerm> {};

// fp32 of a loss of about 1 from 40 terms: sums of 40 rounded values, 40 x 6e-8 x the largest
// (about 10 with tau^2 = 9) = 2.4e-5.
constexpr double kTolerance = 3e-5;

TEST_P(LogitLossTest, ValueAndGradientAreTheDefinitions) {
  const LogitTerm& term = GetParam();
  const at::Tensor teacher = Random({6, 40}, 1, 2.0);
  at::Tensor z = Random({6, 40}, 2, 2.0).set_requires_grad(true);
  const at::Tensor want = Definition(term, z, teacher);
  torch::autograd::backward({want.sum()}, {});
  const RowLosses got =
      TeacherLoss(term, z.detach().to(at::kFloat), {teacher.to(at::kFloat), {}, {}});
  EXPECT_LT((got.loss_C - want).abs().max().item<double>(), kTolerance);
  EXPECT_LT((got.dlogits_CV - z.grad()).abs().max().item<double>(), kTolerance);
  EXPECT_GT(z.grad().abs().max().item<double>(), 0.01);  // There is something to compare
}

TEST_P(LogitLossTest, IsZeroWithoutGradientAtTheTeacher) {
  const at::Tensor teacher = Random({6, 40}, 1, 2.0).to(at::kFloat);
  const RowLosses got = TeacherLoss(GetParam(), teacher, {teacher, {}, {}});
  EXPECT_LT(got.loss_C.abs().max().item<double>(), kTolerance);
  EXPECT_LT(got.dlogits_CV.abs().max().item<double>(), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(All, LogitLossTest,
                         ::testing::Values(LogitTerm{LogitLoss::kForwardKl, 1, 1.0, true, 0.5, 8},
                                           LogitTerm{LogitLoss::kForwardKl, 1, 3.0, true, 0.5, 8},
                                           LogitTerm{LogitLoss::kForwardKl, 1, 3.0, false, 0.5, 8},
                                           LogitTerm{LogitLoss::kReverseKl, 1, 2.0, true, 0.5, 8},
                                           LogitTerm{LogitLoss::kReverseKl, 1, 0.9, false, 0.5, 8},
                                           LogitTerm{LogitLoss::kJsd, 1, 1.5, true, 0.5, 8},
                                           LogitTerm{LogitLoss::kJsd, 1, 1.0, true, 0.1, 8},
                                           LogitTerm{LogitLoss::kTopKKl, 1, 1.0, true, 0.5, 8},
                                           LogitTerm{LogitLoss::kTopKKl, 1, 2.0, false, 0.5, 39}));

// What a store keeps of the teacher gives what the teacher itself does.
TEST(TopKTest, StoredTopIsAsGoodAsLogits) {
  const LogitTerm term{LogitLoss::kTopKKl, 1, 2.0, true, 0.5, 8};
  const at::Tensor teacher = Random({6, 40}, 1, 2.0).to(at::kFloat);
  const at::Tensor z = Random({6, 40}, 2).to(at::kFloat);
  const auto [log_probs, top] = at::topk(at::log_softmax(teacher / 2.0, 1), 8, 1);
  const RowLosses a = TeacherLoss(term, z, {teacher, {}, {}}),
                  b = TeacherLoss(term, z, {{}, top, log_probs});
  EXPECT_TRUE(at::equal(a.loss_C, b.loss_C));
  EXPECT_TRUE(at::equal(a.dlogits_CV, b.dlogits_CV));
}

struct Chunked {
  at::Tensor h, head, targets, teacher;
  double Loss(const std::vector<LogitTerm>& terms, LogitLossOptions options,
              std::vector<double>* values) const {
    options.target_count = 4;
    options.teacher_count = options.all_rows ? 6 : 4;
    const at::Tensor loss = ChunkedLogitLosses(
        h, head, targets, terms,
        [&](int64_t begin, int64_t count) {
          return TeacherChunk{teacher.narrow(0, begin, count), {}, {}};
        },
        options, values);
    torch::autograd::backward({loss}, {});
    return loss.item<double>();
  }
};

Chunked MakeChunked() {
  Chunked c;
  c.h = Random({6, 5}, 3).to(at::kFloat).set_requires_grad(true);
  c.head = Random({40, 5}, 4).to(at::kFloat).set_requires_grad(true);
  c.targets = at::tensor({3, -1, 39, 0, -1, 7}, at::kInt);
  c.teacher = Random({6, 40}, 5, 2.0).to(at::kFloat);
  return c;
}

// Weights, counts, masks and chunks of 4 rows, against one sum over all logits in double.
TEST(ChunkedTest, SumsMaskedWeightedRows) {
  const std::vector<LogitTerm> terms = {{LogitLoss::kForwardKl, 2.0, 2.0, true, 0.5, 8},
                                        {LogitLoss::kCrossEntropy, 0.5, 1.0, false, 0.5, 8}};
  for (const bool all : {false, true}) {
    Chunked c = MakeChunked();
    LogitLossOptions options;
    options.chunk_rows = 4;
    options.all_rows = all;
    options.grad_scale = 8;
    std::vector<double> values(2, 0.0);
    const double got = c.Loss(terms, options, &values);

    at::Tensor h = c.h.detach().to(at::kDouble).set_requires_grad(true);
    at::Tensor head = c.head.detach().to(at::kDouble).set_requires_grad(true);
    const at::Tensor z = at::matmul(h, head.t());
    const at::Tensor mask = (c.targets >= 0).to(at::kDouble);
    const at::Tensor rows = all ? at::ones_like(mask) : mask;
    const at::Tensor kl =
        (Definition(terms[0], z, c.teacher.to(at::kDouble)) * rows).sum() / (all ? 6.0 : 4.0);
    const at::Tensor nll =
        -at::log_softmax(z, 1).gather(1, c.targets.clamp_min(0).to(at::kLong).unsqueeze(1));
    const at::Tensor ce = (nll.squeeze(1) * mask).sum() / 4.0;
    const at::Tensor want = 2.0 * kl + 0.5 * ce;
    torch::autograd::backward({want * 8.0}, {});
    EXPECT_NEAR(values[0], kl.item<double>(), kTolerance);
    EXPECT_NEAR(values[1], ce.item<double>(), kTolerance);
    EXPECT_NEAR(got, want.item<double>(), 2 * kTolerance);
    EXPECT_LT((c.h.grad() - h.grad()).abs().max().item<double>(), 16 * kTolerance);
    EXPECT_LT((c.head.grad() - head.grad()).abs().max().item<double>(), 16 * kTolerance);
  }
}

TEST(ChunkedTest, ATeacherWithNanIsNamed) {
  Chunked c = MakeChunked();
  c.teacher[3][5] = NAN;
  std::vector<double> values(1, 0.0);
  try {
    c.Loss({{LogitLoss::kForwardKl, 1, 1, true, 0.5, 8}}, {}, &values);
    FAIL() << "not refused";
  } catch (const NumericError& error) {
    EXPECT_NE(std::string(error.what()).find("row 3"), std::string::npos) << error.what();
  }
}

// Of every loss, a row without a label included; not hidden as a loss of 0.
TEST(ChunkedTest, NoLossHidesATeacherWithNan) {
  for (const LogitLoss kind :
       {LogitLoss::kForwardKl, LogitLoss::kReverseKl, LogitLoss::kJsd, LogitLoss::kTopKKl}) {
    for (const int64_t row : {0, 1, 5}) {
      for (const double bad : {NAN, INFINITY}) {
        Chunked c = MakeChunked();
        c.teacher[row][5] = bad;
        std::vector<double> values(1, 0.0);
        LogitLossOptions options;
        options.chunk_rows = 2;
        EXPECT_THROW(c.Loss({{kind, 1, 1, true, 0.5, 8}}, options, &values), NumericError)
            << static_cast<int>(kind) << " row " << row;
      }
    }
  }
}

// A student that has become NaN shows in the loss, of which the fault monitor takes note.
TEST(ChunkedTest, AStudentWithNanHasALossOfNan) {
  for (const LogitLoss kind :
       {LogitLoss::kForwardKl, LogitLoss::kReverseKl, LogitLoss::kJsd, LogitLoss::kTopKKl}) {
    at::Tensor z = Random({3, 40}, 2).to(at::kFloat);
    z[1][7] = NAN;
    const RowLosses got =
        TeacherLoss({kind, 1, 1, true, 0.5, 8}, z, {Random({3, 40}, 1).to(at::kFloat), {}, {}});
    EXPECT_TRUE(std::isnan(got.loss_C[1].item<double>())) << static_cast<int>(kind);
    EXPECT_TRUE(std::isfinite(got.loss_C[0].item<double>()));
  }
}

// A probability that underflows has no share in the divergence, and no NaN.
TEST(JsdTest, ProbabilitiesThatUnderflow) {
  const auto rows = [](std::initializer_list<float> values) {
    return at::tensor(std::vector<float>(values)).view({2, 3});
  };
  const at::Tensor z = rows({0, -200, -300, -300, 0, -200});
  const at::Tensor t = rows({0, -300, -200, 0, -300, -200});
  const RowLosses got = TeacherLoss({LogitLoss::kJsd, 1, 1, true, 0.5, 8}, z, {t, {}, {}});
  EXPECT_NEAR(got.loss_C[0].item<double>(), 0, 1e-6);
  EXPECT_NEAR(got.loss_C[1].item<double>(), std::log(2.0), 1e-6);  // Disjoint
  EXPECT_TRUE(got.dlogits_CV.isfinite().all().item<bool>());
}

// Each term's part of the gradient, and their sum, the whole.
TEST(ChunkedTest, TermGradientsAddUpToTheGradient) {
  const std::vector<LogitTerm> terms = {{LogitLoss::kForwardKl, 2.0, 2.0, true, 0.5, 8},
                                        {LogitLoss::kReverseKl, 0.0, 1.0, true, 0.5, 8},
                                        {LogitLoss::kCrossEntropy, 0.5, 1.0, false, 0.5, 8}};
  Chunked c = MakeChunked(), plain = MakeChunked();
  std::vector<double> values(3, 0.0), same(3, 0.0);
  std::vector<at::Tensor> parts;
  LogitLossOptions options;
  options.chunk_rows = 4;
  plain.Loss(terms, options, &same);
  options.term_gradients = &parts;
  c.Loss(terms, options, &values);
  EXPECT_TRUE(at::equal(c.h.grad(), plain.h.grad()));  // Looking changes nothing
  EXPECT_EQ(values, same);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_FALSE(parts[1].defined());
  EXPECT_LT((parts[0] + parts[2] - c.h.grad()).abs().max().item<double>(), kTolerance);
  for (const size_t i : {size_t{0}, size_t{2}}) {
    Chunked alone = MakeChunked();
    std::vector<double> value(1, 0.0);
    LogitLossOptions whole;
    alone.Loss({terms[i]}, whole, &value);
    EXPECT_LT((parts[i] - alone.h.grad()).abs().max().item<double>(), kTolerance) << i;
  }
}

TEST(HiddenLossTest, ValuesAndGradients) {
  at::Tensor s = Random({4, 3}, 1).set_requires_grad(true);
  at::Tensor p = Random({5, 3}, 2).set_requires_grad(true);
  const at::Tensor t = Random({4, 5}, 3), rows = at::tensor({1.0, 0.0, 1.0, 1.0}, at::kDouble);
  const at::Tensor mse = HiddenLoss(s, t, p, rows, 3, HiddenDistance::kMse);
  double want = 0;
  const at::Tensor projected = at::matmul(s, p.t()).detach();
  for (const int64_t m : {0, 2, 3})
    for (int64_t d = 0; d < 5; ++d)
      want += std::pow((projected[m][d] - t[m][d]).item<double>(), 2) / 5 / 3;
  EXPECT_NEAR(mse.item<double>(), want, 1e-12);
  torch::autograd::backward({mse}, {});
  // dP = 2/(5*3) (P s - t)^T s over the rows that count.
  const at::Tensor error = (projected - t) * rows.unsqueeze(1);
  const at::Tensor want_p = at::matmul(error.t(), s.detach()) * (2.0 / 15);
  EXPECT_LT((p.grad() - want_p).abs().max().item<double>(), 1e-12);
  const at::Tensor cosine = HiddenLoss(t * 3.0, t, {}, rows, 3, HiddenDistance::kCosine);
  EXPECT_NEAR(cosine.item<double>(), 0.0, 1e-12);  // Blind to length
  EXPECT_NEAR(HiddenLoss(-t, t, {}, rows, 3, HiddenDistance::kCosine).item<double>(), 2.0, 1e-12);
}

// R of one head by plain sums.
double RelationKl(const at::Tensor& s, const at::Tensor& t, int64_t heads, double temperature,
                  bool normalize, bool per_batch) {
  const int64_t tokens = s.size(0);
  double total = 0;
  for (int64_t head = 0; head < heads; ++head) {
    const auto log_row = [&](const at::Tensor& x, int64_t row) {
      const int64_t width = x.size(1) / heads;
      at::Tensor a = x.narrow(1, head * width, width);
      if (normalize) a = a / a.norm(2, {1}, true);
      const double tau = temperature > 0 ? temperature : std::sqrt(static_cast<double>(width));
      return at::log_softmax(at::matmul(a, a[row]) / tau, 0);
    };
    for (int64_t row = 0; row < tokens; ++row) {
      const at::Tensor ls = log_row(s, row), lt = log_row(t, row);
      total += (lt.exp() * (lt - ls)).sum().item<double>();
    }
  }
  return total / static_cast<double>(heads * (per_batch ? 1 : tokens));
}

TEST(RelationLossTest, ThePublishedFormsByHand) {
  model::LayerFeatures s, t;
  s.q_MD = Random({5, 8}, 1);
  s.k_MD = Random({5, 4}, 2);
  s.v_MD = Random({5, 4}, 3);
  t.q_MD = Random({5, 12}, 4);
  t.k_MD = Random({5, 6}, 5);
  t.v_MD = Random({5, 6}, 6);
  struct Form {
    RelationOptions options;
    double temperature;
    bool normalize, per_batch;
  };
  const Form forms[] = {{{2, 0, false, RelationReduction::kMean}, 0, false, false},
                        {{2, 0, true, RelationReduction::kMean}, 0, true, false},
                        {{2, 1.0, true, RelationReduction::kBatch}, 1.0, true, true}};
  for (const Form& form : forms) {
    double want = 0;
    for (const auto& [a, b] : {std::pair(s.q_MD, t.q_MD), {s.k_MD, t.k_MD}, {s.v_MD, t.v_MD}})
      want += RelationKl(a, b, 2, form.temperature, form.normalize, form.per_batch);
    const double count = form.per_batch ? 1 : 5;
    EXPECT_NEAR(RelationLoss(s, t, {}, 1, count, form.options).item<double>(), want, 1e-10);
  }
  EXPECT_NEAR(RelationLoss(s, s, {}, 1, 5, forms[0].options).item<double>(), 0.0, 1e-12);
}

// Central differences in double: error of order h^2 = 1e-8 times third derivatives of order 1.
TEST(RelationLossTest, GradientIsTheDifferenceQuotient) {
  model::LayerFeatures s, t;
  for (const auto member :
       {&model::LayerFeatures::q_MD, &model::LayerFeatures::k_MD, &model::LayerFeatures::v_MD}) {
    s.*member = Random({6, 4}, 7);
    t.*member = Random({6, 4}, 8);
  }
  s.q_MD = Random({6, 4}, 9).set_requires_grad(true);
  const RelationOptions options{2, 0, true, RelationReduction::kMean};
  torch::autograd::backward({RelationLoss(s, t, {}, 2, 6, options)}, {});
  const at::Tensor grad = s.q_MD.grad().clone();
  constexpr double kH = 1e-4;
  for (const auto& [m, d] : {std::pair<int64_t, int64_t>{0, 0}, {2, 3}, {5, 1}}) {
    const auto at_shift = [&](double shift) {
      model::LayerFeatures moved = s;
      moved.q_MD = s.q_MD.detach().clone();
      moved.q_MD[m][d] += shift;
      return RelationLoss(moved, t, {}, 2, 6, options).item<double>();
    };
    EXPECT_NEAR(grad[m][d].item<double>(), (at_shift(kH) - at_shift(-kH)) / (2 * kH), 1e-6);
  }
}

// Relations of each document by itself; padding counts nowhere and gets no gradient.
TEST(RelationLossTest, DocumentsAreToldApartAndPaddingIsLeftOut) {
  constexpr int64_t kBatch = 2, kTokens = 6;
  const at::Tensor ids =
      at::tensor({0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, -1}, at::kInt).view({kBatch, kTokens});
  struct Document {
    int64_t begin, tokens;
  };
  const Document documents[] = {{0, 3}, {3, 3}, {6, 2}, {8, 3}};
  model::LayerFeatures s, t;
  uint64_t seed = 20;
  for (const auto member :
       {&model::LayerFeatures::q_MD, &model::LayerFeatures::k_MD, &model::LayerFeatures::v_MD}) {
    s.*member = Random({kBatch * kTokens, 8}, seed++).set_requires_grad(true);
    t.*member = Random({kBatch * kTokens, 4}, seed++);
  }
  for (const RelationReduction reduction : {RelationReduction::kMean, RelationReduction::kBatch}) {
    const bool mean = reduction == RelationReduction::kMean;
    const double count = mean ? 11 : 4;
    const RelationOptions options{2, 0, false, reduction};
    s.q_MD.mutable_grad() = at::Tensor();
    const at::Tensor loss = RelationLoss(s, t, ids, kBatch, count, options);
    torch::autograd::backward({loss}, {});
    double want = 0;
    at::Tensor want_grad = at::zeros_like(s.q_MD);
    for (const auto& [begin, tokens] : documents) {
      model::LayerFeatures of_s, of_t;
      for (const auto member : {&model::LayerFeatures::q_MD, &model::LayerFeatures::k_MD,
                                &model::LayerFeatures::v_MD}) {
        of_s.*member = (s.*member).detach().narrow(0, begin, tokens).clone();
        of_t.*member = (t.*member).narrow(0, begin, tokens);
        want += RelationKl(of_s.*member, of_t.*member, 2, 0, false, /*per_batch=*/true);
      }
      of_s.q_MD.set_requires_grad(true);
      torch::autograd::backward({RelationLoss(of_s, of_t, {}, 1, count, options)}, {});
      want_grad.narrow(0, begin, tokens).copy_(of_s.q_MD.grad());
    }
    EXPECT_NEAR(loss.item<double>(), want / count, 1e-10);
    EXPECT_LT((s.q_MD.grad() - want_grad).abs().max().item<double>(), 1e-12);
    EXPECT_EQ(s.q_MD.grad()[11].abs().max().item<double>(), 0);
  }
  // One document a sequence: the published form.
  const RelationOptions options{2, 0, false, RelationReduction::kMean};
  EXPECT_NEAR(RelationLoss(s, t, at::zeros({kBatch, kTokens}, at::kInt), kBatch, 12, options)
                  .item<double>(),
              RelationLoss(s, t, {}, kBatch, 12, options).item<double>(), 1e-12);
}

TEST(DocumentsOfTest, CountsDocumentsWithLabelsAndWrittenTokens) {
  data::Batch batch;
  batch.batch = 2;
  batch.tokens = 5;
  batch.inputs.assign(10, 7);
  batch.targets = {7, -1, 7, 7, -1, -1, 7, -1, -1, -1};
  const RelationDocuments whole = DocumentsOf(batch, false);
  EXPECT_TRUE(whole.ids.empty());
  EXPECT_EQ(whole.rows, 10);
  EXPECT_EQ(whole.documents, 2);
  // A text's last token has no label, a document of padding has none at all.
  batch.document_ids = {0, 0, 1, 1, 1, 0, 0, 0, 1, 1};
  const RelationDocuments packed = DocumentsOf(batch, false);
  EXPECT_EQ(packed.ids, (std::vector<int32_t>{0, 0, 1, 1, 1, 0, 0, 0, -1, -1}));
  EXPECT_EQ(packed.rows, 8);
  EXPECT_EQ(packed.documents, 3);
  // What is written ends with the token of the last label; a row without a prompt counts nowhere.
  batch.document_ids.clear();
  batch.targets = {-1, 7, 7, -1, -1, -1, -1, -1, -1, -1};
  const RelationDocuments written = DocumentsOf(batch, true);
  EXPECT_EQ(written.ids, (std::vector<int32_t>{0, 0, 0, 0, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(written.rows, 4);
  EXPECT_EQ(written.documents, 1);
  batch.targets[4] = 7;  // To the end of the sequence
  EXPECT_EQ(DocumentsOf(batch, true).rows, 5);
}

}  // namespace
}  // namespace tern::distill
