// See request_fields.h.
#include "serve/request_fields.h"

#include <cmath>

#include "base/error.h"
#include "formats/strict_json.h"
#include "serve/api_error.h"

namespace tern::serve {
namespace {

[[noreturn]] void Wrong(const std::string& name, const nlohmann::json& value,
                        const std::string& want) {
  throw ApiError(400, StrCat(name, " is ", Shown(value), "; want ", want), name, "invalid_value");
}

}  // namespace

std::string Shown(const nlohmann::json& value) {
  constexpr size_t kLongest = 60;
  // A long text or list is not written out first only to be cut.
  if (value.is_structured() && value.size() > 8)
    return StrCat(value.is_array() ? "a list of " : "an object of ", value.size());
  if (value.is_string() && value.get_ref<const std::string&>().size() > kLongest)
    return StrCat("a text of ", value.get_ref<const std::string&>().size(), " bytes");
  const std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return text.size() > kLongest ? text.substr(0, kLongest) + "..." : text;
}

RequestFields::RequestFields(std::string_view body) {
  try {
    object_ = formats::ParseStrictJson(body, "request body");
  } catch (const FormatError& error) {
    throw ApiError(400, error.what(), "", "invalid_json");
  }
  if (!object_.is_object())
    throw ApiError(400, StrCat("the request body is ", Shown(object_), "; want a JSON object"), "",
                   "invalid_json");
}

const nlohmann::json* RequestFields::Find(const std::string& name) {
  known_.insert(name);
  const auto at = object_.find(name);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

std::optional<bool> RequestFields::Bool(const std::string& name) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return {};
  if (!value->is_boolean()) Wrong(name, *value, "true or false");
  return value->get<bool>();
}

std::optional<std::string> RequestFields::Text(const std::string& name) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return {};
  if (!value->is_string()) Wrong(name, *value, "a text");
  return value->get<std::string>();
}

std::optional<int64_t> RequestFields::Integer(const std::string& name, int64_t low, int64_t high) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return {};
  const std::string want = StrCat("an integer from ", low, " to ", high);
  if (!value->is_number_integer()) Wrong(name, *value, want);
  // Values above int64's range are kept as unsigned ones.
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    Wrong(name, *value, want);
  const auto number = value->get<int64_t>();
  if (number < low || number > high) Wrong(name, *value, want);
  return number;
}

std::optional<double> RequestFields::Number(const std::string& name, double low, double high) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return {};
  const std::string want = StrCat("a number from ", low, " to ", high);
  if (!value->is_number()) Wrong(name, *value, want);
  const auto number = value->get<double>();
  if (!(number >= low && number <= high)) Wrong(name, *value, want);
  return number;
}

void RequestFields::Ignore(const std::vector<const char*>& names) {
  for (const char* name : names) known_.insert(name);
}

void RequestFields::RefuseUnless(const std::string& name, const std::vector<nlohmann::json>& off,
                                 const std::string& why) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return;
  for (const nlohmann::json& allowed : off) {
    if (*value == allowed) return;
  }
  throw ApiError(400, StrCat(name, " is ", Shown(*value), ": ", why), name,
                 "unsupported_parameter");
}

void RequestFields::CheckAllKnown() const {
  for (const auto& [name, value] : object_.items()) {
    if (known_.contains(name)) continue;
    const std::string shown = Shown(name);
    throw ApiError(400,
                   StrCat("unknown member ", shown,
                          " of the request; docs/serving.md lists those that there are"),
                   name.size() <= 60 ? name : "", "unknown_parameter");
  }
}

}  // namespace tern::serve
