// Tokenizers that we train lose nothing, depend on the text and the size alone, and come back from
// the arrays of a GGUF file.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "base/utf8.h"
#include "text/train_tokenizer.h"

namespace tern::text {
namespace {

std::string Prose() {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "the quick brown fox number " + std::to_string(i) +
            " jumps over the lazy dog, and then\nthe dog  sleeps.\n\n";
  }
  return text;
}

const Tokenizer& Trained() {
  static const Tokenizer tokenizer = [] {
    const std::string text = Prose();
    return TrainTokenizer({text}, {320});
  }();
  return tokenizer;
}

const char* const kNasty[] = {
    "",
    " ",
    "   leading and trailing   ",
    "a\tb\r\nc\n\n\nd",
    "e\xCC\x81 combining, \xC3\xA9 composed",
    "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 family",
    "\xE4\xB8\xAD\xE6\x96\x87\xE5\x92\x8C\xE6\x97\xA5\xE6\x9C\xAC",
    "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D right to left",
    "1234567890 3.14 1,000",
    "it's we'll I'd",
    "\x01\x02\x1B[0m\x7F",
    "for (int i = 0; i < n; ++i) { x[i] += 1; }",
    "U+2581 itself: \xE2\x96\x81 and \xE2\x96\x81\xE2\x96\x81",
    "<s> </s> <unk> <0x0A> spelled out",
};

TEST(TokenizerTest, EveryTextComesBack) {
  for (const char* text : kNasty) EXPECT_EQ(Trained().Decode(Trained().Encode(text)), text);
  EXPECT_EQ(Trained().Decode(Trained().Encode(Prose())), Prose());
  EXPECT_LT(Trained().Encode(Prose()).size(), Prose().size()) << "pieces are longer than bytes";
}

TEST(TokenizerTest, RandomUnicodeComesBack) {
  RandomStream random(7, "test");
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (uint64_t n = random.NextU64() % 40; n > 0; --n) {
      uint32_t code = static_cast<uint32_t>(random.NextU64() % 0x10FFFF) + 1;
      if (code >= 0xD800 && code <= 0xDFFF) code = 0x20;
      if (code < 0x80) {
        text += static_cast<char>(code);
      } else if (code < 0x800) {
        text += {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
      } else if (code < 0x10000) {
        text += {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
                 static_cast<char>(0x80 | (code & 63))};
      } else {
        text += {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
                 static_cast<char>(0x80 | (code >> 6 & 63)), static_cast<char>(0x80 | (code & 63))};
      }
    }
    ASSERT_EQ(Trained().Decode(Trained().Encode(text)), text);
  }
}

TEST(TokenizerTest, ControlPiecesInTheTextArePlainText) {
  for (const int32_t id : Trained().Encode("<s></s>"))
    EXPECT_NE(Trained().type(id), PieceType::kControl);
}

TEST(TokenizerTest, TrainingIsDeterministic) {
  const std::string text = Prose();
  EXPECT_EQ(TrainTokenizer({text}, {320}).sha256(), Trained().sha256());
  EXPECT_EQ(Trained().vocab_size(), 320);
}

TEST(TokenizerTest, ThePieceTableGivesTheSameTokenizerBack) {
  const Tokenizer copy = Tokenizer::FromPieces(Trained().table());
  EXPECT_EQ(copy.sha256(), Trained().sha256());
  for (const char* text : kNasty) EXPECT_EQ(copy.Encode(text), Trained().Encode(text));
}

TEST(TokenizerTest, RefusesWhatItCannotKeep) {
  EXPECT_THROW(Trained().Encode(std::string("a\0b", 3)), InputError);
  EXPECT_THROW(Trained().Encode("\xFF"), InputError);
  EXPECT_THROW(Trained().Decode({320}), InputError);
  EXPECT_THROW(Trained().Decode({-1}), InputError);
  EXPECT_THROW(Tokenizer::FromSerialized("no model", "x"), FormatError);
  PieceTable table = Trained().table();
  table.pieces[300] = table.pieces[299];
  EXPECT_THROW(Tokenizer::FromPieces(table), FormatError);
}

TEST(TokenizerTest, VocabularyLargerThanTheTextSupportsSaysHowManyItCan) {
  try {
    TrainTokenizer({"a tiny text"}, {4000});
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("set data.tokenizer.vocab_size to at most"),
              std::string::npos)
        << error.what();
  }
  EXPECT_THROW(TrainTokenizer({"\n\n"}, {300}), InputError);
  EXPECT_THROW(TrainTokenizer({"text"}, {100}), InputError);
}

TEST(StreamDecoderTest, GivesWholeSequencesOnly) {
  const std::string text = "a \xF0\x9F\x98\x80 b \xC3\xA9";
  StreamDecoder decoder(Trained());
  std::string all;
  for (const int32_t id : Trained().Encode(text)) {
    const std::string piece = decoder.Push(id);
    EXPECT_FALSE(FirstInvalidUtf8(piece).has_value());
    all += piece;
  }
  EXPECT_EQ(all + decoder.Finish(), text);
  decoder.Push(Trained().Encode("\xF0\x9F\x98\x80")[0]);
  EXPECT_EQ(decoder.Finish(), "\xEF\xBF\xBD") << "an unfinished character";
}

TEST(TokenizerFuzz, DamagedModelFilesAreRefusedOrRead) {
  RandomStream random(1, "fuzz");
  const std::string model = Trained().serialized();
  for (int round = 0; round < 600; ++round) {
    std::string bytes = model;
    if (round % 2 == 0) bytes.resize(random.NextU64() % bytes.size());
    for (int flips = 0; flips < 3 && !bytes.empty(); ++flips) {
      bytes[random.NextU64() % bytes.size()] ^= static_cast<char>(1u << random.NextU64() % 8);
    }
    try {
      Tokenizer::FromSerialized(bytes, "fuzz").Encode("the dog");
    } catch (const Error&) {  // Refused: that is what is wanted.
    }
  }
}

TEST(Utf8Test, FindsTheFirstBadByte) {
  EXPECT_FALSE(FirstInvalidUtf8("plain \xE2\x82\xAC \xF4\x8F\xBF\xBF"));
  EXPECT_EQ(FirstInvalidUtf8("ab\x80"), 2);
  EXPECT_EQ(FirstInvalidUtf8("\xC0\x80"), 0) << "not the shortest form";
  EXPECT_EQ(FirstInvalidUtf8("\xED\xA0\x80"), 0) << "a surrogate";
  EXPECT_EQ(FirstInvalidUtf8("\xF4\x90\x80\x80"), 0) << "above U+10FFFF";
  EXPECT_EQ(FirstInvalidUtf8("x\xE2\x82"), 1) << "cut off";
  try {
    CheckText("one\ntwo\xFF", "f.txt");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).substr(0, 22), "f.txt: byte 7 (line 2)");
  }
}

}  // namespace
}  // namespace tern::text
