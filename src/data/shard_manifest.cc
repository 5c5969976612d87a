// See shard_manifest.h.
#include "data/shard_manifest.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace tern::data {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kVersion = 1;
constexpr const char* kFormat = "tern-shards";
constexpr size_t kMaxBytes = size_t{256} << 20;  // A million shards

int64_t Count(const ordered_json& object, const char* key) {
  const auto value = object.at(key).get<int64_t>();
  TERN_CHECK_FORMAT(object.at(key).is_number_integer() && value >= 0, key, " is ",
                    object.at(key).dump(), "; want a count");
  return value;
}

ordered_json ToJson(const Shard& shard) {
  ordered_json json;
  for (const Split split : kSplits) {
    const ShardSplit& part = shard.splits[static_cast<size_t>(split)];
    json[SplitName(split)] = {
        {"tokens", part.tokens}, {"documents", part.documents}, {"text_bytes", part.text_bytes}};
  }
  json["empty_records"] = shard.empty_records;
  json["end"] = {{"file", shard.end.file}, {"records", shard.end.records}};
  return json;
}

Shard FromJson(const ordered_json& json) {
  Shard shard;
  for (const Split split : kSplits) {
    const ordered_json& part = json.at(SplitName(split));
    shard.splits[static_cast<size_t>(split)] = {Count(part, "tokens"), Count(part, "documents"),
                                                Count(part, "text_bytes")};
  }
  shard.empty_records = Count(json, "empty_records");
  shard.end = {Count(json.at("end"), "file"), Count(json.at("end"), "records")};
  return shard;
}

}  // namespace

std::string ShardName(int64_t index, Split split) {
  char number[24];
  std::snprintf(number, sizeof number, "%05lld", static_cast<long long>(index));
  return StrCat(number, ".", SplitName(split));
}

std::string ShardManifest::PathIn(const std::string& folder) { return folder + "/manifest.json"; }

ShardManifest ShardManifest::Read(const std::string& folder) {
  const std::string path = PathIn(folder), text = ReadFile(path);
  TERN_CHECK_FORMAT(text.size() <= kMaxBytes, path, " has ", text.size(), " bytes; want up to ",
                    kMaxBytes);
  ShardManifest manifest;
  try {
    const ordered_json json = ordered_json::parse(text);
    TERN_CHECK_FORMAT(json.at("format") == kFormat && json.at("version") == kVersion, "format ",
                      json.at("format").dump(), " version ", json.at("version").dump(), "; want \"",
                      kFormat, "\" version ", kVersion);
    manifest.made_from = json.at("made_from").dump();
    manifest.tokenizer_sha256 = json.at("tokenizer_sha256").get<std::string>();
    manifest.vocab_size = Count(json, "vocab_size");
    manifest.complete = json.at("complete").get<bool>();
    for (const ordered_json& shard : json.at("shards")) manifest.shards.push_back(FromJson(shard));
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(StrCat(path, ": ", error.what()));
  } catch (const FormatError& error) {
    throw FormatError(StrCat(path, ": ", error.what()));
  }
  return manifest;
}

void ShardManifest::Write(const std::string& folder) const {
  ordered_json json = {{"format", kFormat},
                       {"version", kVersion},
                       {"made_from", ordered_json::parse(made_from)},
                       {"tokenizer_sha256", tokenizer_sha256},
                       {"vocab_size", vocab_size},
                       {"complete", complete},
                       {"shards", ordered_json::array()}};
  for (const Shard& shard : shards) json["shards"].push_back(ToJson(shard));
  WriteFileAtomically(PathIn(folder), json.dump(1) + "\n");
}

}  // namespace tern::data
