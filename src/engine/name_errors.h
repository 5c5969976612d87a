// Where bytes lie, in front of what is wrong with them.
#pragma once

#include <string>

#include "base/error.h"

namespace tern::engine {

// body(), whose FormatErrors, of codecs that know neither file nor tensor, begin with `where`.
template <class Body>
auto NameErrors(const std::string& where, const Body& body) {
  try {
    return body();
  } catch (const FormatError& error) {
    throw FormatError(StrCat(where, ": ", error.what()));
  }
}

}  // namespace tern::engine
