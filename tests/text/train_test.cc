// Training on awkward text: what may be inside of pieces, what the errors say, and that every text
// still comes back.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "base/utf8.h"
#include "text/train_tokenizer.h"

namespace tern::text {
namespace {

std::string Repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::string MessageOf(const std::vector<std::string_view>& documents, TokenizerTraining options) {
  try {
    TrainTokenizer(documents, options);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

void ExpectRoundTrip(const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  EXPECT_EQ(tokenizer.Decode(ids), text);
  StreamDecoder stream(tokenizer);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.Push(id);
  EXPECT_EQ(streamed + stream.Finish(), text) << "streamed";
}

const std::string kAwkward =
    "def f(x):\n\tif x  >  0:\n\t\treturn x\r\n\r\n"
    "     deep indent\n trailing   \n\n\n"
    "e\xCC\x81 \xC3\xA9 \xE2\x96\x81 mark \xE2\x96\x85 block \xE2\x81\x87 \xEF\xBB\xBF bom\n"
    "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 zwj\n"
    "\xE4\xB8\xAD\xE6\x96\x87\xE5\x92\x8C\xE6\x97\xA5\xE6\x9C\xAC\n"
    "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D \xD8\xB3\xD9\x84\xD8\xA7\xD9\x85 <s> </s> <unk> <0x41>\n"
    "0123456789 2026-11-24\x01\x02\x7F\xC2\xA0nbsp\xE3\x80\x80wide space\xE2\x80\xA8 line "
    "separator\n";

TEST(TrainTokenizerTest, AwkwardTextTrainsAndComesBack) {
  const std::string text = Repeat(kAwkward, 40);
  const Tokenizer tokenizer = TrainTokenizer({text}, {380});
  EXPECT_EQ(tokenizer.vocab_size(), 380);
  ExpectRoundTrip(tokenizer, kAwkward);
  for (size_t i = 1; i < kAwkward.size(); ++i) {  // Every beginning and every end of it.
    const size_t cut = CharacterBorder(kAwkward, i);
    ExpectRoundTrip(tokenizer, kAwkward.substr(cut));
    ExpectRoundTrip(tokenizer, kAwkward.substr(0, cut));
  }
}

TEST(TrainTokenizerTest, LayoutOfTheVocabulary) {
  const std::string text = Repeat(kAwkward, 40);
  const Tokenizer tokenizer = TrainTokenizer({text}, {380});
  EXPECT_EQ(tokenizer.piece(0), "<unk>");
  EXPECT_EQ(tokenizer.piece(1), "<s>");
  EXPECT_EQ(tokenizer.piece(2), "</s>");
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  for (int32_t id = 3; id < 259; ++id) {
    ASSERT_EQ(tokenizer.type(id), PieceType::kByte);
    EXPECT_EQ(tokenizer.BytesOf(id), std::string(1, static_cast<char>(id - 3)));
  }
  for (int32_t id = 259; id < tokenizer.vocab_size(); ++id) {
    EXPECT_EQ(tokenizer.type(id), PieceType::kNormal);
    const std::string& bytes = tokenizer.BytesOf(id);
    EXPECT_EQ(bytes.find_first_of("\n\r\t"), std::string::npos) << id;
    EXPECT_FALSE(bytes.size() > 1 && bytes.find_first_of("0123456789") != std::string::npos)
        << "digits stand alone: " << bytes;
  }
}

TEST(TrainTokenizerTest, NoLineEndAtAllAndVeryLongLines) {
  std::string line;
  for (int i = 0; i < 20000; ++i) line += "word" + std::to_string(i % 97) + " ";
  const Tokenizer tokenizer = TrainTokenizer({line}, {280});
  ExpectRoundTrip(tokenizer, line);
  const std::string wide =
      Repeat("\xE4\xB8\xAD\xE6\x96\x87", 20000);  // Cuts fall inside of characters.
  ExpectRoundTrip(TrainTokenizer({wide}, {262}), wide);
}

// Cutting at line ends inside of Encode must not be seen: ids of the whole are those of its lines.
TEST(TrainTokenizerTest, IdsOfLinesJoinToTheIdsOfTheText) {
  const std::string text = Repeat(kAwkward, 40);
  const Tokenizer tokenizer = TrainTokenizer({text}, {380});
  std::vector<int32_t> joined;
  for (size_t at = 0; at < kAwkward.size();) {
    const size_t end = kAwkward.find('\n', at) + 1;
    const auto part = tokenizer.Encode(std::string_view(kAwkward).substr(at, end - at));
    joined.insert(joined.end(), part.begin(), part.end());
    at = end;
  }
  EXPECT_EQ(joined, tokenizer.Encode(kAwkward));
}

// More kinds of characters than the vocabulary has room for: the rare ones use bytes, or the error
// says how large it must be.
TEST(TrainTokenizerTest, MoreCharactersThanPieces) {
  std::string text;
  for (int code = 0x4E00; code < 0x4E00 + 2000; ++code) {
    text += {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
             static_cast<char>(0x80 | (code & 63)), ' '};
  }
  const std::string message = MessageOf({text}, {400});
  EXPECT_NE(message.find("vocab_size"), std::string::npos) << message;
  EXPECT_EQ(message.find(".cc"), std::string::npos) << "no source line of a library: " << message;
  const std::string common = Repeat("many common words of English ", 8000);
  const Tokenizer small = TrainTokenizer({common, text}, {290, 0.98});
  ExpectRoundTrip(small, text);
  EXPECT_NE(MessageOf({common}, {290, 0.5}).find("0.98"), std::string::npos);
}

TEST(TrainTokenizerTest, TheLargestSizeOfTheMessageWorks) {
  const std::string text = Repeat("a small text of a few words, again and again. ", 5);
  const std::string message = MessageOf({text}, {5000});
  const size_t at = message.find("at most ");
  ASSERT_NE(at, std::string::npos) << message;
  const int64_t largest = std::stoll(message.substr(at + 8));
  EXPECT_EQ(TrainTokenizer({text}, {largest}).vocab_size(), largest);
  EXPECT_NE(MessageOf({text}, {largest + 1}), "no error");
}

TEST(TrainTokenizerTest, EmptyBinaryAndForeignTextIsRefused) {
  EXPECT_NE(MessageOf({}, {300}), "no error");
  EXPECT_NE(MessageOf({""}, {300}), "no error");
  EXPECT_NE(MessageOf({"\n\t\r\n"}, {300}), "no error");
  EXPECT_NE(MessageOf({std::string_view("a\0b", 3)}, {300}).find("NUL"), std::string::npos);
  EXPECT_NE(MessageOf({"good", "caf\xE9"}, {300}).find("byte 3"), std::string::npos);
  EXPECT_NE(MessageOf({"good"}, {259}).find("260"), std::string::npos);
  EXPECT_NE(MessageOf({"good"}, {kMaxVocabSize + 1}), "no error");
}

// Borders between documents and the number of documents have no part in what is learned.
TEST(TrainTokenizerTest, DocumentsAreJustLines) {
  const std::string text = Repeat(kAwkward, 40);
  const size_t half = text.find('\n', text.size() / 2) + 1;
  const std::string_view all = text;
  EXPECT_EQ(TrainTokenizer({all.substr(0, half), all.substr(half)}, {380}).sha256(),
            TrainTokenizer({all}, {380}).sha256());
}

TEST(Utf8BorderTest, TailsThatMoreBytesCanComplete) {
  const std::string face = "\xF0\x9F\x98\x80";
  for (int64_t size = 0; size <= 4; ++size) {
    EXPECT_EQ(IncompleteTail("ab" + face.substr(0, static_cast<size_t>(size))), size % 4);
    EXPECT_EQ(CharacterBorder("ab" + face, static_cast<size_t>(2 + size)), size < 4 ? 2u : 6u);
  }
  EXPECT_EQ(IncompleteTail(""), 0);
  EXPECT_EQ(IncompleteTail("\xC3\xA9"), 0) << "complete";
  EXPECT_EQ(IncompleteTail("\xE0\x80"), 0) << "nothing makes this a shortest form";
  EXPECT_EQ(IncompleteTail("\xED\xA0"), 0) << "a surrogate";
  EXPECT_EQ(IncompleteTail("\x80\x80"), 0) << "no beginning";
  EXPECT_EQ(IncompleteTail("\xFF"), 0);
}

// Byte pieces in any order: only whole sequences come out, nothing is lost, nothing is invalid.
TEST(StreamDecoderFuzz, AnyIdsGiveValidUtf8) {
  const std::string text = Repeat(kAwkward, 40);
  const Tokenizer tokenizer = TrainTokenizer({text}, {380});
  RandomStream random(3, "fuzz");
  for (int round = 0; round < 3000; ++round) {
    StreamDecoder decoder(tokenizer);
    std::string out;
    for (int i = 0; i < 12; ++i) {
      // Mostly bytes that can begin or go on a sequence.
      const int32_t id = static_cast<int32_t>(
          random.NextU64() % 4 == 0 ? random.NextU64() % 380 : 131 + random.NextU64() % 128);
      const std::string piece = decoder.Push(id);
      EXPECT_FALSE(FirstInvalidUtf8(piece)) << round;
      out += piece;
    }
    out += decoder.Finish();
    EXPECT_FALSE(FirstInvalidUtf8(out)) << round;
  }
}

}  // namespace
}  // namespace tern::text
