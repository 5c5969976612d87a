// The BPE half of Tokenizer: added tokens, normalizers, words, merges; the sources GGUF and
// tiktoken.
#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"
#include "text/bpe_model.h"
#include "text/pipeline.h"
#include "text/tokenizer_impl.h"

namespace tern::text {
namespace {

std::vector<AddedToken> Chosen(const BpeDefinition& definition, bool normalized) {
  std::vector<AddedToken> out;
  Regex::Workspace workspace;
  for (AddedToken token : definition.added) {
    if (token.normalized != normalized) continue;
    if (normalized)
      token.content = ApplyNormalizers(definition.normalizers, token.content, &workspace);
    if (!token.content.empty()) out.push_back(std::move(token));
  }
  return out;
}

class BpeTokenizer : public Tokenizer::Impl {
 public:
  BpeTokenizer(BpeDefinition definition, std::string json)
      : definition_(std::move(definition)),
        model_(definition_),
        raw_tokens_(Chosen(definition_, false)),
        normalized_tokens_(Chosen(definition_, true)) {
    serialized = std::move(json);
    FillTable();
    FillBytes();
  }

  void Encode(std::string_view text, bool special, std::vector<int32_t>* ids) const override;
  GgufBpe ToGguf() const override { return GgufOf(definition_); }
  std::string Serialize() const override { return WriteTokenizerJson(definition_); }

 private:
  struct Scratch {
    Regex::Workspace workspace;
    BpeModel::Scratch words;
  };
  class Sink : public WordSink {
   public:
    Sink(const BpeModel& model, BpeModel::Scratch* scratch, std::vector<int32_t>* ids)
        : model_(model), scratch_(scratch), ids_(ids) {}
    void Word(std::string_view word) override { model_.Encode(word, scratch_, ids_); }

   private:
    const BpeModel& model_;
    BpeModel::Scratch* scratch_;
    std::vector<int32_t>* ids_;
  };

  void FillTable();
  void FillBytes();
  void EncodeNormalized(std::string_view text, bool at_start, Scratch* scratch,
                        std::vector<int32_t>* ids) const;
  std::unique_ptr<Scratch> Borrow() const;
  void Return(std::unique_ptr<Scratch> scratch) const;

  BpeDefinition definition_;
  BpeModel model_;
  AddedTokenMatcher raw_tokens_, normalized_tokens_;
  mutable std::mutex scratch_mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratches_;  // Those that no thread uses now
};

void BpeTokenizer::FillTable() {
  table.pieces = definition_.tokens;
  table.scores.assign(table.pieces.size(), 0.0f);
  table.types.assign(table.pieces.size(), PieceType::kNormal);
  for (size_t id = 0; id < table.pieces.size(); ++id) {
    if (table.pieces[id].empty()) table.types[id] = PieceType::kUnused;
    if (definition_.byte_fallback && ByteOfPiece(table.pieces[id]) >= 0)
      table.types[id] = PieceType::kByte;
  }
  for (const AddedToken& token : definition_.added) {
    table.types[static_cast<size_t>(token.id)] =
        token.special ? PieceType::kControl : PieceType::kUserDefined;
  }
  table.kind = ModelKind::kJsonBpe;
  table.unk_id = definition_.unk_id;
  table.bos_id = definition_.prefix.empty() ? definition_.bos_id : definition_.prefix[0];
  table.eos_id = definition_.eos_id;
  byte_fallback = definition_.byte_fallback;
  strip_first_space = definition_.strip_first_space;
}

void BpeTokenizer::FillBytes() {
  const std::string& mark = definition_.space_mark;
  // An added token that is found in normalized text stands for its own normalized text.
  std::vector<std::string> pieces = table.pieces;
  for (const AddedToken& token : Chosen(definition_, true))
    pieces[static_cast<size_t>(token.id)] = token.content;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const std::string& piece = pieces[id];
    std::string& text = bytes.emplace_back();
    if (table.types[id] == PieceType::kControl) continue;
    if (definition_.byte_level) {
      if (!ByteLevelDecode(piece, &text)) text = piece;
      continue;
    }
    if (table.types[id] == PieceType::kByte) {
      text.assign(1, static_cast<char>(ByteOfPiece(piece)));
      continue;
    }
    for (size_t at = 0; at < piece.size();) {
      const bool space = !mark.empty() && std::string_view(piece).substr(at).starts_with(mark);
      text += space ? ' ' : piece[at];
      at += space ? mark.size() : 1;
    }
  }
}

std::unique_ptr<BpeTokenizer::Scratch> BpeTokenizer::Borrow() const {
  const std::lock_guard lock(scratch_mutex_);
  if (scratches_.empty()) return std::make_unique<Scratch>();
  std::unique_ptr<Scratch> scratch = std::move(scratches_.back());
  scratches_.pop_back();
  return scratch;
}

void BpeTokenizer::Return(std::unique_ptr<Scratch> scratch) const {
  const std::lock_guard lock(scratch_mutex_);
  scratches_.push_back(std::move(scratch));
}

void BpeTokenizer::Encode(std::string_view text, bool, std::vector<int32_t>* ids) const {
  if (const auto bad = FirstInvalidUtf8(text))
    throw InputError(StrCat("text: byte ", *bad,
                            " is not UTF-8; convert it, for example with "
                            "iconv -t UTF-8"));
  std::unique_ptr<Scratch> scratch = Borrow();
  ids->reserve(ids->size() + text.size() / 4);
  for (const auto& raw : raw_tokens_.Cut(text, &scratch->workspace)) {
    if (raw.id >= 0) {
      ids->push_back(raw.id);
      continue;
    }
    const std::string_view part = text.substr(raw.begin, raw.end - raw.begin);
    if (definition_.normalizers.empty()) {
      EncodeNormalized(part, raw.begin == 0, scratch.get(), ids);
    } else {
      EncodeNormalized(ApplyNormalizers(definition_.normalizers, part, &scratch->workspace),
                       raw.begin == 0, scratch.get(), ids);
    }
  }
  Return(std::move(scratch));
}

void BpeTokenizer::EncodeNormalized(std::string_view text, bool at_start, Scratch* scratch,
                                    std::vector<int32_t>* ids) const {
  Sink sink(model_, &scratch->words, ids);
  const auto plain = [&](size_t begin, size_t end) {
    SplitWords(definition_.pre_tokenizers, text.substr(begin, end - begin), at_start && begin == 0,
               &scratch->workspace, &sink);
  };
  if (normalized_tokens_.empty()) return plain(0, text.size());
  for (const auto& part : normalized_tokens_.Cut(text, &scratch->workspace)) {
    if (part.id >= 0) {
      ids->push_back(part.id);
    } else {
      plain(part.begin, part.end);
    }
  }
}

// Ids by token; throws FormatError for tokens that are empty, twice there or no UTF-8.
std::unordered_map<std::string_view, int32_t> IdsOf(const std::vector<std::string>& tokens) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) {
    TERN_CHECK_FORMAT(!tokens[id].empty(), "the token ", id, " is empty");
    TERN_CHECK_FORMAT(!FirstInvalidUtf8(tokens[id]), "the token ", id, " is not UTF-8");
    TERN_CHECK_FORMAT(ids.emplace(tokens[id], static_cast<int32_t>(id)).second, "the token ",
                      tokens[id], " is there twice");
  }
  return ids;
}

int DigitOfBase64(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

std::string DecodeBase64(std::string_view text, size_t line) {
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const int digit = DigitOfBase64(c);
    TERN_CHECK_FORMAT(digit >= 0, "line ", line, " of the ranks is no base64");
    bits = (bits << 6) | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>((bits >> count) & 0xFF);
  }
  return bytes;
}

// Bytes of each rank.
std::vector<std::string> ReadRanks(std::string_view ranks) {
  std::vector<std::string> out;
  size_t line = 0;
  for (size_t begin = 0; begin < ranks.size();) {
    const size_t end = std::min(ranks.find('\n', begin), ranks.size());
    const std::string_view text = ranks.substr(begin, end - begin);
    begin = end + 1;
    ++line;
    if (text.empty()) continue;
    const size_t space = text.find(' ');
    TERN_CHECK_FORMAT(space != std::string_view::npos, "line ", line,
                      " of the ranks is not base64 and a number");
    size_t rank = 0;
    const auto read = std::from_chars(text.data() + space + 1, text.data() + text.size(), rank);
    TERN_CHECK_FORMAT(
        read.ec == std::errc() && read.ptr == text.data() + text.size() && rank <= line + 4096,
        "line ", line, " of the ranks has no rank in order");
    if (out.size() <= rank) out.resize(rank + 1);
    TERN_CHECK_FORMAT(out[rank].empty(), "the rank ", rank, " is there twice");
    out[rank] = DecodeBase64(text.substr(0, space), line);
    TERN_CHECK_FORMAT(!out[rank].empty(), "line ", line, " of the ranks is empty");
  }
  return out;
}

// tiktoken joins the pair whose joined bytes have the lowest rank: each way to cut a token in two
// tokens is a merge, and those of one token follow each other.
std::vector<Merge> MergesOfRanks(const std::vector<std::string>& ranks) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t rank = 0; rank < ranks.size(); ++rank)
    if (!ranks[rank].empty()) ids.emplace(ranks[rank], static_cast<int32_t>(rank));
  std::vector<Merge> merges;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const std::string_view token = ranks[rank];
    const size_t begin = merges.size();
    TERN_CHECK_FORMAT(token.size() <= 4096, "the rank ", rank, " has ", token.size(), " bytes");
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left != ids.end() && right != ids.end())
        merges.push_back({left->second, right->second, static_cast<int32_t>(rank)});
    }
    std::sort(merges.begin() + static_cast<std::ptrdiff_t>(begin), merges.end(),
              [](const Merge& a, const Merge& b) {
                return std::pair(a.left, a.right) < std::pair(b.left, b.right);
              });
  }
  return merges;
}

AddedToken SpecialToken(std::string content, int32_t id, bool special) {
  AddedToken token;
  token.content = std::move(content);
  token.id = id;
  token.special = special;
  return token;
}

}  // namespace

std::unique_ptr<Tokenizer::Impl> MakeBpe(BpeDefinition definition, std::string serialized) {
  return std::make_unique<BpeTokenizer>(std::move(definition), std::move(serialized));
}

Tokenizer Tokenizer::FromGgufBpe(const PieceTable& table, const std::vector<std::string>& merges,
                                 const std::string& pre, bool adds_bos) {
  BpeDefinition definition;
  TERN_CHECK_INPUT(FillPreTokenizer(pre, &definition), "the pre-tokenizer ", pre,
                   " is not known to this version");
  definition.tokens = table.pieces;
  TERN_CHECK_FORMAT(table.types.size() == table.pieces.size(), table.pieces.size(), " tokens and ",
                    table.types.size(), " types");
  const auto ids = IdsOf(definition.tokens);
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ', 1);
    TERN_CHECK_FORMAT(space != std::string::npos, "the merge \"", merge, "\" is not two texts");
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    const auto id = [&](const std::string& token) {
      const auto found = ids.find(token);
      TERN_CHECK_FORMAT(found != ids.end(), "the merge \"", merge, "\": ", token, " is no token");
      return found->second;
    };
    definition.merges.push_back({id(left), id(right), id(left + right)});
  }
  for (size_t id = 0; id < table.types.size(); ++id) {
    const bool special = table.types[id] == PieceType::kControl;
    if (special || table.types[id] == PieceType::kUserDefined)
      definition.added.push_back(SpecialToken(table.pieces[id], static_cast<int32_t>(id), special));
  }
  for (const int32_t id : {table.bos_id, table.eos_id}) {
    TERN_CHECK_FORMAT(id >= -1 && id < static_cast<int64_t>(table.pieces.size()), "special id ", id,
                      " of ", table.pieces.size(), " tokens");
  }
  if (adds_bos && table.bos_id >= 0) definition.prefix = {table.bos_id};
  definition.eos_id = table.eos_id;
  return Tokenizer(MakeBpe(std::move(definition), ""));
}

Tokenizer Tokenizer::FromTiktoken(std::string_view ranks, const std::string& pre,
                                  const std::vector<std::pair<std::string, int32_t>>& special) {
  BpeDefinition definition;
  TERN_CHECK_INPUT(FillPreTokenizer(pre, &definition), "the pre-tokenizer ", pre,
                   " is not known to this version");
  definition.ignore_merges = true;  // tiktoken looks for the whole word first
  const std::vector<std::string> bytes = ReadRanks(ranks);
  TERN_CHECK_FORMAT(!bytes.empty(), "the ranks are empty");
  for (const std::string& token : bytes) definition.tokens.push_back(ByteLevelEncode(token));
  definition.merges = MergesOfRanks(bytes);
  for (const auto& [token, id] : special) {
    TERN_CHECK_FORMAT(id >= 0 && id < (1 << 22) && !token.empty() && !FirstInvalidUtf8(token),
                      "the special token ", token, " has the id ", id);
    if (definition.tokens.size() <= static_cast<size_t>(id))
      definition.tokens.resize(static_cast<size_t>(id) + 1);
    TERN_CHECK_FORMAT(definition.tokens[static_cast<size_t>(id)].empty(), "the special token ",
                      token, " has the id ", id, " of another token");
    definition.tokens[static_cast<size_t>(id)] = token;
    definition.added.push_back(SpecialToken(token, id, true));
    if (token == "<|endoftext|>") definition.eos_id = id;
  }
  return Tokenizer(MakeBpe(std::move(definition), ""));
}

}  // namespace tern::text
