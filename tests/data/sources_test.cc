// Mixtures and the token files of other programs: exact shares, coverage without replacement, an
// order that is a pure function of its index, and files that are refused by name when damaged.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "data/loader.h"
#include "data/mapped_tokens.h"
#include "data/token_file.h"
#include "tests/testing/temp_folder.h"

namespace tern::data {
namespace {

using tern::testing::TempFolder;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

const std::vector<std::vector<double>> kWeights = {{1},
                                                   {0.7, 0.2, 0.1},
                                                   {1, 1, 1},
                                                   {1e-6, 1},
                                                   {3, 2, 2},
                                                   {0.5, 0.3, 0.15, 0.05},
                                                   {1 / 3.0, M_PI, 1e-3},
                                                   {1e6, 1, 1, 1, 1, 1, 1, 1},
                                                   {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13},
                                                   {1e300, 1e300},
                                                   {0.999999, 0.000001}};

// Goal: after any n samples each part came n * w times, less than one off. Weights without 6 exact
// decimals are kept to 2^-41 of their sum, which over 20,000 samples is 1e-8 of a sample.
TEST(MixtureOrderTest, SharesAreExactAfterEverySample) {
  for (const std::vector<double>& weights : kWeights) {
    const MixtureOrder order(weights);
    double sum = 0;
    for (const double weight : weights) sum += weight / weights[0];
    std::vector<int64_t> counts(weights.size());
    for (int64_t n = 0; n < 20'000; ++n) {
      const MixtureOrder::Pick pick = order.At(n);
      ASSERT_EQ(pick.index, counts[static_cast<size_t>(pick.part)]++) << "no sample left out";
      for (size_t part = 0; part < weights.size(); ++part) {
        const double want = static_cast<double>(n + 1) * (weights[part] / weights[0] / sum);
        ASSERT_LT(std::fabs(static_cast<double>(counts[part]) - want), 1 + 1e-7)
            << "part " << part << " of " << weights.size() << " after " << n + 1;
      }
    }
    EXPECT_EQ(order.Counts(20'000), counts);
  }
}

TEST(MixtureOrderTest, ALookUpDependsOnNothingButItsIndex) {
  RandomStream random(5, "look-ups");
  for (const std::vector<double>& weights : kWeights) {
    const MixtureOrder forward(weights), jumping(weights);
    std::vector<MixtureOrder::Pick> picks;
    for (int64_t n = 0; n < 5000; ++n) picks.push_back(forward.At(n));
    for (int i = 0; i < 300; ++i) {
      const int64_t n = static_cast<int64_t>(random.NextU64() % picks.size());
      const MixtureOrder::Pick pick = jumping.At(n);
      ASSERT_EQ(pick.part, picks[static_cast<size_t>(n)].part);
      ASSERT_EQ(pick.index, picks[static_cast<size_t>(n)].index);
      int64_t all = 0;
      for (const int64_t count : jumping.Counts(n)) all += count;
      ASSERT_EQ(all, n);
    }
  }
}

// A period of 10: sample 10^17 + 3 needs no walk from 0.
TEST(MixtureOrderTest, FarSamplesOfAShortPeriodAreNear) {
  const MixtureOrder order({0.7, 0.2, 0.1});
  const int64_t far = 100'000'000'000'000'000;
  EXPECT_EQ(order.At(far + 3).part, order.At(3).part);
  EXPECT_EQ(order.Counts(far), (std::vector<int64_t>{far / 10 * 7, far / 10 * 2, far / 10}));
  EXPECT_THROW(MixtureOrder({1, 0}), InputError);
  EXPECT_THROW(MixtureOrder({1, std::nan("")}), InputError);
  EXPECT_THROW(MixtureOrder({}), InputError);
}

// Golden, from this code on x86-64: a change of the order breaks resumed runs.
TEST(MixtureOrderTest, TheOrderIsFixed) {
  const MixtureOrder order({0.5, 0.3, 0.2});
  std::string parts;
  for (int64_t i = 0; i < 20; ++i) parts += static_cast<char>('a' + order.At(i).part);
  EXPECT_EQ(parts, "abacababacabacababac");
}

std::unique_ptr<TokenSource> Memory(int32_t first, int32_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) ids[static_cast<size_t>(i)] = first + i;
  return std::make_unique<TokenFile>(TokenFile::FromTokens({ids}, {{1, 2, 3}}, 1'000'000));
}

std::unique_ptr<TokenSource> TwoParts(double a, double b) {
  std::vector<std::unique_ptr<TokenSource>> sources;
  sources.push_back(Memory(0, 333));
  sources.push_back(Memory(100'000, 8 * 20 + 5));
  return JoinSources(std::move(sources), {"a", "b"}, {a, b});
}

TEST(MixtureTest, EachPartIsTraversedAsIfAlone) {
  const auto both = TwoParts(0.6, 0.4);
  const MixtureSampler sampler(both->Parts(Split::kTrain), 8, 7);
  const Sampler a(333, 8, 7), b(165, 8, 7);
  int64_t next_a = 0, next_b = 0;
  for (int64_t i = 0; i < 500; ++i) {
    const int64_t start = sampler.WindowStart(i);
    if (start < 333) {
      ASSERT_EQ(start, a.WindowStart(next_a++));
    } else {
      ASSERT_EQ(start - 333, b.WindowStart(next_b++));
    }
  }
  EXPECT_EQ(next_a, 300);
  const std::vector<MixtureSampler::Share> shares = sampler.Shares(500);
  EXPECT_EQ(shares[1].samples, 200);
  EXPECT_EQ(shares[1].name, "b");
  EXPECT_DOUBLE_EQ(shares[1].epochs, 200.0 / static_cast<double>(b.windows_per_epoch()));
}

TEST(MixtureTest, WindowsNeverCrossAndStepsResume) {
  const auto both = TwoParts(1, 2);
  LoaderOptions options;
  options.sequence_length = 8;
  options.sequences_per_step = 6;
  BatchLoader whole(*both, options);
  for (int64_t step = 0; step < 40; ++step) {
    const Batch batch = whole.Next();
    for (size_t i = 0; i < batch.inputs.size(); ++i)
      ASSERT_EQ(batch.targets[i], batch.inputs[i] + 1) << "a window across two sources";
    options.first_step = step;
    BatchLoader resumed(*both, options);
    ASSERT_EQ(resumed.Next().Hash(), batch.Hash()) << step;
  }
  EXPECT_THROW(MixtureSampler(both->Parts(Split::kTrain), 165, 1), InputError);
  EXPECT_EQ(EvalWindows(*both, Split::kValidation, 4).size(), 2u);
}

class MappedTest : public ::testing::Test {
 protected:
  // Documents of 0, 1, 3 and 300 tokens; 304 in all.
  std::string Megatron(int64_t vocab) {
    const std::string prefix = folder_ / "m";
    MegatronWriter writer(prefix, vocab);
    std::vector<int32_t> ids(300);
    for (int32_t i = 0; i < 300; ++i) ids[static_cast<size_t>(i)] = i;
    for (const int64_t size : {0, 1, 3, 300}) writer.AddDocument(ids.data(), size);
    writer.Commit();
    return prefix;
  }
  std::string Llmc(int32_t magic, int32_t version, int32_t count, const std::string& tokens) {
    std::vector<int32_t> header(256);
    header[0] = magic;
    header[1] = version;
    header[2] = count;
    std::string bytes(reinterpret_cast<const char*>(header.data()), 1024);
    WriteFileAtomically(folder_ / "l.bin", bytes + tokens);
    return folder_ / "l.bin";
  }
  template <class T>
  static std::string Bytes(const std::vector<T>& ids) {
    return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(T)};
  }
  static std::vector<int32_t> All(const TokenSource& source) {
    std::vector<int32_t> ids(static_cast<size_t>(source.NumTokens(Split::kTrain)));
    source.Copy(Split::kTrain, 0, source.NumTokens(Split::kTrain), ids.data());
    return ids;
  }
  template <class Function>
  static std::string Refused(const Function& open) {
    try {
      open();
    } catch (const FormatError& error) {
      return error.what();
    }
    return "accepted";
  }
  TempFolder folder_;
};

TEST_F(MappedTest, MegatronFilesReadBackInBothWidths) {
  for (const int64_t vocab : {300, 65536, 65537}) {
    const std::string prefix = Megatron(vocab);
    EXPECT_EQ(std::string(ReadFile(prefix + ".bin")).size(), vocab <= 65536 ? 608u : 1216u);
    for (const char* ending : {"", ".bin", ".idx"}) {
      const auto source = OpenMegatron(prefix + ending, Split::kTrain, vocab);
      const std::vector<int32_t> ids = All(*source);
      ASSERT_EQ(ids.size(), 304u);
      EXPECT_EQ((std::vector<int32_t>{ids.begin(), ids.begin() + 6}),
                (std::vector<int32_t>{0, 0, 1, 2, 0, 1}));
      EXPECT_EQ(ids.back(), 299);
      EXPECT_EQ(source->DocumentsIn(Split::kTrain, 0, 400), (std::vector<int64_t>{0, 1, 4}));
      EXPECT_EQ(source->DocumentsIn(Split::kTrain, 1, 4), (std::vector<int64_t>{1}));
      EXPECT_EQ(source->DocumentsIn(Split::kTrain, 5, 400), (std::vector<int64_t>{}));
      EXPECT_EQ(source->NumTokens(Split::kValidation), 0);
    }
    EXPECT_HAS(Refused([&] { All(*OpenMegatron(prefix, Split::kTrain, 299)); }),
               "token 303 is 299; the vocabulary has 299");
  }
  EXPECT_THROW(OpenMegatron(folder_ / "none", Split::kTrain, 10), InputError);
}

TEST_F(MappedTest, DamagedIndexesAreNamed) {
  const std::string prefix = Megatron(300), index = ReadFile(prefix + ".idx");
  const auto refused = [&](size_t at, int64_t value, size_t width) {
    std::string bytes = index;
    std::memcpy(bytes.data() + at, &value, width);
    WriteFileAtomically(prefix + ".idx", bytes);
    return Refused([&] { OpenMegatron(prefix, Split::kTrain, 300); });
  };
  EXPECT_EQ(refused(9, 1, 8), "accepted");
  EXPECT_HAS(refused(0, 'X', 1), "MMIDIDX");
  EXPECT_HAS(refused(9, 2, 8), "version 2");
  EXPECT_HAS(refused(17, 6, 1), "type code 6");
  EXPECT_HAS(refused(17, 4, 1), "sequence");  // int32: the .bin is too short
  EXPECT_HAS(refused(18, -1, 8), "do not fit");
  EXPECT_HAS(refused(18, INT64_MAX / 6, 8), "do not fit");
  EXPECT_HAS(refused(26, 7, 8), "do not fit");
  EXPECT_HAS(refused(34, -1, 4), "sequence 0 has -1 tokens");
  EXPECT_HAS(refused(34 + 12, 299, 4), "the sequences have 606 bytes");
  EXPECT_HAS(refused(34 + 12, 301, 4), "sequence 3 has 301 tokens");
  EXPECT_HAS(refused(34 + 16 + 8, 2, 8), "sequence 1 has 1 tokens at byte 2");
  EXPECT_HAS(refused(34 + 16 + 32, 1, 8), "borders");
  EXPECT_HAS(refused(34 + 16 + 32 + 8, 3, 8), "borders");
  EXPECT_HAS(refused(34 + 16 + 32 + 32, 5, 8), "borders");
}

TEST_F(MappedTest, LlmcFilesOfBothKinds) {
  const std::vector<uint16_t> narrow = {50256, 5, 6, 50256, 7};
  const auto gpt2 = OpenLlmc(Llmc(20240520, 1, 5, Bytes(narrow)), Split::kTrain, 50257);
  EXPECT_EQ(All(*gpt2), (std::vector<int32_t>{50256, 5, 6, 50256, 7}));
  EXPECT_EQ(gpt2->DocumentsIn(Split::kTrain, 0, 5), (std::vector<int64_t>{0, 3}));
  const std::vector<uint32_t> wide = {9, 128000, 3'000'000'000};
  const auto llama = OpenLlmc(Llmc(20240801, 7, 3, Bytes(wide)), Split::kTrain, 128256);
  EXPECT_EQ(llama->DocumentsIn(Split::kTrain, 0, 9), (std::vector<int64_t>{0, 1}));
  EXPECT_HAS(Refused([&] { All(*llama); }), "token 2 is 3000000000");
  const auto refused = [&](int32_t magic, int32_t version, int32_t count) {
    return Refused(
        [&] { OpenLlmc(Llmc(magic, version, count, Bytes(narrow)), Split::kTrain, 50257); });
  };
  EXPECT_HAS(refused(20240522, 1, 5), "no llm.c token file");
  EXPECT_HAS(refused(20240520, 7, 5), "version 7; want 1");
  EXPECT_HAS(refused(20240520, 1, 4), "4 tokens of 2 bytes");
  EXPECT_HAS(refused(20240520, 1, -5), "-5 tokens");
  EXPECT_HAS(refused(20240801, 7, 5), "5 tokens of 4 bytes");
  WriteFileAtomically(folder_ / "l.bin", std::string(1023, '\0'));
  EXPECT_HAS(Refused([&] { OpenLlmc(folder_ / "l.bin", Split::kTrain, 9); }), "1023 bytes");
}

TEST_F(MappedTest, JoinedSourcesAreOneStream) {
  const std::string prefix = Megatron(65537);
  std::vector<std::unique_ptr<TokenSource>> sources;
  sources.push_back(OpenMegatron(prefix, Split::kValidation, 300));  // Nothing to train on
  sources.push_back(OpenMegatron(prefix, Split::kTrain, 300));
  sources.push_back(Memory(0, 10));
  sources.push_back(OpenMegatron(prefix, Split::kTrain, 300));
  const auto all = JoinSources(std::move(sources), {"v", "a", "b", "c"}, {1, 2, 3, 4});
  EXPECT_EQ(all->NumTokens(Split::kTrain), 618);
  EXPECT_EQ(all->DocumentsIn(Split::kTrain, 1, 318), (std::vector<int64_t>{1, 4, 304, 314, 315}));
  std::vector<int32_t> ids(14);
  all->Copy(Split::kTrain, 302, 14, ids.data());
  EXPECT_EQ(ids, (std::vector<int32_t>{298, 299, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0}));
  const std::vector<TokenPart> parts = all->Parts(Split::kTrain);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[1].begin, 304);
  EXPECT_EQ(parts[1].weight, 3);
}

using MappedFuzz = MappedTest;

TEST_F(MappedFuzz, DamagedFilesAreRefusedOrRead) {
  const std::string prefix = Megatron(300);
  const std::string index = ReadFile(prefix + ".idx"), data = ReadFile(prefix + ".bin");
  const std::string llmc = ReadFile(Llmc(20240520, 1, 304, data));
  RandomStream random(1, "fuzz");
  const auto damage = [&](std::string bytes) {
    if (random.NextU64() % 3 == 0) bytes.resize(random.NextU64() % (bytes.size() + 1));
    for (uint64_t flips = random.NextU64() % 3; flips > 0 && !bytes.empty(); --flips) {
      const uint64_t at = random.NextU64() % (random.NextU64() % 2 ? 64 : bytes.size());
      bytes[at % bytes.size()] ^= static_cast<char>(1u << random.NextU64() % 8);
    }
    return bytes;
  };
  const auto read = [](const TokenSource& source) {
    All(source);
    source.DocumentsIn(Split::kTrain, 0, INT64_MAX);
  };
  int refused = 0;
  for (int round = 0; round < 600; ++round) {
    WriteFileAtomically(prefix + ".idx", damage(index));
    WriteFileAtomically(prefix + ".bin", round % 4 == 0 ? damage(data) : data);
    WriteFileAtomically(folder_ / "l.bin", damage(llmc));
    try {
      read(*OpenMegatron(prefix, Split::kTrain, 300));
    } catch (const FormatError&) {
      ++refused;
    }
    try {
      read(*OpenLlmc(folder_ / "l.bin", Split::kTrain, 300));
    } catch (const FormatError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace tern::data
