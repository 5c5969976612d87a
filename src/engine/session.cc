// See session.h.
#include "engine/session.h"

#include <algorithm>

namespace tern::engine {
namespace {

int64_t Capacity(const Engine& engine, int64_t wanted) {
  const int64_t context = engine.config().context_length;
  return wanted <= 0 ? context : std::min(wanted, context);
}

}  // namespace

Session::Session(const Engine& engine, int64_t capacity, kernels::KvType cache)
    : cache_(engine.config(), KvCache::PagesFor(Capacity(engine, capacity)), cache),
      sequence_(cache_),
      decoder_(engine, cache_, Capacity(engine, capacity)) {}

std::vector<float> Session::Append(std::span<const int32_t> tokens, LogitsOf which) {
  const Decoder::Request request{&sequence_, tokens, which};
  return std::move(decoder_.Run({&request, 1})[0]);
}

}  // namespace tern::engine
