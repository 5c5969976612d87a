// Typed members of a request's JSON object, each read once by name; what nobody asked for is an
// error at the end. Null counts as absent, as in OpenAI's own interface.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tern::serve {

class RequestFields {
 public:
  // Throws ApiError 400 when `body` is no JSON object (formats/strict_json.h has the limits).
  explicit RequestFields(std::string_view body);

  // The member, or nullptr when it is absent or null. Marks it as known.
  const nlohmann::json* Find(const std::string& name);
  // Each throws ApiError 400 (name, value, wanted) for another type, or outside of [low, high].
  std::optional<bool> Bool(const std::string& name);
  std::optional<std::string> Text(const std::string& name);
  std::optional<int64_t> Integer(const std::string& name, int64_t low, int64_t high);
  std::optional<double> Number(const std::string& name, double low, double high);
  // Of a member without effect: any value is fine.
  void Ignore(const std::vector<const char*>& names);
  // Of members that tern cannot honour: absent, null or one of the values that mean "off".
  void RefuseUnless(const std::string& name, const std::vector<nlohmann::json>& off,
                    const std::string& why);
  // Throws ApiError 400 when a member is left that was not asked for.
  void CheckAllKnown() const;

 private:
  nlohmann::json object_;
  std::set<std::string> known_;
};

// The value for a message: cut when it is long.
std::string Shown(const nlohmann::json& value);

}  // namespace tern::serve
