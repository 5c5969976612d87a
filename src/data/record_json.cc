// See record_json.h.
#include "data/record_json.h"

#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace tern::data {
namespace {

constexpr size_t kMaxKeysShown = 20;

// Events of nlohmann's parser, which keeps its own stack on the heap: nesting costs no C++ stack.
class Handler : public nlohmann::json_sax<nlohmann::json> {
 public:
  Handler(const std::string* field, int max_depth, const std::string& where)
      : field_(field), max_depth_(max_depth), where_(where) {}

  bool null() override { return Scalar("null"); }
  bool boolean(bool) override { return Scalar("a boolean"); }
  bool number_integer(int64_t) override { return Scalar("a number"); }
  bool number_unsigned(uint64_t) override { return Scalar("a number"); }
  bool number_float(double, const std::string&) override { return Scalar("a number"); }
  bool binary(binary_t&) override { return Scalar("binary"); }
  bool string(string_t& value) override {
    if (wanted_) {
      text_ = std::move(value);
      found_ = true;
      wanted_ = false;
      return true;
    }
    return Scalar("a string");
  }
  bool start_object(size_t) override { return Open("an object"); }
  bool start_array(size_t) override { return Open("an array"); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (depth_ != 1 || field_ == nullptr) return true;
    if (name == *field_) {
      TERN_CHECK_FORMAT(!seen_, where_, ": the key \"", name, "\" for the second time");
      seen_ = wanted_ = true;
    } else if (keys_shown_ < kMaxKeysShown) {
      keys_ += StrCat(keys_.empty() ? "" : ", ", name.substr(0, 40));
      ++keys_shown_;
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::json::exception& error) override {
    throw FormatError(StrCat(where_, ": not valid JSON at byte ", position, ": ", error.what()));
  }

  std::string Result() {
    if (field_ == nullptr) return {};
    TERN_CHECK_INPUT(found_, where_, ": no text under the key \"", *field_,
                     seen_ ? StrCat("\": it is ", other_) : StrCat("\"; keys here: ", keys_),
                     ". Name the field that holds the text (text_field)");
    return std::move(text_);
  }

 private:
  bool Scalar(const char* kind) {
    TERN_CHECK_FORMAT(depth_ > 0, where_, ": ", kind, " where a JSON object is wanted");
    return Value(kind);
  }
  bool Value(const char* kind) {
    if (wanted_) other_ = kind;
    wanted_ = false;
    return true;
  }
  bool Open(const char* kind) {
    TERN_CHECK_FORMAT(depth_ > 0 || kind[3] == 'o', where_, ": ", kind,
                      " where a JSON object is wanted");
    TERN_CHECK_FORMAT(++depth_ <= max_depth_, where_, ": JSON nested deeper than ", max_depth_,
                      " levels");
    return Value(kind);
  }
  bool Close() {
    --depth_;
    return true;
  }

  const std::string* field_;
  const int max_depth_;
  const std::string& where_;
  int depth_ = 0;
  bool wanted_ = false;  // The next value belongs to the field
  bool seen_ = false, found_ = false;
  const char* other_ = "";  // What the field holds instead of a string
  std::string text_, keys_;
  size_t keys_shown_ = 0;
};

}  // namespace

std::string ParseRecord(std::string_view record, const std::string* field, int max_depth,
                        const std::string& where) {
  Handler handler(field, max_depth, where);
  nlohmann::json::sax_parse(record, &handler);
  return handler.Result();
}

}  // namespace tern::data
