// Chat templates give the text that transformers gives (golden/chat_templates.json, written by
// tests/peers/check_chat_templates.py --golden with the versions it names), refuse what it refuses,
// and whatever a template or its variables hold ends with a text or a typed error.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/utf8.h"
#include "text/jinja_ast.h"
#include "text/jinja_eval.h"

namespace tern::text {
namespace {

using json = nlohmann::ordered_json;  // Templates print objects as they came

const json& Golden() {
  static const json golden =
      json::parse(ReadFile(TERN_SOURCE_DIR "/tests/text/golden/chat_templates.json"));
  return golden;
}

std::string TemplateText(const std::string& name) {
  return ReadFile(TERN_SOURCE_DIR "/tests/text/templates/" + name);
}

// The text, or null where it is refused.
json Rendered(const std::string& source, const json& variables) {
  try {
    return ChatTemplate(source, "<s>", "</s>").RenderJson(variables.dump());
  } catch (const InputError&) {
  } catch (const FormatError&) {
  }
  return nullptr;
}

TEST(ChatTemplateTest, RealStylesGiveTransformersTexts) {
  std::set<std::string> names;
  for (const json& item : Golden()["cases"]) {
    const std::string name = item["template"], conversation = item["conversation"];
    names.insert(name);
    EXPECT_EQ(Rendered(TemplateText(name), Golden()["conversations"][conversation]), item["text"])
        << name << " with " << conversation;
  }
  EXPECT_GE(names.size(), 10u);
}

TEST(ChatTemplateTest, EachFeatureIsJinjas) {
  const json& variables = Golden()["conversations"]["one"];
  for (const json& item : Golden()["snippets"])
    EXPECT_EQ(Rendered(item["source"], variables), item["text"]) << item["source"];
  EXPECT_GE(Golden()["snippets"].size(), 100u);
}

TEST(ChatTemplateTest, MessagesAndJsonAreTheSame) {
  const ChatTemplate chat(TemplateText("chatml_style.jinja"), "<s>", "</s>");
  EXPECT_EQ(chat.Render({{"user", "a\"\n\xC3\xA9"}, {"assistant", "b"}}, true),
            chat.RenderJson(R"({"messages": [{"role": "user", "content": "a\"\né"},)"
                            R"({"role": "assistant", "content": "b"}],)"
                            R"("add_generation_prompt": true})"));
  EXPECT_EQ(chat.source(), TemplateText("chatml_style.jinja"));
}

TEST(ChatTemplateTest, VariablesOfTheCallerWin) {
  const ChatTemplate chat("{{ bos_token }}{{ eos_token }}{{ tools }}{{ x }}", "<s>", "</s>");
  EXPECT_EQ(chat.RenderJson(R"({"messages": []})"), "<s></s>None");
  EXPECT_EQ(chat.RenderJson(R"({"messages": [], "bos_token": "B", "x": 1})"), "B</s>None1");
}

void ExpectRefused(const std::string& source, const std::string& part) {
  try {
    ChatTemplate(source, "", "");
    ADD_FAILURE() << source << " was read";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
        << source.substr(0, 100) << ": " << error.what();
  }
}

TEST(ChatTemplateTest, SyntaxErrorsSayWhere) {
  ExpectRefused("a\n  {% if x %}\n", "line 2");
  ExpectRefused("{{ x | nofilter }}", "nofilter");
  ExpectRefused("{{ x is notest }}", "notest");
  ExpectRefused("\n\n{{ x.y( }}", "line 3");
  ExpectRefused("{% include 'x' %}", "include");
  ExpectRefused("{% extends 'x' %}", "extends");
  ExpectRefused("{{ f(*x) }}", "not in the subset");
  ExpectRefused("{{ cycler(1) }}", "cycler");
  ExpectRefused(std::string((1 << 20) + 1, 'x'), "bytes");
  ExpectRefused("\xFF", "UTF-8");
}

TEST(ChatTemplateTest, NestingOfSourcesIsLimited) {
  const auto repeat = [](const std::string& part) {
    std::string out;
    for (int i = 0; i < 5000; ++i) out += part;
    return out;
  };
  for (const std::string& source :
       {"{{ " + repeat("(") + "1" + repeat(")") + " }}", "{{ " + repeat("[") + repeat("]") + " }}",
        "{{ " + repeat("-") + "1 }}", "{{ " + repeat("not ") + "1 }}",
        "{{ 1" + repeat(" if 1 else 2") + " }}", "{{ 'a'" + repeat("|upper") + " }}",
        "{{ a" + repeat(".a") + " }}", "{{ 1" + repeat("+1") + " }}",
        repeat("{% if 1 %}") + repeat("{% endif %}")})
    ExpectRefused(source, "levels");
}

TEST(ChatTemplateTest, WhatMessagesDoWrongIsAnInputErrorWithTheLine) {
  const ChatTemplate refuses("a\n{{ raise_exception('roles must alternate') }}", "", "");
  try {
    refuses.Render({}, false);
    FAIL();
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("line 2"), std::string::npos) << text;
    EXPECT_NE(text.find("roles must alternate"), std::string::npos) << text;
  }
  EXPECT_THROW(refuses.Render({{"user", "\xFF"}}, false), InputError);
  const ChatTemplate plain("{{ messages[0].role }}", "", "");
  for (const char* bad :
       {"", "[]", "{}", R"({"messages": 1})", R"({"messages": [], "messages": []})",
        R"({"messages": [)", "{\"messages\": [\"\xFF\"]}"})
    EXPECT_THROW(plain.RenderJson(bad), FormatError) << bad;
  std::string deep;
  for (int i = 0; i < 60; ++i) deep += "[";
  EXPECT_THROW(plain.RenderJson(R"({"messages": )" + deep + std::string(60, ']') + "}"),
               FormatError);
}

// A template that a few edits made of a real one. Small limits: fuzzing wants many, not long, ones.
void RenderAnything(const std::string& source, const jinja::Value& globals) {
  if (FirstInvalidUtf8(source)) return;
  try {
    const std::string text = jinja::Render(jinja::Parse(source), globals, {20'000, 1 << 20});
    EXPECT_FALSE(FirstInvalidUtf8(text)) << source;
  } catch (const InputError&) {  // Refused: one of the two endings that are wanted
  } catch (const FormatError&) {
  }
}

std::vector<std::string> Sources() {
  std::vector<std::string> sources;
  for (const json& item : Golden()["cases"])
    if (item["conversation"] == "one") sources.push_back(TemplateText(item["template"]));
  for (const json& item : Golden()["snippets"]) sources.push_back(item["source"]);
  return sources;
}

constexpr const char* kParts[] = {"{% for x in messages %}",
                                  "{% endfor %}",
                                  "{{ ",
                                  " }}",
                                  "{%- if ",
                                  " %}",
                                  "{% endif %}",
                                  "[::-1]",
                                  "|tojson",
                                  "|sort",
                                  " is defined",
                                  "not ",
                                  "{% set ns.x = ",
                                  "loop.",
                                  "(",
                                  ")",
                                  "'",
                                  "\\",
                                  "9223372036854775807",
                                  "-1",
                                  " * ",
                                  " ** ",
                                  " % ",
                                  ".items()",
                                  "|map('list')",
                                  "|join",
                                  ", ",
                                  "{#",
                                  "#}",
                                  "\xC3\xA9",
                                  "{% macro m(x) %}",
                                  "m(m)",
                                  "~",
                                  "namespace(",
                                  ".split('')",
                                  "\n"};

TEST(ChatTemplateFuzz, MutatedTemplatesEnd) {
  const std::vector<std::string> sources = Sources();
  std::vector<jinja::Value> globals;
  for (const auto& [name, variables] : Golden()["conversations"].items())
    globals.push_back(jinja::ParseJson(variables.dump()));
  RandomStream random(5, "templates");
  const auto below = [&](size_t n) { return static_cast<size_t>(random.NextU64() % n); };
  for (int round = 0; round < 4000; ++round) {
    std::string source = sources[below(sources.size())];
    for (size_t edits = 1 + below(4); edits > 0; --edits) {
      const size_t at = below(source.size() + 1), span = below(12);
      const std::string& other = sources[below(sources.size())];
      const size_t from = below(other.size());
      switch (below(4)) {
        case 0:
          source.erase(at, span);
          break;
        case 1:
          source.insert(at, kParts[below(std::size(kParts))]);
          break;
        case 2:
          source.insert(at, other.substr(from, 4 * span));
          break;
        default:
          source.resize(at);
      }
    }
    RenderAnything(source, globals[below(globals.size())]);
  }
}

TEST(ChatTemplateFuzz, MutatedVariablesEnd) {
  RandomStream random(6, "variables");
  const ChatTemplate chat(TemplateText("qwen3_style.jinja"), "<s>", "</s>");
  const std::string whole = Golden()["conversations"]["calls"].dump();
  for (int round = 0; round < 3000; ++round) {
    std::string text = whole;
    for (int edits = 0; edits < 3; ++edits) {
      const size_t at = random.NextU64() % text.size();
      constexpr std::string_view kBytes = "{}[]\",:0-e\\nt \xFF";
      if (random.NextU64() % 2 == 0) {
        text[at] = kBytes[random.NextU64() % kBytes.size()];
      } else {
        text.erase(at, 1 + random.NextU64() % 20);
        if (text.empty()) text = "{";
      }
    }
    try {
      chat.RenderJson(text);
    } catch (const InputError&) {
    } catch (const FormatError&) {
    }
  }
}

}  // namespace
}  // namespace tern::text
