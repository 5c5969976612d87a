// Byte pair encoding of one word (Sennrich et al., arXiv 1508.07909, as HF tokenizers does it):
// symbols are joined pair by pair, the pair of the lowest rank first and of equals the leftmost.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe_definition.h"

namespace tern::text {

class BpeModel {
 public:
  // What one thread needs: buffers and a cache of words. Belongs to one model.
  class Scratch {
   public:
    Scratch();

   private:
    friend class BpeModel;
    struct CachedWord {
      uint64_t hash = 0;
      uint8_t size = 0, count = 0;  // Bytes; ids
      std::array<char, 30> word{};
      std::array<int32_t, 8> ids{};
    };
    struct Symbol {
      int32_t id = 0, previous = 0, next = 0;
    };
    struct Candidate {
      int32_t rank = 0, at = 0, left = 0, right = 0, result = 0;
    };
    std::vector<CachedWord> cache_;
    std::vector<int32_t> ids_, ranks_, results_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  explicit BpeModel(const BpeDefinition& definition);

  // Appends the ids of a word, which is raw bytes for a byte-level model. Symbols that the
  // vocabulary lacks become byte tokens, the unknown token or, when the model has neither, nothing,
  // as with HF tokenizers.
  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const;
  // -1: not there. By the text of a word as Encode takes it.
  int32_t IdOf(std::string_view word) const;

 private:
  struct Slot {
    uint64_t key = 0;  // Left and right + 1; 0: empty
    int32_t rank = 0, result = 0;
  };
  const Slot* Find(int32_t left, int32_t right) const;
  void EncodeFresh(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const;
  void Symbols(std::string_view word, std::vector<int32_t>* ids) const;
  void UnknownSymbol(std::string_view symbol, bool* unknown, std::vector<int32_t>* ids) const;
  void MergeFew(Scratch* scratch, std::vector<int32_t>* ids) const;
  void MergeMany(Scratch* scratch, std::vector<int32_t>* ids) const;

  std::vector<std::string> words_;   // By id
  std::vector<int32_t> word_slots_;  // Hash table of ids, -1: empty
  std::vector<Slot> merges_;
  std::array<int32_t, 256> byte_symbols_{};  // Byte-level: of each byte
  std::array<int32_t, 256> byte_tokens_{};   // <0x0A>
  bool byte_level_ = true, ignore_merges_ = false, byte_fallback_ = false, fuse_unk_ = false;
  int32_t unk_id_ = -1;
};

}  // namespace tern::text
