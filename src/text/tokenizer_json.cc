// tokenizer.json of HF tokenizers (its serialized form, version 1.0) into a BpeDefinition. Every
// member that changes ids or text is either understood or refused.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/strict_json.h"
#include "text/bpe_definition.h"
#include "text/unicode_additions.h"

namespace tern::text {
namespace {

using nlohmann::json;

// Gemma's: 262,144 tokens and 514,906 merges of a list and two texts each.
constexpr formats::JsonLimits kLimits = {16, 8'000'000};
constexpr int64_t kMaxId = 4'000'000;
constexpr size_t kMaxContent = 1024;  // Bytes of an added token

// Of Unicode 14, what HF tokenizers' Punctuation does not take for it: its table is of 2014. (Its
// U+166D and U+111C9 have become symbols and marks since.)
constexpr const char* kNewPunctuation =
    R"(\x{61D}\x{9FD}\x{A76}\x{C77}\x{C84}\x{1B7D}-\x{1B7E}\x{2E43}-\x{2E4F})"
    R"(\x{2E52}-\x{2E5D}\x{10EAD}\x{10F55}-\x{10F59}\x{10F86}-\x{10F89}\x{1144B}-\x{1144F})"
    R"(\x{1145A}-\x{1145B}\x{1145D}\x{11660}-\x{1166C}\x{116B9}\x{1183B}\x{11944}-\x{11946})"
    R"(\x{119E2}\x{11A3F}-\x{11A46}\x{11A9A}-\x{11A9C}\x{11A9E}-\x{11AA2}\x{11C41}-\x{11C45})"
    R"(\x{11C70}-\x{11C71}\x{11EF7}-\x{11EF8}\x{11FFF}\x{12FF1}-\x{12FF2}\x{16E97}-\x{16E9A})"
    R"(\x{16FE2}\x{1E95E}-\x{1E95F})";

std::string Punctuation() {
  return StrCat("(?![", kNewPunctuation, AddedCodepoints("P"),
                R"(])[\p{P}!-/:-@\[-`{-~\x{166D}\x{111C9}])");
}

class Reader {
 public:
  Reader(const json& root, const std::string& name) : root_(root), name_(name) {}

  BpeDefinition Read() {
    Want(root_.is_object(), "no JSON object");
    Model(Member(root_, "model"));
    for (const json& token : List(root_, "added_tokens")) Added(token);
    if (Has(root_, "normalizer")) Normalizer(root_["normalizer"]);
    definition_.byte_level = false;
    if (Has(root_, "pre_tokenizer")) PreTokenizer(root_["pre_tokenizer"]);
    if (Has(root_, "post_processor")) PostProcessor(root_["post_processor"]);
    Want(Has(root_, "decoder"), "no decoder: how tokens become text is not said");
    bool byte_decoder = false;
    Decoder(root_["decoder"], &byte_decoder);
    Want(byte_decoder == definition_.byte_level,
         "the pre-tokenizer and the decoder must both be ByteLevel or neither");
    return std::move(definition_);
  }

 private:
  template <class... Args>
  void Want(bool fits, const Args&... what) const {
    TERN_CHECK_FORMAT(fits, name_, ": ", what...);
  }
  static bool Has(const json& object, const char* key) {
    return object.is_object() && object.contains(key) && !object[key].is_null();
  }
  const json& Member(const json& object, const char* key) const {
    Want(Has(object, key), "\"", key, "\" is missing");
    return object[key];
  }
  std::string Text(const json& object, const char* key) const {
    const json& value = Member(object, key);
    Want(value.is_string(), key, " is no text");
    return value.get<std::string>();
  }
  bool Flag(const json& object, const char* key, bool fallback) const {
    if (!Has(object, key)) return fallback;
    Want(object[key].is_boolean(), key, " is neither true nor false");
    return object[key].get<bool>();
  }
  int64_t Int(const json& value, const char* what, int64_t most) const {
    Want(value.is_number_integer() && value >= 0 && value <= most, what, " is ", value.dump(),
         "; want 0 to ", most);
    return value.get<int64_t>();
  }
  const json& List(const json& object, const char* key) const {
    static const json kEmpty = json::array();
    if (!Has(object, key)) return kEmpty;
    Want(object[key].is_array(), key, " is no list");
    return object[key];
  }

  void Place(int32_t id, const std::string& token) {
    auto& tokens = definition_.tokens;
    if (tokens.size() <= static_cast<size_t>(id)) tokens.resize(static_cast<size_t>(id) + 1);
    std::string& slot = tokens[static_cast<size_t>(id)];
    Want(slot.empty() || slot == token, "the id ", id, " is given to ", slot, " and to ", token);
    slot = token;
  }

  void Model(const json& model) {
    const std::string type = Has(model, "type") ? Text(model, "type") : "BPE";
    Want(type == "BPE", "the model is ", type, "; this version reads BPE");
    Want(!Has(model, "dropout") || model["dropout"] == 0.0, "the model has dropout");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      Want(!Has(model, key) || model[key] == "", "the model has a ", key,
           ", which this version does not read");
    }
    definition_.fuse_unk = Flag(model, "fuse_unk", false);
    definition_.byte_fallback = Flag(model, "byte_fallback", false);
    definition_.ignore_merges = Flag(model, "ignore_merges", false);
    const json& vocab = Member(model, "vocab");
    Want(vocab.is_object() && !vocab.empty(), "model.vocab is no object with tokens");
    const auto most = std::min<int64_t>(kMaxId, static_cast<int64_t>(vocab.size()) * 4 + 1000);
    for (const auto& [token, id] : vocab.items()) {
      if (token.empty()) continue;  // Nothing can give it
      const auto number = static_cast<int32_t>(Int(id, "an id of model.vocab", most));
      Place(number, token);
      ids_.emplace(token, number);
    }
    if (Has(model, "unk_token")) {
      const std::string unknown = Text(model, "unk_token");
      Want(ids_.contains(unknown), "unk_token ", unknown, " is not in the vocabulary");
      definition_.unk_id = ids_[unknown];
    }
    Merges(Member(model, "merges"));
  }

  void Merges(const json& merges) {
    Want(merges.is_array(), "model.merges is no list");
    for (const json& merge : merges) {
      std::string left, right;
      if (merge.is_string()) {
        const std::string text = merge.get<std::string>();
        const size_t space = text.find(' ');
        Want(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
             "the merge \"", text, "\" is not two texts");
        left = text.substr(0, space);
        right = text.substr(space + 1);
      } else {
        Want(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
             "the merge ", merge.dump(), " is not two texts");
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      }
      const auto id = [&](const std::string& token) {
        const auto found = ids_.find(token);
        Want(found != ids_.end(), "the merge of ", left, " and ", right, ": ", token,
             " is not in the vocabulary");
        return found->second;
      };
      definition_.merges.push_back({id(left), id(right), id(left + right)});
    }
  }

  void Added(const json& token) {
    AddedToken added;
    added.content = Text(token, "content");
    if (added.content.empty()) return;
    Want(added.content.size() <= kMaxContent, "an added token of ", added.content.size(),
         " bytes; want at most ", kMaxContent);
    const auto most =
        std::min<int64_t>(kMaxId, static_cast<int64_t>(definition_.tokens.size()) + 100'000);
    added.id = static_cast<int32_t>(Int(Member(token, "id"), "the id of an added token", most));
    const auto known = ids_.find(added.content);
    Want(known == ids_.end() || known->second == added.id, "the added token ", added.content,
         " has the id ", added.id, " and, in the vocabulary, ",
         known == ids_.end() ? -1 : known->second);
    Place(added.id, added.content);
    added.single_word = Flag(token, "single_word", false);
    added.lstrip = Flag(token, "lstrip", false);
    added.rstrip = Flag(token, "rstrip", false);
    added.special = Flag(token, "special", false);
    added.normalized = Flag(token, "normalized", !added.special);
    definition_.added.push_back(std::move(added));
  }

  // {"String": text} or {"Regex": pattern}.
  Regex Pattern(const json& pattern, std::string* source = nullptr) const {
    if (Has(pattern, "String")) return Regex::Literal(Text(pattern, "String"));
    const std::string text = Text(pattern, "Regex");
    if (source != nullptr) *source = text;
    return Regex(text, RegexDialect::kOniguruma);
  }

  void Normalizer(const json& normalizer) {
    const std::string type = Text(normalizer, "type");
    using Kind = NormalizerStep::Kind;
    NormalizerStep step;
    if (type == "Sequence") {
      for (const json& inner : List(normalizer, "normalizers")) Normalizer(inner);
      return;
    }
    static constexpr std::pair<std::string_view, NormalForm> kForms[] = {
        {"NFC", NormalForm::kNfc},
        {"NFD", NormalForm::kNfd},
        {"NFKC", NormalForm::kNfkc},
        {"NFKD", NormalForm::kNfkd}};
    const auto* form = std::find_if(std::begin(kForms), std::end(kForms),
                                    [&](const auto& f) { return f.first == type; });
    if (form != std::end(kForms)) {
      step.form = form->second;
    } else if (type == "Prepend") {
      step.kind = Kind::kPrepend;
      step.content = Text(normalizer, "prepend");
    } else if (type == "Replace") {
      step.kind = Kind::kReplace;
      step.pattern.push_back(Pattern(Member(normalizer, "pattern")));
      step.content = Text(normalizer, "content");
    } else if (type == "Lowercase") {
      step.kind = Kind::kLowercase;
    } else if (type == "Strip") {
      step.kind = Kind::kStrip;
      step.left = Flag(normalizer, "strip_left", true);
      step.right = Flag(normalizer, "strip_right", true);
    } else if (type == "StripAccents") {
      step.kind = Kind::kStripAccents;
    } else {
      Want(false, "the normalizer ", type, " is not read by this version");
    }
    definition_.normalizers.push_back(std::move(step));
  }

  void Split(const std::string& pattern, SplitBehavior behavior, bool invert = false) {
    PreTokenizerStep step = IsolatedSplit(pattern, RegexDialect::kOniguruma);
    step.behavior = behavior;
    step.invert = invert;
    definition_.pre_tokenizers.push_back(std::move(step));
  }

  SplitBehavior Behavior(const json& object) const {
    static constexpr std::pair<std::string_view, SplitBehavior> kNames[] = {
        {"Removed", SplitBehavior::kRemoved},
        {"Isolated", SplitBehavior::kIsolated},
        {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
        {"MergedWithNext", SplitBehavior::kMergedWithNext},
        {"Contiguous", SplitBehavior::kContiguous}};
    const std::string text = Has(object, "behavior") ? Text(object, "behavior") : "Isolated";
    for (const auto& [name, behavior] : kNames)
      if (name == text) return behavior;
    throw FormatError(StrCat(name_, ": the behavior ", text, " of a pre-tokenizer is unknown"));
  }

  void PreTokenizer(const json& step) {
    const std::string type = Text(step, "type");
    Want(!definition_.byte_level, "a pre-tokenizer ", type, " behind ByteLevel");
    if (type == "Sequence") {
      for (const json& inner : List(step, "pretokenizers")) PreTokenizer(inner);
    } else if (type == "Split") {
      PreTokenizerStep split;
      split.regex.push_back(Pattern(Member(step, "pattern"), &split.pattern));
      split.behavior = Behavior(step);
      split.invert = Flag(step, "invert", false);
      definition_.pre_tokenizers.push_back(std::move(split));
    } else if (type == "ByteLevel") {
      if (Flag(step, "add_prefix_space", true)) {
        definition_.pre_tokenizers.emplace_back().kind = PreTokenizerStep::Kind::kSpacePrefix;
      }
      if (Flag(step, "use_regex", true)) Split(kGpt2Pattern, SplitBehavior::kIsolated);
      definition_.byte_level = true;
    } else if (type == "Digits") {
      Split(R"(\p{N})", Flag(step, "individual_digits", false) ? SplitBehavior::kIsolated
                                                               : SplitBehavior::kContiguous);
    } else if (type == "Punctuation") {
      Split(Punctuation(), Behavior(step));
    } else if (type == "Whitespace") {
      const std::string word = kRustWord, inside = word.substr(1, word.size() - 2);
      Split(word + "+|[^" + inside + "\\s]+", SplitBehavior::kRemoved, true);
    } else if (type == "WhitespaceSplit") {
      Split(R"(\s)", SplitBehavior::kRemoved);
    } else if (type == "Metaspace") {
      Metaspace(step);
    } else {
      Want(false, "the pre-tokenizer ", type, " is not read by this version");
    }
  }

  PreTokenizerStep::Prepend Prepend(const json& step) const {
    using Prepend = PreTokenizerStep::Prepend;
    if (!Has(step, "prepend_scheme"))  // Files from before 2024
      return Flag(step, "add_prefix_space", true) ? Prepend::kAlways : Prepend::kNever;
    const std::string scheme = Text(step, "prepend_scheme");
    Want(scheme == "always" || scheme == "first" || scheme == "never", "prepend_scheme is ",
         scheme);
    return scheme == "always"  ? Prepend::kAlways
           : scheme == "first" ? Prepend::kFirst
                               : Prepend::kNever;
  }

  void Metaspace(const json& step) {
    PreTokenizerStep metaspace;
    metaspace.kind = PreTokenizerStep::Kind::kMetaspace;
    metaspace.replacement = Text(step, "replacement");
    Want(!metaspace.replacement.empty(), "the replacement of Metaspace is empty");
    metaspace.prepend = Prepend(step);
    metaspace.split = Flag(step, "split", true);
    definition_.pre_tokenizers.push_back(std::move(metaspace));
  }

  int32_t IdOfSpecial(const std::string& token) const {
    for (size_t id = 0; id < definition_.tokens.size(); ++id)
      if (definition_.tokens[id] == token) return static_cast<int32_t>(id);
    throw FormatError(StrCat(name_, ": the post-processor's token ", token, " is unknown"));
  }

  void PostProcessor(const json& step) {
    const std::string type = Text(step, "type");
    if (type == "Sequence") {
      for (const json& inner : List(step, "processors")) PostProcessor(inner);
    } else if (type == "TemplateProcessing") {
      Template(step);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      for (const auto& [key, list] :
           {std::pair{"cls", &definition_.prefix}, std::pair{"sep", &definition_.suffix}}) {
        const json& pair = Member(step, key);
        Want(pair.is_array() && pair.size() == 2 && pair[0].is_string(), key, " is ", pair.dump());
        list->push_back(IdOfSpecial(pair[0].get<std::string>()));
      }
    } else {
      Want(type == "ByteLevel", "the post-processor ", type, " is not read by this version");
    }
  }

  void Template(const json& step) {
    bool behind = false;
    for (const json& part : List(step, "single")) {
      if (Has(part, "Sequence")) {
        Want(!behind, "the template of one text has it twice");
        behind = true;
        continue;
      }
      const std::string token = Text(Member(part, "SpecialToken"), "id");
      const json& ids = List(Member(Member(step, "special_tokens"), token.c_str()), "ids");
      for (const json& id : ids) {
        const auto most = static_cast<int64_t>(definition_.tokens.size()) - 1;
        (behind ? definition_.suffix : definition_.prefix)
            .push_back(static_cast<int32_t>(Int(id, "an id of the post-processor", most)));
      }
    }
    Want(behind, "the template of one text does not have the text");
  }

  void Decoder(const json& step, bool* byte_level) {
    const std::string type = Text(step, "type");
    if (type == "Sequence") {
      for (const json& inner : List(step, "decoders")) Decoder(inner, byte_level);
    } else if (type == "ByteLevel") {
      *byte_level = true;
    } else if (type == "Metaspace") {
      definition_.space_mark = Text(step, "replacement");
      definition_.strip_first_space = Prepend(step) != PreTokenizerStep::Prepend::kNever;
    } else if (type == "Replace") {
      Want(Text(step, "content") == " " && Has(Member(step, "pattern"), "String"),
           "a decoder Replace that does not make spaces of a text");
      definition_.space_mark = Text(step["pattern"], "String");
    } else if (type == "Strip") {
      Want(Text(step, "content") == " " && Int(Member(step, "start"), "start", 9) == 1 &&
               Int(Member(step, "stop"), "stop", 9) == 0,
           "a decoder Strip that does not take one space from the begin");
      definition_.strip_first_space = true;
    } else {
      Want(type == "ByteFallback" || type == "Fuse", "the decoder ", type,
           " is not read by this version");
    }
  }

  const json& root_;
  const std::string& name_;
  BpeDefinition definition_;
  std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace

BpeDefinition ParseTokenizerJson(std::string_view text, const std::string& name) {
  const json root = formats::ParseStrictJson(text, name, kLimits);
  return Reader(root, name).Read();
}

}  // namespace tern::text
