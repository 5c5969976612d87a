// How files become documents and sides: borders of a single document, equal names and equal texts.
#include "data/corpus.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <set>

#include "base/error.h"
#include "tests/testing/temp_folder.h"

namespace tern::data {
namespace {

using tern::testing::TempFolder;

class CorpusFilesTest : public ::testing::Test {
 protected:
  std::string Add(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  Corpus Load(const std::string& pattern, double fraction) {
    CorpusOptions options;
    options.files = {pattern};
    options.validation_fraction = fraction;
    return LoadCorpus(options);
  }
  TempFolder folder_;
};

int64_t Bytes(const std::vector<Document>& documents) {
  return std::accumulate(documents.begin(), documents.end(), int64_t{0}, [](int64_t n, auto& d) {
    return n + static_cast<int64_t>(d.text.size());
  });
}

// A title with a blank line is the only paragraph border: it must not hold out the whole book.
TEST_F(CorpusFilesTest, AFarParagraphBorderGivesWayToALineNearby) {
  std::string text = "TITLE\n\n";
  for (int i = 0; i < 1000; ++i) text += "a line of nine words that are all alike\n";
  const Corpus corpus = Load(Add("book.txt", text), 0.1);
  EXPECT_EQ(corpus.train[0].text + corpus.validation[0].text, text);
  EXPECT_NEAR(static_cast<double>(Bytes(corpus.validation)), 0.1 * text.size(), 40);
  EXPECT_EQ(corpus.train[0].text.back(), '\n');
}

TEST_F(CorpusFilesTest, OneLineIsCutAtAWordAndOneWordIsRefused) {
  const Corpus corpus = Load(Add("line.txt", "one two three four five six seven eight"), 0.25);
  EXPECT_EQ(corpus.train[0].text.back(), ' ');
  EXPECT_EQ(Bytes(corpus.train) + Bytes(corpus.validation), 39);
  EXPECT_THROW(Load(Add("word.txt", std::string(500, 'x')), 0.1), InputError);
  EXPECT_THROW(Load(Add("end.txt", "x\n\n"), 0.5), InputError) << "no text behind the border";
  EXPECT_EQ(Load(folder_ / "word.txt", 0).train.size(), 1u) << "no share: nothing to cut";
}

TEST_F(CorpusFilesTest, SharesOfEveryDocumentCount) {
  for (int i = 0; i < 30; ++i) {
    Add("d" + std::to_string(100 + i), std::string(static_cast<size_t>(50 + 17 * i), 'a'));
    if (i == 0) continue;
    for (const double fraction : {1e-9, 0.05, 0.3, 0.5, 0.95, 0.999999}) {
      const Corpus corpus = Load(folder_ / "d*", fraction);
      EXPECT_FALSE(corpus.train.empty());
      EXPECT_FALSE(corpus.validation.empty());
      std::set<std::string> names;
      for (const Document& d : corpus.train) names.insert(d.name);
      for (const Document& d : corpus.validation) names.insert(d.name);
      EXPECT_EQ(static_cast<int>(names.size()), i + 1) << "each on one side";
      const double share = static_cast<double>(Bytes(corpus.validation)) /
                           static_cast<double>(Bytes(corpus.train) + Bytes(corpus.validation));
      if (i > 20 && fraction > 0.01 && fraction < 0.9) {
        EXPECT_NEAR(share, fraction, 0.06);
      }
    }
  }
  EXPECT_THROW(Load(folder_ / "d*", 1.0), RecipeError);
  EXPECT_THROW(Load(folder_ / "d*", -0.1), RecipeError);
  EXPECT_THROW(Load(folder_ / "d*", std::nan("")), RecipeError);
}

TEST_F(CorpusFilesTest, OneFileNamedTwiceIsOneDocument) {
  const std::string path = Add("a.txt", "text of a");
  Add("b.txt", "text of b");
  const std::vector<std::string> files =
      ExpandGlobs({folder_ / "b.txt", folder_ / "*.txt", folder_.path() + "/./a.txt", path});
  EXPECT_EQ(files, (std::vector<std::string>{path, folder_ / "b.txt"}));
  CorpusOptions options;
  options.files = {folder_ / "*.txt"};
  options.validation_files = {folder_.path() + "//a.txt"};
  const Corpus corpus = LoadCorpus(options);
  ASSERT_EQ(corpus.train.size(), 1u);
  EXPECT_EQ(corpus.train[0].name, folder_ / "b.txt");
  EXPECT_EQ(corpus.sources.size(), 2u);
  options.files = {path};
  EXPECT_THROW(LoadCorpus(options), InputError) << "nothing is left to train on";
  options.files = {};
  EXPECT_THROW(LoadCorpus(options), InputError);
}

TEST_F(CorpusFilesTest, EqualTextsOnBothSidesAreNoted) {
  Add("a.txt", "the same text");
  Add("b.txt", "another text");
  Add("c.txt", "the same text");
  CorpusOptions options;
  options.files = {folder_ / "*.txt"};
  options.validation_files = {folder_ / "b.txt"};
  EXPECT_TRUE(LoadCorpus(options).notes.empty());
  options.validation_files = {folder_ / "c.txt"};
  const Corpus corpus = LoadCorpus(options);
  ASSERT_EQ(corpus.notes.size(), 1u);
  EXPECT_NE(corpus.notes[0].find("c.txt"), std::string::npos);
  EXPECT_NE(corpus.notes[0].find("a.txt"), std::string::npos);
}

}  // namespace
}  // namespace tern::data
