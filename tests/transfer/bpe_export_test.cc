// A byte-level BPE goes into GGUF and comes back as the same tokenizer, with the tokens that end a
// text, the chat template and its BOS; what GGUF cannot say is refused.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "engine/stop_tokens.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"
#include "transfer/export.h"
#include "transfer/import.h"

namespace tern::transfer {
namespace {

using nlohmann::json;

json GoldenTokenizers() {
  return json::parse(ReadFile(TERN_SOURCE_DIR "/tests/text/golden/tokenizers.json"));
}

// Without the added tokens that have rules of their own.
json Plain(const std::string& family) {
  json tokenizer = GoldenTokenizers()["families"][family]["tokenizer"];
  json kept = json::array();
  for (const json& token : tokenizer["added_tokens"])
    if (token["special"] == true && token["lstrip"] == false && token["rstrip"] == false)
      kept.push_back(token);
  tokenizer["added_tokens"] = kept;
  tokenizer["post_processor"] = nullptr;
  return tokenizer;
}

// A tiny dense model around the tokenizer, with more rows than it has tokens.
std::string WriteFolder(const std::string& folder, const json& tokenizer) {
  ModelConfig config = testing::TinyConfig(ArchName::kLlama, LinearKind::kDense);
  config.vocab_size = 768;
  testing::WriteHfFolder(testing::MakeTinyModel(config, 31), folder);
  WriteFileAtomically(folder + "/tokenizer.json", tokenizer.dump());
  WriteFileAtomically(folder + "/tokenizer_config.json",
                      R"({"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"})");
  WriteFileAtomically(folder + "/chat_template.jinja", "{{ bos_token }}{{ messages }}");
  const auto id = text::Tokenizer::FromSerialized(tokenizer.dump(), "tokenizer").IdOf("<|im_end|>");
  WriteFileAtomically(folder + "/generation_config.json",
                      json({{"eos_token_id", {id.value()}}}).dump());
  return folder;
}

TEST(BpeExportTest, GgufGivesTheSameTokenizerBack) {
  const at::NoGradGuard no_grad;
  for (const auto& [family, pre] : {std::pair("smollm", "smollm"),
                                    {"llama3", "llama-bpe"},
                                    {"qwen2", "qwen2"},
                                    {"o200k", "gpt-4o"},
                                    {"deepseek_v3", "deepseek-v3"}}) {
    SCOPED_TRACE(family);
    testing::TempFolder folder;
    const OpenedModel opened = OpenDecoder(WriteFolder(folder / "source", Plain(family)));
    const std::string path = folder / "model.gguf";
    Export(opened.decoder, {&*opened.tokenizer, opened.files}, {"gguf/f16", "", "model"}, path);
    const formats::GgufReader file(path);
    EXPECT_EQ(file.String("tokenizer.ggml.pre"), pre);
    EXPECT_EQ(file.String("tokenizer.ggml.model"), "gpt2");
    EXPECT_EQ(file.Strings("tokenizer.ggml.tokens").size(), 768u);
    const OpenedModel again = OpenDecoder(path);
    ASSERT_TRUE(again.tokenizer.has_value()) << family;
    EXPECT_EQ(again.tokenizer->vocab_size(), opened.tokenizer->vocab_size());
    EXPECT_EQ(again.tokenizer->eos_id(), opened.tokenizer->eos_id());
    EXPECT_EQ(again.tokenizer->bos_id(), -1) << "templates write it, texts do not begin with it";
    for (const std::string text : GoldenTokenizers()["texts"])
      EXPECT_EQ(again.tokenizer->Encode(text), opened.tokenizer->Encode(text)) << family << text;
    const auto source = engine::OpenModel(path);
    EXPECT_EQ(source->StopTokens(*again.tokenizer).size(), 2u);
    EXPECT_EQ(source->ChatTemplate()->Render({}, false), "<|im_start|>[]");
  }
}

TEST(BpeExportTest, WhatGgufCannotSayIsRefused) {
  const at::NoGradGuard no_grad;
  const auto refused = [](const json& tokenizer, const std::string& part) {
    testing::TempFolder folder;
    const OpenedModel opened = OpenDecoder(WriteFolder(folder / "source", tokenizer));
    try {
      Export(opened.decoder, {&*opened.tokenizer, opened.files}, {"gguf/f16", "", "model"},
             folder / "model.gguf");
      ADD_FAILURE() << part;
    } catch (const RecipeError& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  json lstrip = Plain("smollm");
  lstrip["added_tokens"][0]["lstrip"] = true;
  refused(lstrip, "white space");
  json normalizer = Plain("smollm");
  normalizer["normalizer"] = {{"type", "Lowercase"}};
  refused(normalizer, "pre-tokenizer");
  refused(Plain("contiguous"), "pre-tokenizer");
  refused(Plain("llama2"), "characters");
}

}  // namespace
}  // namespace tern::transfer
