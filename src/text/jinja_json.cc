// JSON in and out of a template's values. Reading keeps the order of keys, since templates print
// objects as they came; writing is Python's json.dumps.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_value.h"
#include "text/unicode.h"

namespace tern::text::jinja {
namespace {

constexpr size_t kMaxJsonDepth = 48;         // Tools' schemas have some 10
constexpr int64_t kMaxJsonValues = 500'000;  // Of some 100 bytes each

void AppendEscaped(std::string* out, const char* format, uint32_t value) {
  char buffer[16];
  const int size = std::snprintf(buffer, sizeof(buffer), format, value);
  out->append(buffer, static_cast<size_t>(size));
}

// Builds values while nlohmann's parser reads (its "SAX" interface, whose names these are).
class JsonReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Add(MakeNone()); }
  bool boolean(bool value) override { return Add(MakeBool(value)); }
  bool number_integer(int64_t value) override { return Add(MakeInt(value)); }
  bool number_unsigned(uint64_t value) override {
    return Add(value > INT64_MAX ? Value{static_cast<double>(value)}
                                 : MakeInt(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string&) override { return Add({value}); }
  bool string(std::string& value) override { return Add(MakeString(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool key(std::string& name) override {
    TERN_CHECK_FORMAT(open_.back().keys.insert(name).second, "JSON: the key ", name,
                      " for the second time");
    open_.back().dict.emplace_back(MakeString(std::move(name)), MakeNone());
    return true;
  }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    throw FormatError(StrCat("not valid JSON: ", error.what()));
  }
  Value Take() { return std::move(result_); }

 private:
  struct Level {
    bool is_dict = false;
    std::vector<Value> list;
    std::vector<std::pair<Value, Value>> dict;
    std::unordered_set<std::string> keys;
  };
  bool Open(bool is_dict) {
    TERN_CHECK_FORMAT(open_.size() < kMaxJsonDepth, "JSON nested deeper than ", kMaxJsonDepth,
                      " levels");
    open_.emplace_back().is_dict = is_dict;
    return true;
  }
  bool Close() {
    Level level = std::move(open_.back());
    open_.pop_back();
    return Add(level.is_dict ? MakeDict(std::move(level.dict)) : MakeList(std::move(level.list)));
  }
  bool Add(Value value) {
    TERN_CHECK_FORMAT(++values_ <= kMaxJsonValues, "JSON of more than ", kMaxJsonValues, " values");
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_dict) {
      open_.back().dict.back().second = std::move(value);
    } else {
      open_.back().list.push_back(std::move(value));
    }
    return true;
  }

  std::vector<Level> open_;
  Value result_;
  int64_t values_ = 0;
};

std::string JsonString(const std::string& text, bool ensure_ascii) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const uint32_t c = NextCodepoint(text, &at);
    constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f", kNames = "\"\\nrtbf";
    const size_t special = c < 0x80 ? kSpecial.find(static_cast<char>(c)) : std::string_view::npos;
    if (special != std::string_view::npos) {
      out += '\\';
      out += kNames[special];
    } else if (c < 0x20) {
      AppendEscaped(&out, "\\u%04x", c);
    } else if (ensure_ascii && c >= 0x10000) {
      AppendEscaped(&out, "\\u%04x", 0xD800 + ((c - 0x10000) >> 10));
      AppendEscaped(&out, "\\u%04x", 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else if (ensure_ascii && c >= 0x80) {
      AppendEscaped(&out, "\\u%04x", c);
    } else {
      out.append(text, begin, at - begin);
    }
  }
  return out + '"';
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget* budget) : style_(style), budget_(budget) {}

  void Write(const Value& value, int level) {
    budget_->Step();
    if (const auto* list = value.AsList()) {
      Open('[', level, list->items.empty());
      for (size_t i = 0; i < list->items.size(); ++i) {
        Separate(i, level);
        Write(list->items[i], level + 1);
      }
      Close(']', level, list->items.empty());
    } else if (const auto* dict = value.AsDict()) {
      WriteDict(*dict, level);
    } else if (value.IsNone()) {
      out_ += "null";
    } else if (const auto* flag = value.As<bool>()) {
      out_ += *flag ? "true" : "false";
    } else if (const auto* text = value.String()) {
      WriteString(*text);
    } else if (const auto* integer = value.As<int64_t>()) {
      out_ += std::to_string(*integer);
    } else if (const auto* number = value.As<double>()) {
      out_ += std::isfinite(*number) ? FloatRepr(*number)
              : std::isnan(*number)  ? "NaN"
              : *number > 0          ? "Infinity"
                                     : "-Infinity";
    } else {
      Fail("tojson cannot write " + TypeName(value));
    }
  }
  std::string Take() { return std::move(out_); }

 private:
  void WriteString(const std::string& text) {
    budget_->Bytes(2 * text.size());
    const std::string json = JsonString(text, style_.ensure_ascii);
    budget_->Bytes(json.size());
    out_ += json;
  }
  void WriteDict(const Dict& dict, int level) {
    std::vector<std::pair<std::string, const Value*>> items;
    for (const auto& [key, value] : dict.items) {
      if (const auto* text = key.String()) {
        budget_->Bytes(text->size());
        items.emplace_back(*text, &value);
      } else if (key.Is<int64_t>() || key.Is<bool>() || key.IsNone() || key.Is<double>()) {
        items.emplace_back(ToJson(key, {}, budget_), &value);
      } else {
        Fail("tojson: a key is " + TypeName(key));
      }
    }
    if (style_.sort_keys) {
      for (const auto& [key, unused] : items) budget_->Bytes(2 * key.size());
      std::stable_sort(items.begin(), items.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    Open('{', level, items.empty());
    for (size_t i = 0; i < items.size(); ++i) {
      Separate(i, level);
      WriteString(items[i].first);
      out_ += ": ";
      Write(*items[i].second, level + 1);
    }
    Close('}', level, items.empty());
  }
  void NewLine(int level) {
    const size_t spaces = static_cast<size_t>(level) * static_cast<size_t>(style_.indent);
    budget_->Bytes(spaces);
    out_ += '\n';
    out_.append(spaces, ' ');
  }
  void Open(char bracket, int level, bool empty) {
    out_ += bracket;
    if (style_.indent >= 0 && !empty) NewLine(level + 1);
  }
  void Separate(size_t index, int level) {
    if (index == 0) return;
    out_ += style_.indent >= 0 ? "," : ", ";
    if (style_.indent >= 0) NewLine(level + 1);
  }
  void Close(char bracket, int level, bool empty) {
    if (style_.indent >= 0 && !empty) NewLine(level);
    out_ += bracket;
  }

  JsonStyle style_;
  Budget* budget_;
  std::string out_;
};

}  // namespace

Value ParseJson(std::string_view text) {
  JsonReader reader;
  try {
    nlohmann::json::sax_parse(text, &reader);
  } catch (const TemplateError& error) {
    throw FormatError("JSON: " + error.message);
  }
  return reader.Take();
}

std::string ToJson(const Value& value, const JsonStyle& style, Budget* budget) {
  JsonWriter writer(style, budget);
  writer.Write(value, 0);
  return writer.Take();
}

}  // namespace tern::text::jinja
