// See handshake.h. Keys: claim/<rank> counts who says to be that rank; hello/<rank> is what it
// says; verdict is rank 0's answer.
#include "parallel/handshake.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/error.h"

namespace tern::parallel {
namespace {

using Clock = std::chrono::steady_clock;

std::string HostName() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string Where(const nlohmann::json& hello) {
  return StrCat("host ", hello.at("host").get<std::string>(), ", process ",
                hello.at("pid").get<int64_t>());
}

// Waits for keys in turn; the numbers of those that never came.
std::vector<int> Missing(c10d::Store& store, int world, double timeout_s) {
  const auto end = Clock::now() + std::chrono::duration<double>(timeout_s);
  std::vector<int> missing;
  for (int i = 0; i < world; ++i) {
    const std::string key = StrCat("hello/", i);
    while (!store.check({key}) && Clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    if (!store.check({key})) missing.push_back(i);
  }
  return missing;
}

// What is wrong among the ranks; empty: nothing.
std::string Judge(c10d::Store& store, const Topology& t) {
  std::vector<nlohmann::json> hellos;
  std::map<std::string, int> seats;  // Machine and local rank -> rank
  for (int i = 0; i < t.world; ++i) {
    hellos.push_back(nlohmann::json::parse(store.get_to_str(StrCat("hello/", i))));
    const nlohmann::json& hello = hellos.back();
    const std::string host = hello.at("host").get<std::string>();
    const std::string seat = StrCat(host, "/", hello.at("local_rank").get<int>());
    const auto [other, is_new] = seats.emplace(seat, i);
    if (!is_new && hello.at("has_local_ranks").get<bool>()) {
      return StrCat("ranks ", other->second, " and ", i, " both say that they are local rank ",
                    hello.at("local_rank").get<int>(), " of ", host,
                    "; give each its own LOCAL_RANK");
    }
    for (const auto& [name, value] : hello.at("must_agree").items()) {
      const nlohmann::json& want = hellos[0].at("must_agree").at(name);
      if (value == want) continue;
      return StrCat("rank ", i, " (", Where(hello), ") has another ", name, " than rank 0 (",
                    Where(hellos[0]), "): ", value.get<std::string>(), ", not ",
                    want.get<std::string>(), "; start all ranks with the same one");
    }
  }
  return "";
}

}  // namespace

void Handshake(c10d::Store& store, const Topology& t,
               const std::map<std::string, std::string>& must_agree, double timeout_s) {
  const int64_t claims = store.add(StrCat("claim/", t.rank), 1);
  if (claims > 1) {
    throw UsageError(StrCat("two processes say that they are rank ", t.rank,
                            ": give each its own RANK, or look for a job that still runs on ",
                            t.store_host, ":", t.store_port));
  }
  const nlohmann::json hello = {{"host", HostName()},
                                {"pid", ::getpid()},
                                {"local_rank", t.local_rank},
                                {"has_local_ranks", t.local_world > 1},
                                {"must_agree", must_agree}};
  store.set(StrCat("where/", t.rank), Where(hello));
  store.add(StrCat("beat/", t.rank), 1);
  store.set(StrCat("hello/", t.rank), hello.dump());
  const std::vector<int> missing = Missing(store, t.world, timeout_s);
  if (!missing.empty()) {
    std::string names;
    for (const int rank : missing) names += StrCat(names.empty() ? "" : ", ", rank);
    throw ResourceError(StrCat("rank ", t.rank, ": of ", t.world, " ranks, rank ", names,
                               " did not arrive within parallel.start_timeout_s = ", timeout_s,
                               "; look at its output"));
  }
  if (t.rank == 0) {
    const std::string wrong = Judge(store, t);
    store.set("verdict", wrong.empty() ? "agreed" : wrong);
  }
  const std::string verdict = store.get_to_str("verdict");
  const int64_t heard = store.add("heard", 1);
  if (t.rank == 0 && verdict != "agreed") {  // It may serve the store: the others hear it first.
    const auto end = Clock::now() + std::chrono::seconds(5);
    for (int64_t all = heard; all < t.world && Clock::now() < end; all = store.add("heard", 0)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  if (verdict != "agreed") throw UsageError(verdict);
}

}  // namespace tern::parallel
