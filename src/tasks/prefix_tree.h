// The prefixes that score requests share, as a radix tree: a context that four choices have in
// common, or the few-shot examples of a whole task, is one node and is run once (the idea of
// RadixAttention, Zheng et al., arXiv 2312.07104, within a batch). A plan only: it runs nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tasks/scorer.h"

namespace tern::tasks {

// Tokens [begin, end) that all of `requests` have in common, after those of the parent.
struct PrefixNode {
  int64_t begin = 0, end = 0;
  std::vector<size_t> requests;  // Ascending
  std::vector<size_t> children;
  bool root = false;
  // Of some request all of these tokens are scored ones: the logits of each are wanted. Otherwise
  // only those of the last token are.
  bool all_logits = false;
};

// Parents come before their children. Every token of a request but the last is in exactly one node
// of its path; a node's tokens are for each request either all before its first scored token or all
// from it on. REQUIRES of each request: as ScoreRequest says.
std::vector<PrefixNode> BuildPrefixTree(std::span<const ScoreRequest> requests);

// Tokens that both begin with.
int64_t CommonPrefix(std::span<const int32_t> a, std::span<const int32_t> b);

}  // namespace tern::tasks
