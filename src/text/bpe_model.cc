// See bpe_model.h. Few symbols are merged by looking for the best pair again and again, many with a
// heap; both give the same ids.
#include "text/bpe_model.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"

namespace tern::text {
namespace {

constexpr size_t kCacheSlots = 1 << 15;  // 2.5 MB a thread
constexpr size_t kFewSymbols = 40;       // Above, the heap is faster
constexpr int32_t kNoRank = INT32_MAX;

// FNV-1a over eight bytes at a time, then mixed.
uint64_t Hash(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325U ^ text.size();
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, 8);
    hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 32;
  }
  uint64_t rest = 0;
  std::memcpy(&rest, text.data() + at, text.size() - at);
  hash = (hash ^ rest) * 0x9E3779B97F4A7C15U;
  return hash ^ (hash >> 29);
}

uint64_t PairKey(int32_t left, int32_t right) {
  return ((static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
          static_cast<uint32_t>(right)) +
         1;
}

size_t PairSlot(uint64_t key, size_t slots) {
  return static_cast<size_t>((key * 0x9E3779B97F4A7C15U) >> 20) & (slots - 1);
}

}  // namespace

BpeModel::Scratch::Scratch() : cache_(kCacheSlots) {}

BpeModel::BpeModel(const BpeDefinition& definition)
    : byte_level_(definition.byte_level),
      ignore_merges_(definition.ignore_merges),
      byte_fallback_(definition.byte_fallback),
      fuse_unk_(definition.fuse_unk),
      unk_id_(definition.unk_id) {
  byte_symbols_.fill(-1);
  byte_tokens_.fill(-1);
  words_.resize(definition.tokens.size());
  word_slots_.assign(std::bit_ceil(definition.tokens.size() * 2 + 2), -1);
  for (size_t id = 0; id < words_.size(); ++id) {
    const std::string& token = definition.tokens[id];
    if (token.empty()) continue;
    if (const int byte = ByteOfPiece(token); byte >= 0)
      byte_tokens_[static_cast<size_t>(byte)] = static_cast<int32_t>(id);
    if (!byte_level_) {
      words_[id] = token;
    } else if (!ByteLevelDecode(token, &words_[id])) {
      words_[id].clear();  // Not in the alphabet: no text can give it
      continue;
    }
    const std::string& word = words_[id];
    if (byte_level_ && word.size() == 1)
      byte_symbols_[static_cast<unsigned char>(word[0])] = static_cast<int32_t>(id);
    size_t slot = Hash(word) & (word_slots_.size() - 1);
    while (word_slots_[slot] >= 0) slot = (slot + 1) & (word_slots_.size() - 1);
    word_slots_[slot] = static_cast<int32_t>(id);
  }
  merges_.resize(std::bit_ceil(definition.merges.size() * 2 + 2));
  for (size_t rank = 0; rank < definition.merges.size(); ++rank) {
    const Merge& merge = definition.merges[rank];
    const uint64_t key = PairKey(merge.left, merge.right);
    size_t slot = PairSlot(key, merges_.size());
    while (merges_[slot].key != 0 && merges_[slot].key != key)
      slot = (slot + 1) & (merges_.size() - 1);
    merges_[slot] = {key, static_cast<int32_t>(rank), merge.result};
  }
}

int32_t BpeModel::IdOf(std::string_view word) const {
  for (size_t slot = Hash(word) & (word_slots_.size() - 1); word_slots_[slot] >= 0;
       slot = (slot + 1) & (word_slots_.size() - 1)) {
    if (words_[static_cast<size_t>(word_slots_[slot])] == word) return word_slots_[slot];
  }
  return -1;
}

const BpeModel::Slot* BpeModel::Find(int32_t left, int32_t right) const {
  const uint64_t key = PairKey(left, right);
  for (size_t slot = PairSlot(key, merges_.size()); merges_[slot].key != 0;
       slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].key == key) return &merges_[slot];
  }
  return nullptr;
}

void BpeModel::Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (word.empty()) return;
  if (word.size() > Scratch::CachedWord{}.word.size()) return EncodeFresh(word, scratch, ids);
  const uint64_t hash = Hash(word);
  Scratch::CachedWord& slot = scratch->cache_[hash & (kCacheSlots - 1)];
  if (slot.hash == hash && slot.size == word.size() &&
      std::memcmp(slot.word.data(), word.data(), word.size()) == 0) {
    ids->insert(ids->end(), slot.ids.begin(), slot.ids.begin() + slot.count);
    return;
  }
  const size_t before = ids->size();
  EncodeFresh(word, scratch, ids);
  const size_t count = ids->size() - before;
  if (count > slot.ids.size()) return;
  slot.hash = hash;
  slot.size = static_cast<uint8_t>(word.size());
  slot.count = static_cast<uint8_t>(count);
  std::memcpy(slot.word.data(), word.data(), word.size());
  std::copy(ids->begin() + static_cast<std::ptrdiff_t>(before), ids->end(), slot.ids.begin());
}

void BpeModel::EncodeFresh(std::string_view word, Scratch* scratch,
                           std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    if (const int32_t id = IdOf(word); id >= 0) return ids->push_back(id);
  }
  TERN_CHECK_INPUT(word.size() < INT32_MAX, "a word of ", word.size(), " bytes");
  scratch->ids_.clear();
  Symbols(word, &scratch->ids_);
  if (scratch->ids_.size() < 2) {
    ids->insert(ids->end(), scratch->ids_.begin(), scratch->ids_.end());
  } else if (scratch->ids_.size() <= kFewSymbols) {
    MergeFew(scratch, ids);
  } else {
    MergeMany(scratch, ids);
  }
}

void BpeModel::Symbols(std::string_view word, std::vector<int32_t>* ids) const {
  bool unknown = false;  // An unknown token that waits for more of its kind
  for (size_t at = 0; at < word.size();) {
    const auto lead = static_cast<unsigned char>(word[at]);
    const size_t size = byte_level_ ? 1 : static_cast<size_t>(SequenceLength(lead));
    const std::string_view symbol = word.substr(at, size);
    const int32_t id = byte_level_ ? byte_symbols_[lead] : IdOf(symbol);
    at += size;
    if (id < 0) {
      UnknownSymbol(symbol, &unknown, ids);
      continue;
    }
    if (unknown) ids->push_back(unk_id_);
    unknown = false;
    ids->push_back(id);
  }
  if (unknown) ids->push_back(unk_id_);
}

void BpeModel::UnknownSymbol(std::string_view symbol, bool* unknown,
                             std::vector<int32_t>* ids) const {
  // A byte-level symbol is a character of the alphabet, and its bytes are those of that character.
  const std::string shown = byte_level_ ? ByteLevelEncode(symbol) : std::string(symbol);
  const auto token = [&](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  if (byte_fallback_ &&
      std::all_of(shown.begin(), shown.end(), [&](char c) { return token(c) >= 0; })) {
    for (const char c : shown) ids->push_back(token(c));  // Before an unknown one that waits
    return;
  }
  if (unk_id_ < 0) return;
  if (*unknown && !fuse_unk_) ids->push_back(unk_id_);
  *unknown = true;
}

void BpeModel::MergeFew(Scratch* scratch, std::vector<int32_t>* ids) const {
  std::vector<int32_t>& symbols = scratch->ids_;
  std::vector<int32_t>&ranks = scratch->ranks_, &results = scratch->results_;
  size_t count = symbols.size();
  ranks.resize(count);
  results.resize(count);
  const auto look = [&](size_t i) {
    const Slot* slot = Find(symbols[i], symbols[i + 1]);
    ranks[i] = slot == nullptr ? kNoRank : slot->rank;
    results[i] = slot == nullptr ? 0 : slot->result;
  };
  for (size_t i = 0; i + 1 < count; ++i) look(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == kNoRank) break;
    symbols[best] = results[best];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i] = ranks[i + 1];
      results[i] = results[i + 1];
    }
    --count;
    if (best > 0) look(best - 1);
    if (best + 1 < count) look(best);
  }
  ids->insert(ids->end(), symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(count));
}

void BpeModel::MergeMany(Scratch* scratch, std::vector<int32_t>* ids) const {
  using Candidate = Scratch::Candidate;
  std::vector<Scratch::Symbol>& symbols = scratch->symbols_;
  std::vector<Candidate>& heap = scratch->heap_;
  const auto count = static_cast<int32_t>(scratch->ids_.size());
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  const auto symbol = [&](int32_t i) -> Scratch::Symbol& {
    return symbols[static_cast<size_t>(i)];
  };
  symbols.clear();
  heap.clear();
  for (int32_t i = 0; i < count; ++i)
    symbols.push_back({scratch->ids_[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  const auto candidate = [&](int32_t i) {
    if (i < 0 || symbol(i).next < 0) return false;
    const int32_t left = symbol(i).id, right = symbol(symbol(i).next).id;
    const Slot* slot = Find(left, right);
    if (slot != nullptr) heap.push_back({slot->rank, i, left, right, slot->result});
    return slot != nullptr;
  };
  for (int32_t i = 0; i < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbol(best.at);
    // The symbols may have been merged with others since (id -1: into its left neighbour).
    if (left.id != best.left || left.next < 0 || symbol(left.next).id != best.right) continue;
    Scratch::Symbol& right = symbol(left.next);
    left.id = best.result;
    right.id = -1;
    left.next = right.next;
    if (right.next >= 0) symbol(right.next).previous = best.at;
    if (candidate(left.previous)) std::push_heap(heap.begin(), heap.end(), later);
    if (candidate(best.at)) std::push_heap(heap.begin(), heap.end(), later);
  }
  for (int32_t i = 0; i >= 0; i = symbol(i).next) ids->push_back(symbol(i).id);
}

}  // namespace tern::text
