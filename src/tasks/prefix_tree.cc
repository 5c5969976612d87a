// See prefix_tree.h.
#include "tasks/prefix_tree.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace tern::tasks {
namespace {

int64_t RunLength(const ScoreRequest& request) {
  return static_cast<int64_t>(request.tokens.size()) - 1;
}

// Requests that agree in their first `depth` tokens, neighbours in the order of their tokens.
struct Group {
  std::vector<size_t> sorted;
  int64_t depth;
  size_t parent;
  bool has_parent;
};

// Where the node that starts at `depth` must end: where the group parts, or something of one of its
// requests begins or ends.
int64_t NodeEnd(std::span<const ScoreRequest> requests, const std::vector<size_t>& group,
                int64_t depth) {
  int64_t end = CommonPrefix(requests[group.front()].tokens, requests[group.back()].tokens);
  for (const size_t r : group) {
    end = std::min(end, RunLength(requests[r]));
    if (requests[r].first_scored > depth) end = std::min(end, requests[r].first_scored);
  }
  return end;
}

}  // namespace

int64_t CommonPrefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t most = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < most && a[i] == b[i]) ++i;
  return static_cast<int64_t>(i);
}

std::vector<PrefixNode> BuildPrefixTree(std::span<const ScoreRequest> requests) {
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return requests[a].tokens < requests[b].tokens; });
  std::vector<PrefixNode> nodes;
  // A stack, not recursion: requests that are prefixes of one another may nest as deep as there are
  // requests.
  std::vector<Group> open{{order, 0, 0, false}};
  while (!open.empty()) {
    const Group group = std::move(open.back());
    open.pop_back();
    std::vector<size_t> longer;
    for (const size_t r : group.sorted)
      if (RunLength(requests[r]) > group.depth) longer.push_back(r);
    const auto next = [&](size_t r) {
      return requests[r].tokens[static_cast<size_t>(group.depth)];
    };
    for (size_t i = 0, j = 0; i < longer.size(); i = j) {
      while (j < longer.size() && next(longer[j]) == next(longer[i])) ++j;
      const std::vector<size_t> same(longer.begin() + static_cast<std::ptrdiff_t>(i),
                                     longer.begin() + static_cast<std::ptrdiff_t>(j));
      PrefixNode node;
      node.begin = group.depth;
      node.end = NodeEnd(requests, same, group.depth);
      TERN_CHECK(node.end > node.begin, "an empty node at ", node.begin);
      node.root = !group.has_parent;
      node.requests = same;
      std::sort(node.requests.begin(), node.requests.end());
      node.all_logits = std::any_of(same.begin(), same.end(), [&](size_t r) {
        return requests[r].first_scored <= node.begin;
      });
      if (group.has_parent) nodes[group.parent].children.push_back(nodes.size());
      open.push_back({same, node.end, nodes.size(), true});
      nodes.push_back(std::move(node));
    }
  }
  return nodes;
}

}  // namespace tern::tasks
