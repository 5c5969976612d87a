// TokenizerJson of hf_export.h: the same BPE as SentencePiece runs, in the form of the tokenizers
// library: byte fallback, a normalizer that writes spaces as U+2581, and the merges that the
// vocabulary implies (every split of a piece into two pieces, by falling score of the piece).
#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/utf8.h"
#include "transfer/hf_export.h"

namespace tern::transfer {
namespace {

using nlohmann::json;
constexpr const char* kSpace = "\xE2\x96\x81";  // U+2581

struct Merge {
  float score;
  int32_t left, right;
};

std::vector<Merge> ImpliedMerges(const text::Tokenizer& tokenizer) {
  std::unordered_map<std::string, int32_t> ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) ids[tokenizer.piece(id)] = id;
  std::vector<Merge> merges;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.type(id) != text::PieceType::kNormal) continue;
    const std::string& piece = tokenizer.piece(id);
    for (size_t at = 1; at < piece.size(); ++at) {
      if (CharacterBorder(piece, at) != at) continue;
      const auto left = ids.find(piece.substr(0, at)), right = ids.find(piece.substr(at));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({tokenizer.score(id), left->second, right->second});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.left != b.left ? a.left < b.left : a.right < b.right;
  });
  return merges;
}

json Normalizer(bool add_space_prefix) {
  json steps = json::array();
  if (add_space_prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
  steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}});
  return {{"type", "Sequence"}, {"normalizers", steps}};
}

json Decoder(bool add_space_prefix) {
  json steps = json::array();
  steps.push_back({{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}});
  steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (add_space_prefix)
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

}  // namespace

std::string TokenizerJson(const text::Tokenizer& tokenizer) {
  json vocabulary = json::object(), merges = json::array(), added = json::array();
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string& piece = tokenizer.piece(id);
    vocabulary[piece] = id;
    const text::PieceType type = tokenizer.type(id);
    if (type == text::PieceType::kUnknown || type == text::PieceType::kControl) {
      added.push_back({{"id", id},
                       {"content", piece},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    }
  }
  for (const Merge& merge : ImpliedMerges(tokenizer)) {
    merges.push_back({tokenizer.piece(merge.left), tokenizer.piece(merge.right)});
  }
  const bool prefix = tokenizer.table().add_space_prefix;
  const std::string bos = tokenizer.piece(tokenizer.bos_id());
  const json bos_item = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const auto sequence = [](const char* id, int type) {
    return json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  const json post = {
      {"type", "TemplateProcessing"},
      {"single", {bos_item, sequence("A", 0)}},
      {"pair", {bos_item, sequence("A", 0), sequence("B", 1)}},
      {"special_tokens", {{bos, {{"id", bos}, {"ids", {tokenizer.bos_id()}}, {"tokens", {bos}}}}}}};
  const json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", tokenizer.piece(tokenizer.unk_id())},
                      {"fuse_unk", true},
                      {"byte_fallback", true},
                      {"ignore_merges", false},
                      {"vocab", vocabulary},
                      {"merges", merges},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr}};
  return json{{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", added},
              {"normalizer", Normalizer(prefix)},
              {"pre_tokenizer", nullptr},
              {"post_processor", post},
              {"decoder", Decoder(prefix)},
              {"model", model}}
      .dump();
}

}  // namespace tern::transfer
