// See packed_samples.h.
#include "data/packed_samples.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"

namespace tern::data {
namespace {

constexpr int32_t kPadding = 0;  // Any id: it has no label, and nothing attends to it

struct Piece {
  int64_t begin = 0, tokens = 0;  // In the source
};

std::vector<Piece> PiecesOf(const TokenSource& tokens, Split split, const TokenPart& part,
                            int64_t length, PackedTotals* totals) {
  const int64_t end = part.begin + part.tokens;
  const std::vector<int64_t> starts = tokens.DocumentsIn(split, part.begin, end);
  std::vector<Piece> pieces;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t size = (i + 1 < starts.size() ? starts[i + 1] : end) - starts[i];
    pieces.push_back({starts[i], std::min(size, length)});
    totals->cut_documents += size > length ? 1 : 0;
    totals->cut_tokens += std::max<int64_t>(size - length, 0);
  }
  totals->documents += static_cast<int64_t>(pieces.size());
  return pieces;
}

}  // namespace

struct PackedSamples::Packed {
  std::vector<Piece> pieces;    // Sample by sample
  std::vector<size_t> samples;  // Index of each sample's first piece, and of the end
  std::vector<TokenPart> parts;
  PackedTotals totals;

  // Appends the samples of a part.
  void Add(std::vector<Piece> documents, int64_t length) {
    std::stable_sort(documents.begin(), documents.end(),
                     [](const Piece& a, const Piece& b) { return a.tokens > b.tokens; });
    std::vector<std::vector<Piece>> bins;
    std::multimap<int64_t, size_t> room;  // Of bins that are not full; equal ones in their order
    for (const Piece& document : documents) {
      auto fit = room.lower_bound(document.tokens);
      if (fit == room.end()) {
        bins.emplace_back();
        fit = room.emplace(length, bins.size() - 1);
      }
      const auto [left, bin] = *fit;
      room.erase(fit);
      bins[bin].push_back(document);
      if (left > document.tokens) room.emplace(left - document.tokens, bin);
    }
    for (const auto& [left, bin] : room) totals.padding += left;
    for (const std::vector<Piece>& bin : bins) {
      samples.push_back(pieces.size());
      pieces.insert(pieces.end(), bin.begin(), bin.end());
    }
    totals.samples = static_cast<int64_t>(samples.size());
  }

  // Calls body(first token, first token in the source, count) for all of documents that lies in
  // tokens [begin, end).
  template <class Body>
  void ForPieces(int64_t length, int64_t begin, int64_t end, const Body& body) const {
    for (int64_t s = begin / length; s * length < end && s < totals.samples; ++s) {
      int64_t at = s * length;
      for (size_t i = samples[static_cast<size_t>(s)]; i < samples[static_cast<size_t>(s) + 1];
           at += pieces[i].tokens, ++i) {
        const int64_t from = std::max(begin, at), to = std::min(end, at + pieces[i].tokens);
        if (from < to) body(from, pieces[i].begin + from - at, to - from);
      }
    }
  }
};

PackedSamples::PackedSamples(const TokenSource& tokens, int64_t sequence_length)
    : tokens_(tokens), length_(sequence_length) {
  TERN_CHECK(sequence_length > 0, sequence_length);
  for (const Split split : kSplits) {
    auto packed = std::make_unique<Packed>();
    for (TokenPart part : tokens.Parts(split)) {
      const int64_t before = packed->totals.samples;
      packed->Add(PiecesOf(tokens, split, part, length_, &packed->totals), length_);
      part.begin = before * length_;
      part.tokens = (packed->totals.samples - before) * length_;
      part.aligned = true;
      if (part.tokens > 0) packed->parts.push_back(std::move(part));
    }
    packed->samples.push_back(packed->pieces.size());
    packed_[static_cast<size_t>(split)] = std::move(packed);
  }
}

PackedSamples::~PackedSamples() = default;

const PackedSamples::Packed& PackedSamples::Of(Split split) const {
  return *packed_[static_cast<size_t>(split)];
}

const PackedTotals& PackedSamples::totals(Split split) const { return Of(split).totals; }
std::vector<TokenPart> PackedSamples::Parts(Split split) const { return Of(split).parts; }

int64_t PackedSamples::NumTokens(Split split) const {
  const int64_t samples = Of(split).totals.samples;
  return samples == 0 ? 0 : samples * length_ + 1;
}

void PackedSamples::Copy(Split split, int64_t begin, int64_t count, int32_t* out) const {
  TERN_CHECK(begin >= 0 && count >= 0 && begin <= NumTokens(split) - count, "tokens [", begin, ", ",
             begin + count, ") of ", NumTokens(split));
  std::fill_n(out, count, kPadding);
  Of(split).ForPieces(length_, begin, begin + count, [&](int64_t at, int64_t source, int64_t size) {
    tokens_.Copy(split, source, size, out + (at - begin));
  });
}

void PackedSamples::CopyLabels(Split split, int64_t begin, int64_t count, uint8_t* out) const {
  std::fill_n(out, count, uint8_t{0});
  Of(split).ForPieces(length_, begin, begin + count, [&](int64_t at, int64_t source, int64_t size) {
    tokens_.CopyLabels(split, source, size, out + (at - begin));
  });
}

std::vector<int64_t> PackedSamples::DocumentsIn(Split split, int64_t begin, int64_t end) const {
  std::vector<int64_t> documents;
  const Packed& packed = Of(split);
  end = std::min(end, NumTokens(split));
  for (int64_t s = std::max<int64_t>(begin, 0) / length_; s * length_ < end; ++s) {
    int64_t at = s * length_;
    const auto note = [&] {
      if (at >= begin && at < end && at < (s + 1) * length_) documents.push_back(at);
    };
    note();  // Also the token behind all samples
    if (s == packed.totals.samples) break;
    for (size_t i = packed.samples[static_cast<size_t>(s)];
         i < packed.samples[static_cast<size_t>(s) + 1]; ++i) {
      at += packed.pieces[i].tokens;
      note();
    }
  }
  return documents;
}

}  // namespace tern::data
