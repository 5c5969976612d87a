// Templates that loop, grow or nest without end stop at a limit of the render: every operation
// that walks through a value is charged for what it walks through, and every way to build a value
// out of itself is bounded. Limits are small here, so that an operation that is not charged shows
// as a render that succeeds; the Slow suite runs the same with the limits of a real render.
#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/chat_template.h"
#include "text/jinja_ast.h"
#include "text/jinja_eval.h"

namespace tern::text {
namespace {

using jinja::Limits;

std::string Render(const std::string& source, const Limits& limits) {
  return jinja::Render(jinja::Parse(source), jinja::MakeDict({}), limits);
}

// The message of the limit that `source` meets, or "" when it meets none.
std::string LimitOf(const std::string& source, const Limits& limits) {
  try {
    Render(source, limits);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

// l: 4,096 numbers in lists that are shared; m: an equal one that is not the same; d: 512 names;
// t: 64 kB of text, u: an equal one; w: many words.
constexpr const char* kValues =
    "{% set ns = namespace(l=[1], m=[1], t='a', u='a', w='ab ', d=[]) %}"
    "{% for i in range(12) %}{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}"
    "{% for i in range(16) %}{% set ns.t = ns.t ~ ns.t %}{% set ns.u = ns.u ~ ns.u %}{% endfor %}"
    "{% for i in range(13) %}{% set ns.w = ns.w ~ ns.w %}{% endfor %}"
    "{% set l = ns.l %}{% set m = ns.m %}{% set t = ns.t %}{% set u = ns.u %}{% set w = ns.w %}"
    "{% set flat = range(2000) | list %}{% set other = range(2000) | list %}"
    "{% set texts = w.split() %}{% set pairs = [[t, 1], [u, 2]] %}{% set d = dict(a=l, b=t) %}";

constexpr const char* kOperations[] = {
    // Printing
    "l ~ ''",
    "l | string",
    "l | tojson",
    "l | tojson(indent=16)",
    "l | safe",
    "l | trim",
    "d | tojson",
    "d ~ ''",
    "l | join('-')",
    "t | tojson",
    "[t] ~ ''",
    "t ~ u",
    "[l] | map('string') | list",
    // Comparing
    "l == m",
    "l != m",
    "l < m",
    "l >= m",
    "m in [l]",
    "l is eq(m)",
    "l is ne m",
    "l is lt(m)",
    "[l, m] | unique",
    "[l, m] | sort",
    "[l, m] | max",
    "[l, m] | min",
    "[l].index(m)",
    "[l].count(m)",
    "l in flat",
    "t == u",
    "t < u",
    "t in [u]",
    "u in t",
    "t is in(u)",
    "[t, u] | sort(case_sensitive=true)",
    "[t, u] | unique(case_sensitive=true)",
    "[t, u] | max(case_sensitive=true)",
    "pairs | sort(attribute='0')",
    "pairs | map(attribute='0') | sort",
    "{t: 1}[u]",
    "{t: 1}.get(u)",
    "{t: 1, u: 2}",
    "flat == other",
    "{t: 2} | dictsort",
    "{'a': t, 'b': u} | dictsort(by='value')",
    "[t] | select('eq', u)",
    "[[t]] | selectattr(0 | string, 'eq', u)",
    "t is sameas(u)",
    "{1: t} == {1: u}",
    // Items
    "flat | list",
    "flat + other",
    "flat[1:]",
    "flat[::-1]",
    "flat | reverse",
    "flat | sort",
    "flat | sum",
    "flat | select('odd')",
    "flat | reject('odd')",
    "flat | map('abs')",
    "flat | unique",
    "flat | max",
    "flat | first is eq(9)  or flat | map('string') | list",
    "texts | join",
    "texts | map('upper')",
    "''.join(texts)",
    "t | list",
    "t[1:]",
    "t[::-1]",
    "t | reverse",
    "t[5]",
    "t | first",
    "t | last",
    "t | length",
    "t | map('upper')",
    "t.startswith((u, u))",
    "range(2000)",
    "dict({1: flat}) and flat | list",
    // Texts
    "t | upper",
    "t | lower",
    "t | title",
    "t | capitalize",
    "t.strip('a')",
    "t.lstrip('b')",
    "t.split('b')",
    "t.rsplit('b')",
    "w.split()",
    "w.splitlines()",
    "t.replace('a', 'bb')",
    "t.replace('b', 'c')",
    "t.find('b')",
    "t.rfind('b')",
    "t.count('b')",
    "t.endswith(u)",
    "t.isalpha()",
    "t.isdigit()",
    "t.removeprefix('b')",
    "t | escape",
    "t | indent",
    "t * 2",
    "2 * t",
    "t + u",
    "w | wordcount",
    "t is lower",
    "t is upper",
    "t | int",
    "t | float",
    "t | replace('a', '')",
    "t is sequence and t | string",
    "pairs | map(attribute=t)",
    "t in {u: 1}",
};

class TemplateLimitsTest : public testing::TestWithParam<const char*> {};

TEST_P(TemplateLimitsTest, WhatIsRepeatedIsCharged) {
  const Limits limits{60'000, 1'600'000};
  EXPECT_EQ(LimitOf(kValues, limits), "") << "the values alone";
  const std::string operation = GetParam();
  const std::string loop = "{% for i in range(600) %}{% set x = " + operation + " %}{% endfor %}";
  try {
    EXPECT_NE(LimitOf(kValues + loop, limits), "") << operation << " costs nothing";
  } catch (const InputError& error) {
    ADD_FAILURE() << operation << ": " << error.what();
  }
}
INSTANTIATE_TEST_SUITE_P(All, TemplateLimitsTest, testing::ValuesIn(kOperations));

struct Growth {
  const char* begin;
  const char* step;
};
// Each doubles, or nests what it made before.
constexpr Growth kGrowths[] = {
    {"s=[1]", "set ns.s = [ns.s, ns.s]"},
    {"s=[1]", "set ns.s = (ns.s, ns.s)"},
    {"s=[1]", "set ns.s = {1: ns.s, 2: ns.s}"},
    {"s=[1]", "set ns.s = dict(a=ns.s, b=ns.s)"},
    {"s=[1]", "set ns.s = ns.s + ns.s"},
    {"s=[1]", "set ns.s = [ns.s, ns.s] | list"},
    {"s=[1]", "set ns.s = [ns.s, ns.s] | reverse"},
    {"s=[1]", "set ns.s = [ns.s] | map('list') | list"},
    {"s=[1]", "set ns.s = {1: ns.s}.items()"},
    {"s=[1]", "set ns.s = {1: ns.s}.values()"},
    {"s=[1]", "set ns.s = [ns.s.index]"},
    {"s=[1]", "set ns.s = [[ns.s], [ns.s]]"},
    {"s='ab'", "set ns.s = ns.s ~ ns.s"},
    {"s='ab'", "set ns.s = ns.s + ns.s"},
    {"s='ab'", "set ns.s = ns.s * 2"},
    {"s='ab'", "set ns.s = ns.s.join([ns.s, ns.s])"},
    {"s='ab'", "set ns.s = [ns.s, ns.s] | join"},
    {"s='ab'", "set ns.s = ns.s.replace('a', ns.s)"},
    {"s='ab'", "set ns.s = ns.s | replace('', ns.s)"},
    {"s='ab'", "set ns.s = [ns.s, ns.s] | tojson"},
    {"s='\"'", "set ns.s = ns.s | tojson"},
    {"s='&'", "set ns.s = (ns.s | escape) ~ ns.s"},
    {"s='a\nb'", "set ns.s = ns.s | indent(ns.s)"},
    {"s='ab'", "set ns.s = [ns.s, ns.s] | string"},
    {"s='ab'", "set ns.s %}{{ ns.s }}{{ ns.s }}{% endset"},
    {"s='ab'", "set ns.s = twice(ns.s)"},
};

class TemplateGrowthTest : public testing::TestWithParam<Growth> {};

TEST_P(TemplateGrowthTest, EndsWithALimit) {
  const std::string source = std::string("{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}") +
                             "{% set ns = namespace(" + GetParam().begin + ") %}" +
                             "{% for i in range(100) %}{% " + GetParam().step + " %}{% endfor %}";
  EXPECT_NE(LimitOf(source, {200'000, 4'000'000}), "") << source;
}
INSTANTIATE_TEST_SUITE_P(All, TemplateGrowthTest, testing::ValuesIn(kGrowths));

TEST(TemplateLimits, NestingThroughLoopsAndMethodsIsLimited) {
  // Each value holds the one before, and would be destroyed by recursion.
  const Limits limits;
  for (const char* step :
       {"{% for x in [ns.s] %}{% set ns.s = loop %}{% endfor %}", "{% set ns.s = [ns.s].count %}",
        "{% set ns.s = {1: ns.s}.get %}", "{% set ns.s = [ns.s] %}"}) {
    const std::string source = std::string("{% set ns = namespace(s=[]) %}") +
                               "{% for i in range(200000) %}" + step + "{% endfor %}";
    EXPECT_NE(LimitOf(source, limits).find("nested deeper"), std::string::npos)
        << step << LimitOf(source, limits);
  }
}

TEST(TemplateLimits, FiltersThatCallFiltersAreLimited) {
  std::string names;
  for (int i = 0; i < 5000; ++i) names += "'map', ";
  EXPECT_NE(LimitOf("{{ 'a' | map(" + names + "'upper') | list }}", {}).find("filters nested"),
            std::string::npos);
  EXPECT_EQ(Render("{{ [[['a']]] | map('map', 'map', 'upper') | list }}", {}), "[[['A']]]");
}

TEST(TemplateLimits, RecursionEndsWithALimit) {
  EXPECT_NE(LimitOf("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", {}).find("deeper"),
            std::string::npos);
  EXPECT_NE(LimitOf("{% macro f(x) %}{{ f(x + 1) ~ f(x + 1) }}{% endmacro %}{{ f(1) }}", {}), "");
}

TEST(TemplateLimits, CountsBeyondAnyNumberAreLimits) {
  for (const char* source :
       {"{{ 'a' * 9223372036854775807 }}", "{% for i in range(9223372036854775807) %}{% endfor %}",
        "{{ [1] | tojson(indent=17) }}", "{{ 'a' | indent(1001) }}",
        "{% set x = 'a' * 4000000 %}{{ x * 9223372036854775807 }}"}) {
    EXPECT_THROW(Render(source, {}), Error) << source;
  }
}

TEST(TemplateLimits, SearchingIsLinear) {
  // Half a million places, each of which a naive search compares with a quarter of a million bytes.
  const std::string values =
      "{% set t = 'a' * 500000 %}{% set p = 'a' * 250000 ~ 'b' %}{% set q = 'b' ~ 'a' * 250000 %}";
  EXPECT_EQ(Render(values + "{{ p in t }} {{ t.find(p) }} {{ t.rfind(q) }} {{ t.count(p) }} "
                            "{{ t.split(p) | length }} {{ t.rsplit(q) | length }} "
                            "{{ t.replace(p, '') | length }}",
                   {}),
            "False -1 -1 0 1 1 500000");
}

TEST(TemplateLimits, NamesAreShort) {
  EXPECT_THROW(jinja::Parse("{{ " + std::string(256, 'x') + " }}"), FormatError);
  EXPECT_EQ(Render("{{ " + std::string(255, 'x') + " is defined }}", {}), "False");
}

TEST(TemplateLimits, MessagesOfTemplatesAreCut) {
  const std::string source = "{{ raise_exception('x' * 100000) }}";
  try {
    Render(source, {});
    FAIL();
  } catch (const InputError& error) {
    EXPECT_LT(std::string_view(error.what()).size(), 400u);
  }
}

TEST(TemplateLimits, AreFormatErrorsOfTheTemplate) {
  const ChatTemplate grows(
      "{% set ns = namespace(s=[1]) %}\n{% for i in range(60) %}\n{% set ns.s = [ns.s, ns.s] %}{% "
      "endfor %}{{ ns.s }}",
      "", "");
  try {
    grows.Render({{"user", "hi"}}, true);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("chat template, line 3"), std::string::npos)
        << error.what();
  }
  const ChatTemplate plain("{{ messages | length }}", "", "");
  const std::string huge(size_t{65} << 20, 'x');
  EXPECT_THROW(plain.Render({{"user", huge}}, true), FormatError);
  EXPECT_EQ(plain.Render({{"user", std::string(1 << 20, 'x')}}, true), "1");
}

// By the limits of a real render: processor seconds of each are in the output.
TEST(TemplateLimitsSlow, EveryOperationEnds) {
  for (const char* operation : kOperations) {
    const std::string source =
        std::string(kValues) +
        "{% for i in range(2000) %}{% for j in range(2000) %}{% set x = " + operation +
        " %}{% endfor %}{% endfor %}";
    const std::clock_t begin = std::clock();
    EXPECT_NE(LimitOf(source, {}), "") << operation;
    const double took = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    std::printf("%6.3f s  %s\n", took, operation);
  }
}

}  // namespace
}  // namespace tern::text
