// Typed members of a JSON object of a config.json. JSON's own conversions would cut 256.5 to 256
// and take true for 1.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>

#include "base/error.h"

namespace tern::engine {

class JsonFields {
 public:
  // `where` opens the messages: a path. Both must live as long as this.
  JsonFields(const nlohmann::json& object, const std::string& where)
      : object_(object), where_(where) {}

  // Null counts as absent.
  bool Has(const char* key) const {
    return object_.is_object() && object_.contains(key) && !object_[key].is_null();
  }

  // Throws FormatError (file, key, value, wanted) when the key is missing or of another type.
  template <class T>
  T Get(const char* key) const {
    TERN_CHECK_FORMAT(object_.is_object() && object_.contains(key), where_, ": ", key,
                      " is missing");
    const nlohmann::json& value = object_[key];
    const auto check = [&](bool fits, const char* want) {
      TERN_CHECK_FORMAT(fits, where_, ": ", key, " is ", value.dump(), "; want ", want);
    };
    if constexpr (std::is_same_v<T, bool>) {
      check(value.is_boolean(), "true or false");
    } else if constexpr (std::is_integral_v<T>) {
      check(value.is_number_integer(), "an integer");
    } else if constexpr (std::is_floating_point_v<T>) {
      check(value.is_number(), "a number");
    } else {
      check(value.is_string(), "a text");
    }
    return value.get<T>();
  }

  template <class T>
  T GetOr(const char* key, T fallback) const {
    return Has(key) ? Get<T>(key) : fallback;
  }

  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& object_;
  const std::string& where_;
};

}  // namespace tern::engine
