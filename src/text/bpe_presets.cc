// The pieces that byte-level tokenizers share: GPT-2's alphabet of bytes, the pre-tokenizers that
// GGUF files and tiktoken know by name, and a definition written as tokenizer.json.
#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/error.h"
#include "text/bpe_definition.h"

namespace tern::text {
namespace {

// U+0100 + n for the n-th byte that does not print (Radford et al. 2019, GPT-2's encoder).
std::array<uint32_t, 256> MakeAlphabet() {
  std::array<uint32_t, 256> alphabet{};
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool prints =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    alphabet[byte] = prints ? byte : next++;
  }
  return alphabet;
}

const std::array<uint32_t, 256>& Alphabet() {
  static const std::array<uint32_t, 256> alphabet = MakeAlphabet();
  return alphabet;
}

constexpr uint32_t kAlphabetEnd = 0x144;  // U+0100 and 68 more

const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kCl100kPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";
const char* const kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kCjkPattern = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
const char* const kDeepSeek3Pattern =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kDeepSeekCoderCjk = R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

struct Preset {
  const char* name;
  std::vector<const char*> patterns;
  bool ignore_merges = false, nfc = false;
  bool in_gguf = true;  // A name of llama.cpp, and not of tiktoken alone
};

const std::vector<Preset>& Presets() {
  static const std::vector<Preset> presets = {
      {"gpt-2", {kGpt2Pattern}},
      {"phi-2", {kGpt2Pattern}},
      {"olmo", {kGpt2Pattern}},
      {"smollm", {R"(\p{N})", kGpt2Pattern}},
      {"starcoder", {R"(\p{N})", kGpt2Pattern}},
      {"refact", {R"(\p{N})", kGpt2Pattern}},
      {"command-r", {R"(\p{N})", kGpt2Pattern}},
      {"codeshell", {R"(\p{N})", kGpt2Pattern}},
      {"llama-bpe", {kLlama3Pattern}, true},
      {"llama3", {kLlama3Pattern}, true},
      {"llama-v3", {kLlama3Pattern}, true},
      {"falcon3", {kLlama3Pattern}, true},
      {"dbrx", {kLlama3Pattern}},
      {"smaug-bpe", {kLlama3Pattern}},
      // transformers normalizes what goes into Qwen2's tokenizer; llama.cpp does not.
      {"qwen2", {kQwen2Pattern}, false, true},
      {"deepseek-r1-qwen", {kQwen2Pattern}, false, true},
      {"stablelm2", {kQwen2Pattern}},
      {"cl100k", {kCl100kPattern}, true, false, false},
      {"gpt-4o", {kO200kPattern}},
      {"o200k", {kO200kPattern}, true, false, false},
      {"llama4", {kO200kPattern}},
      {"tekken", {kTekkenPattern}, true},
      {"deepseek-coder",
       {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekCoderCjk, R"(\p{N})"}},
      {"deepseek-v3", {R"(\p{N}{1,3})", kCjkPattern, kDeepSeek3Pattern}},
  };
  return presets;
}

nlohmann::ordered_json AddedTokensJson(const BpeDefinition& definition) {
  auto added = nlohmann::ordered_json::array();
  for (const AddedToken& token : definition.added) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  return added;
}

// The prefix that every text gets, null when there is none.
nlohmann::ordered_json PostProcessorJson(const BpeDefinition& definition) {
  using nlohmann::ordered_json;
  if (definition.prefix.empty()) return nullptr;
  ordered_json single = ordered_json::array(), special;
  for (const int32_t id : definition.prefix) {
    const std::string& text = definition.tokens[static_cast<size_t>(id)];
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    special[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
  }
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", single},
          {"special_tokens", special}};
}

}  // namespace

const char* const kGpt2Pattern =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string ByteLevelEncode(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) AppendCodepoint(Alphabet()[static_cast<unsigned char>(c)], &text);
  return text;
}

bool ByteLevelDecode(std::string_view text, std::string* bytes) {
  static const std::array<int, kAlphabetEnd> kBytes = [] {
    std::array<int, kAlphabetEnd> table{};
    table.fill(-1);
    for (size_t byte = 0; byte < 256; ++byte) table.at(Alphabet()[byte]) = static_cast<int>(byte);
    return table;
  }();
  bytes->clear();
  for (size_t at = 0; at < text.size();) {
    const uint32_t c = NextCodepoint(text, &at);
    if (c >= kAlphabetEnd || kBytes[c] < 0) return false;
    *bytes += static_cast<char>(kBytes[c]);
  }
  return true;
}

int ByteOfPiece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  int value = -1;
  const auto result = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  return result.ptr == piece.data() + 5 ? value : -1;
}

PreTokenizerStep IsolatedSplit(const std::string& pattern, RegexDialect dialect) {
  PreTokenizerStep step;
  step.regex.emplace_back(pattern, dialect);
  step.pattern = pattern;
  return step;
}

bool FillPreTokenizer(std::string_view name, BpeDefinition* definition) {
  for (const Preset& preset : Presets()) {
    if (preset.name != name) continue;
    for (const char* pattern : preset.patterns)
      definition->pre_tokenizers.push_back(IsolatedSplit(pattern, RegexDialect::kFancyRegex));
    definition->ignore_merges = preset.ignore_merges;
    if (preset.nfc) definition->normalizers.emplace_back();
    return true;
  }
  return false;
}

namespace {

// A pattern as presets write it: characters beyond ASCII as \x{...}, line ends as \r and \n, no
// backslash before a quotation mark.
std::string WithoutLiterals(std::string_view pattern) {
  std::string out;
  for (size_t at = 0; at < pattern.size();) {
    const uint32_t c = NextCodepoint(pattern, &at);
    if (c < 0x80) {
      if (c == '"' && out.ends_with('\\') && !out.ends_with("\\\\")) out.pop_back();
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : std::string(1, static_cast<char>(c));
      continue;
    }
    std::array<char, 16> buffer{};
    const int size = std::snprintf(buffer.data(), buffer.size(), "\\x{%04X}", c);
    out.append(buffer.data(), static_cast<size_t>(size));
  }
  return out;
}

bool Fits(const Preset& preset, const BpeDefinition& definition) {
  const auto& steps = definition.pre_tokenizers;
  const auto& normalizers = definition.normalizers;
  if (!preset.in_gguf || preset.ignore_merges != definition.ignore_merges ||
      preset.patterns.size() != steps.size() || normalizers.size() != (preset.nfc ? 1u : 0u))
    return false;
  if (preset.nfc && (normalizers[0].kind != NormalizerStep::Kind::kForm ||
                     normalizers[0].form != NormalForm::kNfc))
    return false;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].kind != PreTokenizerStep::Kind::kSplit || steps[i].invert ||
        steps[i].behavior != SplitBehavior::kIsolated ||
        WithoutLiterals(steps[i].pattern) != preset.patterns[i])
      return false;
  }
  return true;
}

[[noreturn]] void CannotBeGguf(const std::string& why) {
  throw RecipeError("GGUF cannot say this tokenizer: " + why +
                    "; export to hf/f32, hf/f16 or hf/bf16, which keep its tokenizer.json");
}

// With a token for each byte the unknown token is never used.
void CheckAllBytes(const BpeDefinition& definition) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string symbol = ByteLevelEncode(std::string(1, static_cast<char>(byte)));
    if (std::find(definition.tokens.begin(), definition.tokens.end(), symbol) ==
        definition.tokens.end())
      CannotBeGguf(StrCat("the byte ", byte, " is its unknown token"));
  }
}

bool Overlap(std::string_view a, std::string_view b) {
  if (a.find(b) != std::string_view::npos || b.find(a) != std::string_view::npos) return true;
  for (size_t size = 1; size < std::min(a.size(), b.size()); ++size)
    if (a.ends_with(b.substr(0, size)) || b.ends_with(a.substr(0, size))) return true;
  return false;
}

// GGUF has a token's text and whether it is special, and nothing else.
void CheckAddedTokens(const BpeDefinition& definition) {
  for (const AddedToken& token : definition.added) {
    if (token.lstrip || token.rstrip || token.single_word)
      CannotBeGguf("the added token " + token.content +
                   " takes white space beside it, or is found as a whole word only");
    if (token.normalized && !definition.normalizers.empty())
      CannotBeGguf("the added token " + token.content + " is looked for in normalized text");
    // Those that are not normalized are found first, which matters where two can meet.
    for (const AddedToken& other : definition.added) {
      if (token.normalized && !other.normalized && Overlap(token.content, other.content))
        CannotBeGguf("the added token " + other.content + " is looked for before " + token.content);
    }
  }
}

}  // namespace

GgufBpe GgufOf(const BpeDefinition& definition) {
  if (!definition.byte_level) CannotBeGguf("it is BPE of characters, not of bytes");
  if (definition.prefix.size() > 1) CannotBeGguf("a text begins with more than one token");
  if (definition.unk_id >= 0) CheckAllBytes(definition);
  CheckAddedTokens(definition);
  GgufBpe out;
  for (const Preset& preset : Presets()) {
    if (!out.pre.empty() || !Fits(preset, definition)) continue;
    out.pre = preset.name;
  }
  if (out.pre.empty())
    CannotBeGguf("llama.cpp knows its rules of cutting words (pre-tokenizer) by no name");
  out.tokens = definition.tokens;
  out.types.assign(out.tokens.size(), PieceType::kNormal);
  for (const AddedToken& token : definition.added) {
    out.types[static_cast<size_t>(token.id)] =
        token.special ? PieceType::kControl : PieceType::kUserDefined;
  }
  for (size_t id = 0; id < out.tokens.size(); ++id) {
    if (!out.tokens[id].empty()) continue;
    out.tokens[id] = StrCat("[PAD", id, "]");  // llama.cpp's converter's name of a free id
    out.types[id] = PieceType::kUnused;
  }
  for (const Merge& merge : definition.merges) {
    out.merges.push_back(definition.tokens[static_cast<size_t>(merge.left)] + " " +
                         definition.tokens[static_cast<size_t>(merge.right)]);
  }
  return out;
}

namespace {

// Members of the model, put together as text: objects of a hundred thousand values take ten times
// as long. The vocabulary is sorted by its tokens; of equal ones the last id counts.
std::string VocabAndMerges(const BpeDefinition& definition) {
  const std::vector<std::string>& tokens = definition.tokens;
  std::vector<std::string> quoted;
  std::vector<size_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) {
    quoted.push_back(nlohmann::json(tokens[id]).dump());
    if (!tokens[id].empty()) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end(),
            [&](size_t a, size_t b) { return std::tie(tokens[a], a) < std::tie(tokens[b], b); });
  std::string text = ",\"vocab\":{";
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i + 1 < ids.size() && tokens[ids[i]] == tokens[ids[i + 1]]) continue;
    if (text.back() != '{') text += ',';
    text += quoted[ids[i]] + ":" + std::to_string(ids[i]);
  }
  text += "},\"merges\":[";
  for (const Merge& merge : definition.merges) {
    if (text.back() != '[') text += ',';
    text.append("[").append(quoted[static_cast<size_t>(merge.left)]).append(",");
    text.append(quoted[static_cast<size_t>(merge.right)]).append("]");
  }
  return text + "]";
}

}  // namespace

std::string WriteTokenizerJson(const BpeDefinition& definition) {
  using nlohmann::ordered_json;
  ordered_json splits = ordered_json::array();
  for (const PreTokenizerStep& step : definition.pre_tokenizers) {
    splits.push_back({{"type", "Split"},
                      {"pattern", {{"Regex", step.pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}});
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", true},
                                   {"use_regex", false}};
  splits.push_back(byte_level);
  ordered_json json = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  json["added_tokens"] = AddedTokensJson(definition);
  json["normalizer"] =
      definition.normalizers.empty() ? ordered_json() : ordered_json{{"type", "NFC"}};
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", splits}};
  json["post_processor"] = PostProcessorJson(definition);
  json["decoder"] = byte_level;
  std::string text = json.dump();
  text.pop_back();  // The model behind it, without a copy into an ordered object
  const ordered_json head = {{"type", "BPE"},
                             {"dropout", nullptr},
                             {"unk_token", nullptr},
                             {"continuing_subword_prefix", nullptr},
                             {"end_of_word_suffix", nullptr},
                             {"fuse_unk", false},
                             {"byte_fallback", false},
                             {"ignore_merges", definition.ignore_merges}};
  std::string model = head.dump();
  model.pop_back();
  return text + ",\"model\":" + model + VocabAndMerges(definition) + "}}";
}

}  // namespace tern::text
