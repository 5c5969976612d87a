// Buffers that are kept from call to call.
#pragma once

#include <cstdint>
#include <vector>

namespace tern::engine {

// Room for `count` elements, contents undefined; never gives memory back.
template <class T>
T* Room(std::vector<T>* buffer, int64_t count) {
  if (buffer->size() < static_cast<size_t>(count)) buffer->resize(static_cast<size_t>(count));
  return buffer->data();
}

}  // namespace tern::engine
