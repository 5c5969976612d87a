// See processors.h.
#include "parallel/processors.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>

#include "base/error.h"

namespace tern::parallel {
namespace {

struct Place {
  std::string host;
  std::set<int64_t> processors;
};

Place Parse(const std::string& text) {
  Place place;
  const size_t space = text.rfind(' ');
  TERN_CHECK(space != std::string::npos, text);
  place.host = text.substr(0, space);
  std::istringstream list(text.substr(space + 1));
  for (std::string number; std::getline(list, number, ',');)
    place.processors.insert(std::stoll(number));
  return place;
}

bool Overlap(const std::set<int64_t>& a, const std::set<int64_t>& b) {
  return std::any_of(a.begin(), a.end(), [&](int64_t processor) { return b.contains(processor); });
}

}  // namespace

std::string ProcessorPlace() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  cpu_set_t set;
  CPU_ZERO(&set);
  // It fails on more processors than the set holds: then as if there were one.
  if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_SET(0, &set);
  std::string list;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) list += StrCat(list.empty() ? "" : ",", i);
  }
  return StrCat(host.data(), " ", list);
}

ProcessorShare ShareProcessors(const std::vector<std::string>& places, int rank) {
  const Place mine = Parse(places.at(static_cast<size_t>(rank)));
  ProcessorShare share;
  share.usable = static_cast<int64_t>(mine.processors.size());
  share.sharing = 0;
  std::set<int64_t> all;
  for (const std::string& text : places) {
    const Place other = Parse(text);
    if (other.host != mine.host) continue;
    share.sharing += Overlap(mine.processors, other.processors);
    share.bound |= other.processors != mine.processors;
    all.insert(other.processors.begin(), other.processors.end());
  }
  share.by_all = static_cast<int64_t>(all.size());
  return share;
}

}  // namespace tern::parallel
