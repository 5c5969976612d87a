// See token_source.h.
#include "data/token_source.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace tern::data {
namespace {

class JoinedSources : public TokenSource {
 public:
  JoinedSources(std::vector<std::unique_ptr<TokenSource>> sources, std::vector<std::string> names,
                std::vector<double> weights)
      : sources_(std::move(sources)), names_(std::move(names)), weights_(std::move(weights)) {
    TERN_CHECK(weights_.empty() ||
                   (weights_.size() == sources_.size() && names_.size() == sources_.size()),
               sources_.size(), " sources, ", names_.size(), " names, ", weights_.size(),
               " weights");
    for (const Split split : kSplits) {
      std::vector<int64_t>& begins = begins_[static_cast<size_t>(split)];
      begins.push_back(0);
      for (const auto& source : sources_)
        begins.push_back(begins.back() + source->NumTokens(split));
    }
  }

  int64_t NumTokens(Split split) const override { return Begins(split).back(); }

  void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const override {
    ForSources(split, begin, count, [&](const TokenSource& source, int64_t at, int64_t here) {
      source.Copy(split, at, here, out);
      out += here;
    });
  }

  void CopyLabels(Split split, int64_t begin, int64_t count, uint8_t* out) const override {
    ForSources(split, begin, count, [&](const TokenSource& source, int64_t at, int64_t here) {
      source.CopyLabels(split, at, here, out);
      out += here;
    });
  }

  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override {
    std::vector<int64_t> documents;
    end = std::min(end, NumTokens(split));
    for (size_t i = begin < end ? IndexOf(split, begin) : sources_.size();
         i < sources_.size() && Begins(split)[i] < end; ++i) {
      const int64_t base = Begins(split)[i];
      for (const int64_t at :
           sources_[i]->DocumentsIn(split, std::max<int64_t>(begin - base, 0), end - base)) {
        documents.push_back(base + at);
      }
    }
    return documents;
  }

  int64_t TextBytes(Split split) const override {
    int64_t bytes = 0;
    for (const auto& source : sources_) {
      const int64_t of_source = source->TextBytes(split);
      if (of_source == 0 && source->NumTokens(split) > 0) return 0;
      bytes += of_source;
    }
    return bytes;
  }

  std::vector<TokenPart> Parts(Split split) const override {
    if (weights_.empty()) return TokenSource::Parts(split);
    std::vector<TokenPart> parts;
    for (size_t i = 0; i < sources_.size(); ++i) {
      const int64_t tokens = sources_[i]->NumTokens(split);
      if (tokens > 0) parts.push_back({names_[i], weights_[i], Begins(split)[i], tokens});
    }
    return parts;
  }

 private:
  // Calls body(source, first token in it, count) for what tokens [begin, begin + count) lie in.
  template <class Body>
  void ForSources(Split split, int64_t begin, int64_t count, const Body& body) const {
    TERN_CHECK(begin >= 0 && count >= 0 && begin <= NumTokens(split) - count, "tokens [", begin,
               ", ", begin + count, ") of ", NumTokens(split));
    for (size_t i = IndexOf(split, begin); count > 0; ++i) {
      const int64_t here = std::min(count, Begins(split)[i + 1] - begin);
      body(*sources_[i], begin - Begins(split)[i], here);
      begin += here;
      count -= here;
    }
  }

  const std::vector<int64_t>& Begins(Split split) const {
    return begins_[static_cast<size_t>(split)];
  }
  // The source that holds token `at`; sources without tokens hold none.
  size_t IndexOf(Split split, int64_t at) const {
    const auto& begins = Begins(split);
    return static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), at) -
                               begins.begin()) -
           1;
  }

  std::vector<std::unique_ptr<TokenSource>> sources_;
  std::vector<std::string> names_;
  std::vector<double> weights_;
  std::array<std::vector<int64_t>, 2> begins_;
};

}  // namespace

const char* SplitName(Split split) {
  switch (split) {
    case Split::kTrain:
      return "train";
    case Split::kValidation:
      return "validation";
  }
  __builtin_unreachable();
}

Split SplitFromName(const std::string& name) {
  for (const Split split : kSplits) {
    if (name == SplitName(split)) return split;
  }
  throw UsageError(StrCat("unknown split ", name, "; want train or validation"));
}

std::vector<TokenPart> TokenSource::Parts(Split split) const {
  return {{"the training text", 1.0, 0, NumTokens(split)}};
}

void TokenSource::CopyLabels(Split, int64_t, int64_t count, uint8_t* out) const {
  std::fill_n(out, count, uint8_t{1});
}

std::unique_ptr<TokenSource> JoinSources(std::vector<std::unique_ptr<TokenSource>> sources,
                                         std::vector<std::string> names,
                                         std::vector<double> weights) {
  return std::make_unique<JoinedSources>(std::move(sources), std::move(names), std::move(weights));
}

}  // namespace tern::data
