// See gguf_tokenizer.h.
#include "engine/gguf_tokenizer.h"

#include <string>

#include "base/error.h"
#include "base/log.h"
#include "engine/hf_tokenizer.h"

namespace tern::engine {
namespace {

using formats::GgufReader;

int32_t IdOr(const GgufReader& file, const char* key, int32_t fallback, int64_t size) {
  if (!file.Has(key)) return fallback;
  const int64_t id = file.Int(key);
  TERN_CHECK_FORMAT(id >= -1 && id < size, file.path(), ": ", key, " is ", id, "; want -1 to ",
                    size - 1);
  return static_cast<int32_t>(id);
}

bool FlagOr(const GgufReader& file, const char* key, bool fallback) {
  return file.Has(key) ? file.Flag(key) : fallback;
}

void ReadTypes(const GgufReader& file, text::PieceTable* table) {
  for (const double type : file.Numbers("tokenizer.ggml.token_type")) {
    TERN_CHECK_FORMAT(type >= 1 && type <= 6, file.path(), ": tokenizer.ggml.token_type has ", type,
                      " at ", table->types.size(), "; want 1 to 6");
    table->types.push_back(static_cast<text::PieceType>(static_cast<int32_t>(type)));
  }
}

// Pre-tokenizers whose texts begin with BOS when the file does not say (llama.cpp's rule).
bool AddsBosByDefault(const std::string& pre) {
  for (const char* name : {"llama-bpe", "llama3", "llama-v3", "falcon3", "tekken"})
    if (pre == name) return true;
  return false;
}

std::optional<text::Tokenizer> ReadByteLevel(const GgufReader& file, text::PieceTable table) {
  // Rows that the model has beyond its vocabulary: no text gives them, and none may be written.
  while (!table.types.empty() && table.types.size() == table.pieces.size() &&
         table.types.back() == text::PieceType::kUnused) {
    table.types.pop_back();
    table.pieces.pop_back();
  }
  const std::vector<std::string> merges = file.Strings("tokenizer.ggml.merges");
  const auto size = static_cast<int64_t>(table.pieces.size());
  table.bos_id = IdOr(file, "tokenizer.ggml.bos_token_id", -1, size);
  table.eos_id = IdOr(file, "tokenizer.ggml.eos_token_id", -1, size);
  constexpr const char* kPre = "tokenizer.ggml.pre";
  const std::string pre = file.Has(kPre) ? file.String(kPre) : "default";
  try {
    return text::Tokenizer::FromGgufBpe(
        table, merges, pre, FlagOr(file, "tokenizer.ggml.add_bos_token", AddsBosByDefault(pre)));
  } catch (const FormatError& error) {
    throw FormatError(StrCat(file.path(), ": ", error.what()));
  } catch (const InputError& error) {  // The model runs without: on token ids
    LogWarn(file.path(), ": the tokenizer cannot be used: ", error.what());
    return std::nullopt;
  }
}

}  // namespace

std::optional<text::Tokenizer> ReadGgufTokenizer(const GgufReader& file, int64_t model_vocab_size) {
  const char* kind_key = "tokenizer.ggml.model";
  const std::string kind = file.Has(kind_key) ? file.String(kind_key) : "none";
  if (kind == "none") return std::nullopt;
  text::PieceTable table;
  table.pieces = file.Strings("tokenizer.ggml.tokens");
  const auto size = static_cast<int64_t>(table.pieces.size());
  TERN_CHECK_FORMAT(size <= model_vocab_size, file.path(), ": tokenizer.ggml.tokens has ", size,
                    " pieces and the model ", model_vocab_size,
                    " rows; a piece without a row cannot be run");
  ReadTypes(file, &table);
  if (kind == "gpt2") return ReadByteLevel(file, table);
  if (kind != "llama") {
    LogWarn(file.path(), ": tokenizer ", kind,
            " is not read by this version (it reads SentencePiece, \"llama\", and BPE, \"gpt2\")");
    return std::nullopt;
  }
  for (const double score : file.Numbers("tokenizer.ggml.scores"))
    table.scores.push_back(static_cast<float>(score));
  TERN_CHECK_FORMAT(
      table.scores.size() == table.pieces.size() && table.types.size() == table.pieces.size(),
      file.path(), ": tokenizer.ggml has ", size, " tokens, ", table.scores.size(), " scores and ",
      table.types.size(), " token_types; want as many of each");
  table.unk_id = IdOr(file, "tokenizer.ggml.unknown_token_id", 0, size);
  table.bos_id = IdOr(file, "tokenizer.ggml.bos_token_id", 1, size);
  table.eos_id = IdOr(file, "tokenizer.ggml.eos_token_id", 2, size);
  if (!FlagOr(file, "tokenizer.ggml.add_bos_token", true)) table.bos_id = -1;
  table.add_space_prefix = FlagOr(file, "tokenizer.ggml.add_space_prefix", true);
  table.remove_extra_whitespaces = FlagOr(file, "tokenizer.ggml.remove_extra_whitespaces", false);
  try {
    return text::Tokenizer::FromPieces(table);
  } catch (const FormatError& error) {  // Which knows pieces, and no file
    throw FormatError(StrCat(file.path(), ": ", error.what()));
  }
}

std::optional<text::ChatTemplate> ReadGgufChatTemplate(const GgufReader& file) {
  constexpr const char* kKey = "tokenizer.chat_template";
  if (!file.Has(kKey)) return std::nullopt;
  const auto token = [&](const char* key) -> std::string {
    if (!file.Has(key) || !file.Has("tokenizer.ggml.tokens")) return "";
    const std::vector<std::string> tokens = file.Strings("tokenizer.ggml.tokens");
    const int32_t id = IdOr(file, key, -1, static_cast<int64_t>(tokens.size()));
    return id < 0 ? "" : tokens[static_cast<size_t>(id)];
  };
  return ParseChatTemplate(file.String(kKey), token("tokenizer.ggml.bos_token_id"),
                           token("tokenizer.ggml.eos_token_id"), file.path());
}

}  // namespace tern::engine
