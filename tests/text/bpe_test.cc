// BPE tokenizers give the ids and texts of HF tokenizers (golden/tokenizers.json, written by
// tests/peers/check_tokenizers.py --golden with the version it names): small vocabularies of each
// family. What is malformed is refused with the place, patterns that backtrack without end are an
// error, and whatever a file holds ends with ids or a typed error.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "base/utf8.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace tern::text {
namespace {

using nlohmann::json;

const json& Golden() {
  static const json golden =
      json::parse(ReadFile(TERN_SOURCE_DIR "/tests/text/golden/tokenizers.json"));
  return golden;
}

const json& FamilyJson(const std::string& family) {
  return Golden()["families"][family]["tokenizer"];
}

Tokenizer Read(const json& tokenizer) {
  return Tokenizer::FromSerialized(tokenizer.dump(), "tokenizer.json");
}

std::vector<std::string> Families() {
  std::vector<std::string> names;
  for (const auto& [name, unused] : Golden()["families"].items()) names.push_back(name);
  return names;
}

class BpeFamilyTest : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, BpeFamilyTest, testing::ValuesIn(Families()));

TEST_P(BpeFamilyTest, IdsAndTextsAreThoseOfHfTokenizers) {
  const json& family = Golden()["families"][GetParam()];
  const Tokenizer tokenizer = Read(family["tokenizer"]);
  std::vector<std::string> texts = Golden()["texts"];
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<int32_t> ids = family["ids"][i];
    EXPECT_EQ(tokenizer.Encode(texts[i]), ids) << json(texts[i]);
    EXPECT_EQ(ReplaceInvalidUtf8(tokenizer.Decode(ids)), family["decoded"][i]) << json(texts[i]);
  }
  ThreadPool pool(2);
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const auto batch = tokenizer.EncodeBatch(views, pool.Runner());
  EXPECT_EQ(json(batch), family["ids"]);
}

TEST_P(BpeFamilyTest, StreamsGiveWholeCharacters) {
  const json& family = Golden()["families"][GetParam()];
  const Tokenizer tokenizer = Read(family["tokenizer"]);
  for (const json& row : family["ids"]) {
    const std::vector<int32_t> ids = row;
    StreamDecoder stream(tokenizer);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = stream.Push(id);
      EXPECT_FALSE(FirstInvalidUtf8(piece));
      text += piece;
    }
    EXPECT_EQ(text + stream.Finish(), ReplaceInvalidUtf8(tokenizer.Decode(ids)));
  }
}

TEST_P(BpeFamilyTest, TheFileIsItsIdentity) {
  const Tokenizer tokenizer = Read(FamilyJson(GetParam()));
  const Tokenizer again = Tokenizer::FromSerialized(tokenizer.serialized(), "again");
  EXPECT_EQ(again.sha256(), tokenizer.sha256());
  EXPECT_EQ(again.table().pieces, tokenizer.table().pieces);
}

// GGUF's arrays of a byte-level family.
struct GgufArrays {
  PieceTable table;
  std::vector<std::string> merges;
};
GgufArrays ArraysOf(const json& tokenizer) {
  GgufArrays out;
  out.table = Read(tokenizer).table();
  out.table.bos_id = -1;
  for (const json& merge : tokenizer["model"]["merges"])
    out.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  return out;
}

TEST(BpeGgufTest, ArraysGiveTheIdsOfTokenizerJson) {
  // Families whose pre-tokenizers GGUF has names for; their added tokens without rules of their
  // own.
  for (const auto& [family, pre] : {std::pair("smollm", "smollm"),
                                    {"llama3", "llama-bpe"},
                                    {"qwen2", "qwen2"},
                                    {"o200k", "gpt-4o"},
                                    {"deepseek_v3", "deepseek-v3"}}) {
    json plain = FamilyJson(family);
    auto& added = plain["added_tokens"];
    json kept = json::array();
    for (const json& token : added)
      if (token["special"] == true && token["lstrip"] == false && token["rstrip"] == false)
        kept.push_back(token);
    added = kept;
    const Tokenizer json_tokenizer = Read(plain);
    const GgufArrays arrays = ArraysOf(plain);
    const Tokenizer tokenizer = Tokenizer::FromGgufBpe(arrays.table, arrays.merges, pre, false);
    const Tokenizer kept_as_json =
        Tokenizer::FromSerialized(tokenizer.serialized(), "tokenizer.json");
    for (const std::string text : Golden()["texts"]) {
      EXPECT_EQ(tokenizer.Encode(text), json_tokenizer.Encode(text)) << family << json(text);
      EXPECT_EQ(kept_as_json.Encode(text), json_tokenizer.Encode(text)) << family << json(text);
    }
  }
}

TEST(BpeGgufTest, ArraysThatDoNotFitAreRefused) {
  const GgufArrays good = ArraysOf(FamilyJson("smollm"));
  const auto refused = [&](const auto& change) {
    GgufArrays arrays = good;
    change(&arrays);
    EXPECT_THROW(Tokenizer::FromGgufBpe(arrays.table, arrays.merges, "smollm", true), FormatError);
  };
  refused([](GgufArrays* a) { a->table.types.pop_back(); });
  refused([](GgufArrays* a) { a->table.pieces[5] = a->table.pieces[6]; });
  refused([](GgufArrays* a) { a->table.pieces[5] = ""; });
  refused([](GgufArrays* a) { a->table.pieces[5] = "\xFF"; });
  refused([](GgufArrays* a) { a->merges[3] = "nospace"; });
  refused([](GgufArrays* a) { a->merges[3] = "nothing here"; });
  refused([](GgufArrays* a) { a->table.bos_id = static_cast<int32_t>(a->table.pieces.size()); });
  refused([](GgufArrays* a) { a->table.eos_id = -2; });
  EXPECT_THROW(Tokenizer::FromGgufBpe(good.table, good.merges, "unheard-of", false), InputError);
}

// A vocabulary of letters with byte fallback.
json SmallFallback(bool bytes) {
  json vocab = {{"<unk>", 0}, {"a", 1}, {"b", 2}, {"ab", 3}, {"\xE2\x96\x81", 4}};
  for (int byte = 0; bytes && byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    vocab[name] = 5 + byte;
  }
  return {{"added_tokens", json::array()},
          {"pre_tokenizer",
           {{"type", "Metaspace"},
            {"replacement", "\xE2\x96\x81"},
            {"prepend_scheme", "never"},
            {"split", false}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "\xE2\x96\x81"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"byte_fallback", true},
            {"fuse_unk", true},
            {"vocab", vocab},
            {"merges", {"a b"}}}}};
}

TEST(BpeFallbackTest, CharactersWithoutATokenAreBytesOrUnknown) {
  const Tokenizer bytes = Read(SmallFallback(true));
  EXPECT_EQ(bytes.Encode("ab \xC3\xA9"
                         "b"),
            (std::vector<int32_t>{3, 4, 5 + 0xC3, 5 + 0xA9, 2}));
  EXPECT_EQ(bytes.Decode({3, 4, 5 + 0xC3, 5 + 0xA9, 2}),
            "ab \xC3\xA9"
            "b");
  StreamDecoder stream(bytes);
  EXPECT_EQ(stream.Push(5 + 0xC3), "");
  EXPECT_EQ(stream.Push(1),
            "\xEF\xBF\xBD"
            "a")
      << "a lead byte without its tail";
  for (const int byte : {0xF0, 0x9F, 0x98}) EXPECT_EQ(stream.Push(5 + byte), "");
  EXPECT_EQ(stream.Push(5 + 0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.Push(5 + 0xE2), "");
  EXPECT_EQ(stream.Finish(), "\xEF\xBF\xBD");
  const Tokenizer none = Read(SmallFallback(false));
  EXPECT_EQ(none.Encode("a\xC3\xA9\xC3\xA9"
                        "b"),
            (std::vector<int32_t>{1, 0, 2}))
      << "fused";
}

// One member of SmallFallback with another value.
struct Malformed {
  const char* pointer;
  json value;
  const char* part;  // Of the message
};
std::vector<Malformed> MalformedFiles() {
  return {
      {"/model", nullptr, "model"},
      {"/model", 5, "vocab"},
      {"/model/type", "WordPiece", "WordPiece"},
      {"/model/vocab", nullptr, "vocab"},
      {"/model/vocab", json::object(), "vocab"},
      {"/model/vocab/a", -1, "want 0"},
      {"/model/vocab/a", 1 << 30, "want 0"},
      {"/model/vocab/a", "x", "want 0"},
      {"/model/vocab/a", 1.5, "want 0"},
      {"/model/vocab/a", 2, "is given to"},
      {"/model/merges", nullptr, "merges"},
      {"/model/merges", 1, "merges"},
      {"/model/merges/0", "a", "not two texts"},
      {"/model/merges/0", "a b c", "not two texts"},
      {"/model/merges/0", {"a"}, "not two texts"},
      {"/model/merges/0", "a zz", "not in the vocabulary"},
      {"/model/merges/0", "b a", "not in the vocabulary"},
      {"/model/unk_token", "zz", "not in the vocabulary"},
      {"/model/dropout", 0.5, "dropout"},
      {"/model/end_of_word_suffix", "</w>", "end_of_word_suffix"},
      {"/decoder", nullptr, "decoder"},
      {"/decoder", {{"type", "WordPiece"}}, "WordPiece"},
      {"/decoder", {{"type", "ByteLevel"}}, "both"},
      {"/pre_tokenizer", {{"type", "Nothing"}}, "Nothing"},
      {"/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "(("}}}}, "regular expression"},
      {"/pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Odd"}},
       "Odd"},
      {"/normalizer", {{"type", "Precompiled"}}, "Precompiled"},
      {"/post_processor", {{"type", "Other"}}, "Other"},
      {"/added_tokens", {{{"id", 1}, {"content", "zz"}}}, "is given to"},
      {"/added_tokens", {{{"id", -1}, {"content", "zz"}}}, "want 0"},
      {"/added_tokens", {{{"id", 7'000'000}, {"content", "zz"}}}, "want 0"},
      {"/added_tokens", {{{"content", "zz"}}}, "missing"},
      {"/added_tokens", {5}, "missing"},
      {"/added_tokens", 5, "no list"},
      {"/added_tokens", {{{"id", 300}, {"content", std::string(2000, 'x')}}}, "bytes"},
  };
}

// Unicode's versions differ between the parts of HF tokenizers: its Punctuation is of 2014, its
// lower case of 2025.
TEST(BpeUnicodeTest, TablesAreThoseOfHfTokenizers) {
  json tokenizer = SmallFallback(true);
  tokenizer["pre_tokenizer"] = {{"type", "Punctuation"}, {"behavior", "Isolated"}};
  json& model = tokenizer["model"];
  model["vocab"] = {{"<unk>", 0}, {"a", 1},       {"!", 2},       {"\u2E58", 3},    {"\u166D", 4},
                    {"a!", 5},    {"a\u2E58", 6}, {"a\u166D", 7}, {"\U00010D81", 8}};
  model["merges"] = {"a !", "a \u2E58", "a \u166D"};
  const Tokenizer cut = Read(tokenizer);
  EXPECT_EQ(cut.Encode("a!"), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(cut.Encode("a\u166D"), (std::vector<int32_t>{1, 4}));
  EXPECT_EQ(cut.Encode("a\u2E58"), (std::vector<int32_t>{6})) << "punctuation since 2021";
  tokenizer["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_EQ(Read(tokenizer).Encode("A\U00010D61"), (std::vector<int32_t>{1, 8}));
}

TEST(BpeJsonTest, MalformedFilesAreRefusedWithTheReason) {
  EXPECT_NO_THROW(Read(SmallFallback(true)));
  for (const Malformed& item : MalformedFiles()) {
    json changed = SmallFallback(true);
    changed[json::json_pointer(item.pointer)] = item.value;
    try {
      Read(changed);
      ADD_FAILURE() << item.pointer << " = " << item.value << " was read";
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find(item.part), std::string::npos)
          << item.pointer << ": " << error.what();
    }
  }
  EXPECT_THROW(Tokenizer::FromSerialized("{", "x"), FormatError);
  EXPECT_THROW(Tokenizer::FromSerialized("[]", "x"), FormatError);
  EXPECT_THROW(Tokenizer::FromSerialized("", "x"), FormatError);
}

json WithSplit(const std::string& pattern) {
  json tokenizer = SmallFallback(true);
  tokenizer["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
  return tokenizer;
}

TEST(BpeRegexTest, PatternsThatBacktrackWithoutEndAreAnError) {
  const std::string text = std::string(40'000, 'a') + "\n";
  for (const char* pattern : {"(a+)+[bc]", "(a|aa)+[bc]", "(a*)*[bc]", "(?:a|a?)+[bc]",
                              "(.*)(.*)(.*)(.*)[bc]", "a*a*a*[bc]", "(?=(a+))\\1\\1b|(a|ab)*c"}) {
    try {
      Read(WithSplit(pattern)).Encode(text);
      ADD_FAILURE() << pattern << " ended";
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("regular expression"), std::string::npos)
          << pattern << ": " << error.what();
    }
  }
}

// Each place is below the limit of a match; all of them would be many seconds. Long runs
// that are matched at once are no such thing, and neither are many of them.
TEST(BpeRegexTest, PatternsThatAreSlowAtEachPlaceAreAnError) {
  const std::string text(6'000, 'a');
  for (const char* pattern : {"a*a*[bc]", "a*a*[bc]|a", "(?:a|b)*(?:a|b)*c|a"}) {
    const text::Tokenizer tokenizer = Read(WithSplit(pattern));
    EXPECT_THROW(tokenizer.Encode(text), FormatError) << pattern;
    EXPECT_FALSE(tokenizer.Encode("aab").empty()) << pattern;
  }
  std::string runs;
  for (int i = 0; i < 40; ++i) runs += std::string(30'000, ' ') + "\xC3\xA4";
  EXPECT_FALSE(Read(WithSplit("\\s+(?!\\S)|\\s+|(?:[a-z]|[0-9])+|.")).Encode(runs).empty());
  EXPECT_FALSE(Read(WithSplit("(?:[a-z]|[0-9])+")).Encode(std::string(10'000, 'b')).empty());
}

TEST(BpeRegexTest, DeepPatternsAreRefused) {
  std::string nested, classes = "[";
  for (int i = 0; i < 20'000; ++i) nested += "(";
  for (int i = 0; i < 20'000; ++i) classes += "[";
  EXPECT_THROW(Read(WithSplit(nested + "a" + std::string(20'000, ')'))), FormatError);
  EXPECT_THROW(Read(WithSplit(classes)), FormatError);
  EXPECT_THROW(Read(WithSplit(std::string(70'000, 'a'))), FormatError);
  EXPECT_THROW(Read(WithSplit("a{1,65000}{1,65000}{1,65000}")), FormatError);
}

// A tiktoken file of single bytes and some joined ones.
std::string Ranks() {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  size_t rank = 0;
  const auto add = [&](const std::string& bytes) {
    const auto at = [&](size_t i) {
      return i < bytes.size() ? static_cast<uint8_t>(bytes[i]) : 0u;
    };
    const uint32_t bits = at(0) << 16 | at(1) << 8 | at(2);
    std::string code;
    for (int shift = 18; shift >= 0; shift -= 6) code += kDigits[bits >> shift & 63];
    for (size_t i = bytes.size() + 1; i < 4; ++i) code[i] = '=';
    out += code + " " + std::to_string(rank++) + "\n";
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const char* token : {"th", "he", "the", " t", " th", "er", "\xC3\xA9"}) add(token);
  return out;
}

TEST(BpeTiktokenTest, RanksJoinTheLowestPairFirst) {
  const Tokenizer tokenizer = Tokenizer::FromTiktoken(Ranks(), "cl100k", {{"<|endoftext|>", 300}});
  EXPECT_EQ(tokenizer.Encode("the"), (std::vector<int32_t>{258})) << "the whole word is a token";
  EXPECT_EQ(tokenizer.Encode("ther"), (std::vector<int32_t>{258, 'r'}));
  EXPECT_EQ(tokenizer.Encode(" the"), (std::vector<int32_t>{' ', 258}));
  EXPECT_EQ(tokenizer.Encode("\xC3\xA9<|endoftext|>"), (std::vector<int32_t>{262, 300}));
  EXPECT_EQ(tokenizer.eos_id(), 300);
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode("then  the h\xC3\xA9")), "then  the h\xC3\xA9");
}

// A file with a few damages: of its bytes, or of a value somewhere in its tree.
json* Somewhere(json* value, RandomStream* random) {
  while (value->is_structured() && !value->empty() && random->NextU64() % 8 != 0) {
    auto item = value->begin();
    std::advance(item, static_cast<std::ptrdiff_t>(random->NextU64() % value->size()));
    value = &*item;
  }
  return value;
}

void TryToUse(const std::string& bytes) {
  try {
    const Tokenizer tokenizer = Tokenizer::FromSerialized(bytes, "fuzz");
    const std::vector<int32_t> ids = tokenizer.Encode("it's <|im_start|> a\xC3\xA9 12  \n word");
    tokenizer.Decode(ids);
  } catch (const FormatError&) {  // Refused: one of the endings that are wanted
  } catch (const InputError&) {
  }
}

TEST(BpeFuzz, DamagedTokenizerJson) {
  RandomStream random(11, "tokenizer.json");
  std::vector<json> files = {SmallFallback(true), WithSplit("\\p{L}+| ?[^\\s\\p{N}]+|\\s+(?!\\S)")};
  for (json file : Golden()["families"]) {  // Rules and added tokens; few tokens, to be quick
    json& model = file["tokenizer"]["model"];
    json vocab;
    for (const auto& [token, id] : model["vocab"].items())
      if (token.size() < 3 && id < 140) vocab[token] = id;
    model["vocab"] = vocab;
    model["merges"] = json::array();
    if (vocab.contains("<unk>") || model["unk_token"].is_null()) files.push_back(file["tokenizer"]);
  }
  const json values[] = {nullptr,
                         -1,
                         0,
                         1,
                         4'000'001,
                         1e300,
                         "",
                         "a",
                         "\\p{",
                         "(a+)+$",
                         "ByteLevel",
                         true,
                         json::array(),
                         json::object(),
                         "\xE2\x96\x81",
                         {"a", "b"}};
  for (int round = 0; round < 1200; ++round) {
    json file = files[random.NextU64() % files.size()];
    if (round % 2 == 0) {
      for (uint64_t n = 1 + random.NextU64() % 3; n > 0; --n)
        *Somewhere(&file, &random) = values[random.NextU64() % std::size(values)];
      TryToUse(file.dump());
      continue;
    }
    std::string bytes = file.dump();
    for (uint64_t n = 1 + random.NextU64() % 4; n > 0; --n)
      bytes[random.NextU64() % bytes.size()] ^= static_cast<char>(1u << random.NextU64() % 8);
    if (random.NextU64() % 8 == 0) bytes.resize(random.NextU64() % bytes.size());
    TryToUse(bytes);
  }
}

TEST(BpeFuzz, DamagedGgufArrays) {
  RandomStream random(12, "gguf");
  const GgufArrays good = ArraysOf(FamilyJson("smollm"));
  const auto pick = [&](auto& list) -> auto& { return list[random.NextU64() % list.size()]; };
  for (int round = 0; round < 400; ++round) {
    GgufArrays arrays = good;
    for (uint64_t n = 1 + random.NextU64() % 3; n > 0; --n) {
      switch (random.NextU64() % 6) {
        case 0:
          pick(arrays.table.pieces) = pick(arrays.table.pieces);
          break;
        case 1:
          pick(arrays.table.types) = static_cast<PieceType>(1 + random.NextU64() % 6);
          break;
        case 2:
          pick(arrays.merges) += static_cast<char>(random.NextU64());
          break;
        case 3:
          pick(arrays.merges).clear();
          break;
        case 4:
          arrays.table.bos_id = static_cast<int32_t>(random.NextU64());
          break;
        default:
          pick(arrays.table.pieces) += static_cast<char>(random.NextU64());
      }
    }
    try {
      const Tokenizer tokenizer =
          Tokenizer::FromGgufBpe(arrays.table, arrays.merges, "smollm", random.NextU64() % 2 == 0);
      tokenizer.Decode(tokenizer.Encode("it's <|im_start|> a\xC3\xA9 12  \n word"));
    } catch (const FormatError&) {
    }
  }
}

TEST(BpeFuzz, DamagedRanks) {
  RandomStream random(13, "ranks");
  const std::string good = Ranks();
  for (int round = 0; round < 500; ++round) {
    std::string bytes = good;
    for (uint64_t n = 1 + random.NextU64() % 3; n > 0; --n)
      bytes[random.NextU64() % bytes.size()] = "A/=+ \n9z\xFF"[random.NextU64() % 9];
    try {
      Tokenizer::FromTiktoken(bytes, "cl100k", {{"<|endoftext|>", 300}}).Encode("the \xC3\xA9");
    } catch (const FormatError&) {
    }
  }
}

}  // namespace
}  // namespace tern::text
