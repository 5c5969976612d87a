// The strict reader: every kind of error with its exact place, parts, overrides, and where values
// come from.
#include "recipe/load.h"

#include <gtest/gtest.h>

#include "recipe/schema.h"
#include "tests/recipe/recipe_file.h"

namespace tern::recipe {
namespace {

const TrainStage& Train(const LoadedRecipe& loaded) {
  return std::get<TrainStage>(loaded.recipe.stages.front());
}

// The error of the recipe must begin with `place` and contain each of `words`.
void ExpectError(const std::string& yaml, const std::string& place,
                 std::initializer_list<const char*> words) {
  const std::string message = RecipeFile(yaml).Error();
  EXPECT_EQ(message.substr(0, place.size()), place) << message;
  for (const char* word : words) {
    EXPECT_NE(message.find(word), std::string::npos) << "no \"" << word << "\" in: " << message;
  }
}

TEST(LoadTest, GoodRecipeHasValuesAndDefaults) {
  const LoadedRecipe loaded = RecipeFile(kGoodRecipe).Load();
  const Recipe& r = loaded.recipe;
  EXPECT_EQ(r.name, "small");
  EXPECT_EQ(r.seed, 42);
  EXPECT_EQ(r.model.hidden_size, 256);
  EXPECT_EQ(r.model.vocab_size, 4096);  // That of the tokenizer
  EXPECT_EQ(r.data.files, std::vector<std::string>{"my/*.txt"});
  ASSERT_EQ(r.stages.size(), 4u);
  EXPECT_EQ(Train(loaded).steps, 100);
  EXPECT_EQ(Train(loaded).sequence_length, 256);
  EXPECT_EQ(std::get<GenerateStage>(r.stages[3]).prompt, "Once");
  EXPECT_EQ(IdOf(r.stages[3]), "generate");
}

TEST(LoadTest, OriginsNameFileLineColumnOrDefault) {
  const LoadedRecipe loaded = RecipeFile(kGoodRecipe).Load({"train.schedule.peak_lr=0.01"});
  EXPECT_EQ(loaded.origins.at("name"), loaded.path + ":1:1");
  EXPECT_EQ(loaded.origins.at("model.num_layers"), loaded.path + ":2:51");
  EXPECT_EQ(loaded.origins.at("train.steps"), loaded.path + ":6:13");
  EXPECT_EQ(loaded.origins.at("train.schedule.peak_lr"), "command line");
  EXPECT_EQ(loaded.origins.at("train.precision"), "default");
  EXPECT_EQ(loaded.origins.at("seed"), "default");
}

TEST(LoadErrorTest, UnknownKeyNamesTheNearest) {
  ExpectError(GoodRecipeWith("steps: 100", "setps: 100"), "recipe.yaml:6:13: train.setps: ",
              {"unknown key", "did you mean steps?", "Keys here: "});
  ExpectError(std::string(kGoodRecipe) + "seeed: 3\n",
              "recipe.yaml:10:1: seeed: ", {"did you mean seed?"});
}

TEST(LoadErrorTest, MisplacedKeyNamesItsHome) {
  ExpectError(std::string(kGoodRecipe) + "peak_lr: 3\n",
              "recipe.yaml:10:1: peak_lr: ", {"unknown key", "belongs under train.schedule"});
  ExpectError(GoodRecipeWith("steps: 100", "seed: 100"),
              "recipe.yaml:6:13: train.seed: ", {"belongs under the recipe itself"});
  ExpectError(GoodRecipeWith("steps: 100", "optimizer: {peak_lr: 1}"),
              "recipe.yaml:6:25: train.optimizer.peak_lr: ", {"belongs under train.schedule"});
}

TEST(LoadErrorTest, IllTypedValues) {
  for (const char* value : {"many", "1.5", "1e3", "\"100\"", "0x10", "+-5", "100 steps", "true"}) {
    ExpectError(GoodRecipeWith("steps: 100", std::string("steps: ") + value),
                "recipe.yaml:6:13: train.steps: found ", {"want a whole number from 1 to", value});
  }
  ExpectError(GoodRecipeWith("steps: 100", "steps: [1]"),
              "recipe.yaml:6:13: train.steps: ", {"found a list", "want a whole number"});
  ExpectError(GoodRecipeWith("steps: 100", "steps: {a: 1}"),
              "recipe.yaml:6:13: train.steps: ", {"found a map"});
  for (const char* value : {"big", "nan", "inf", "1_5", "\"0.1\""}) {
    ExpectError(GoodRecipeWith("steps: 100", std::string("schedule: {peak_lr: ") + value + "}"),
                "recipe.yaml:6:24: train.schedule.peak_lr: found ",
                {"want a number from 1e-10 to 100"});
  }
  for (const char* value : {"yes", "1", "True", "\"true\""}) {
    ExpectError(GoodRecipeWith("steps: 100", std::string("keep_best: ") + value),
                "recipe.yaml:6:13: train.keep_best: found ", {"want true or false"});
  }
  ExpectError(GoodRecipeWith("files: [\"my/*.txt\"]", "files: my.txt"),
              "recipe.yaml:4:3: data.files: ", {"want a list"});
  ExpectError(GoodRecipeWith("[\"my/*.txt\"]", "[{a: b}]"),
              "recipe.yaml:4:11: data.files: ", {"found a map", "want text"});
  ExpectError(GoodRecipeWith("name: small", "name: [a]"), "recipe.yaml:1:1: name: ", {"a list"});
  ExpectError(GoodRecipeWith("{steps: 100}", "3"),
              "recipe.yaml:6:5: train: ", {"found \"3\"", "want a map"});
  ExpectError(GoodRecipeWith("perplexity: {split: validation}", "perplexity: validation"),
              "recipe.yaml:7:12: eval.perplexity: ", {"want a map"});
}

TEST(LoadErrorTest, OutOfRange) {
  ExpectError(GoodRecipeWith("steps: 100", "steps: 0"),
              "recipe.yaml:6:13: train.steps: found \"0\"",
              {"from 1 to 1000000000 optimizer steps"});
  ExpectError(GoodRecipeWith("steps: 100", "steps: 99999999999999999999"),
              "recipe.yaml:6:13: train.steps: ", {"from 1 to"});
  ExpectError(GoodRecipeWith("steps: 100", "optimizer: {beta1: 1}"),
              "recipe.yaml:6:25: train.optimizer.beta1: ", {"from 0 to 0.999999"});
  ExpectError(GoodRecipeWith("tokens: 8", "top_p: -0.5"),
              "recipe.yaml:9:32: generate.top_p: ", {"from 0 to 1"});
}

TEST(LoadErrorTest, WordsOutsideOfTheChoices) {
  ExpectError(GoodRecipeWith("steps: 100", "precision: bf61"),
              "recipe.yaml:6:13: train.precision: found \"bf61\"",
              {"want fp32 | bf16 | fp16", "did you mean bf16?"});
  ExpectError(GoodRecipeWith("steps: 100", "device: gpu"),
              "recipe.yaml:6:13: train.device: ", {"auto | cpu | cuda"});
  ExpectError(GoodRecipeWith("split: validation", "split: test"),
              "recipe.yaml:7:25: eval.perplexity.split: ", {"validation | train"});
  ExpectError(GoodRecipeWith("steps: 100", "schedule: {kind: TwoStage}"),
              "recipe.yaml:6:24: train.schedule.kind: ", {"two_stage"});
}

std::string WithSources(const std::string& sources) {
  return GoodRecipeWith("files: [\"my/*.txt\"]",
                        "sources: " + sources + "\n  tokenizer: {file: t.model}");
}

TEST(LoadTest, SourcesKeepTheirNamesOrderAndOrigins) {
  const std::string yaml = WithSources(
      "{web: {files: [a.jsonl], weight: 0.8}, code: {files: [\"b/*.parquet\"], text_field: "
      "content, "
      "format: parquet, split: train}}");
  const LoadedRecipe loaded = RecipeFile(yaml).Load({"data.sources.web.weight=0.5"});
  const std::vector<SourceConfig>& sources = loaded.recipe.data.sources;
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0].name, "web");
  EXPECT_EQ(sources[0].weight, 0.5);
  EXPECT_EQ(sources[1].text_field, "content");
  EXPECT_EQ(sources[1].format, SourceFormat::kParquet);
  EXPECT_EQ(sources[1].split, SourceSplit::kTrain);
  EXPECT_EQ(loaded.origins.at("data.sources.web.weight"), "command line");
  EXPECT_NE(loaded.origins.at("data.sources.code.split").find("recipe.yaml:4:"), std::string::npos);
  // The resolved recipe is the same one.
  const LoadedRecipe again = RecipeFile(ResolvedYaml(loaded)).Load();
  EXPECT_EQ(again.recipe.data.sources[0].weight, 0.5);
  EXPECT_EQ(again.recipe.data.sources[1].files, sources[1].files);
}

TEST(LoadErrorTest, SourcesAreStrict) {
  ExpectError(WithSources("[a.jsonl]"), "recipe.yaml:4:3: data.sources: found a list",
              {"want a map of names"});
  ExpectError(WithSources("{\"a b\": {files: [x]}}"),
              "recipe.yaml:4:13: data.sources: found the name", {"a b", "letters, digits"});
  ExpectError(WithSources("{web: {weight: 1}}"),
              "recipe.yaml:4:13: data.sources.web.files: missing", {"want a list"});
  ExpectError(WithSources("{web: {files: [x], wieght: 1}}"),
              "recipe.yaml:4:31: data.sources.web.wieght: unknown key", {"did you mean weight?"});
  ExpectError(WithSources("{web: {files: [x], weight: 0}}"),
              "recipe.yaml:4:31: data.sources.web.weight: found \"0\"", {"from 1e-09 to"});
  ExpectError(WithSources("{web: {files: [x], format: jsonlines}}"),
              "recipe.yaml:4:31: data.sources.web.format: found \"jsonlines\"", {"jsonl"});
}

TEST(LoadErrorTest, MissingRequiredKeys) {
  ExpectError(GoodRecipeWith("name: small", "seed: 1"), "recipe.yaml:1:1: name: missing", {});
  ExpectError(GoodRecipeWith("num_layers: 2, ", ""), "recipe.yaml:2:1: model.num_layers: missing",
              {"want a whole number from 1 to 10000"});
  ExpectError("name: a\nstages: [{train: {}}]\n", "recipe.yaml:1:1: model.hidden_size: missing",
              {});
  ExpectError(GoodRecipeWith("  files: [\"my/*.txt\"]", "  packing: stream"),
              "recipe.yaml:3:1: data.files: missing", {"want a list"});
  ExpectError(GoodRecipeWith("formats: [gguf/tq2_0]", "embedding: f16"),
              "recipe.yaml:8:5: export.formats: missing", {"want a list"});
  std::string no_stages = kGoodRecipe;
  no_stages.erase(no_stages.find("stages:"));
  ExpectError(no_stages, "recipe.yaml:1:1: stages: ", {"at least one stage"});
  ExpectError(no_stages + "stages: []\n", "recipe.yaml:5:1: stages: ", {"at least one stage"});
  ExpectError(no_stages + "stages: {train: {}}\n", "recipe.yaml:5:1: stages: ", {"want a list"});
}

TEST(LoadErrorTest, DuplicateKeysNullsTagsAndSecondDocuments) {
  ExpectError(GoodRecipeWith("steps: 100", "steps: 100, steps: 200"),
              "recipe.yaml:6:25: ", {"the key steps for the second time"});
  ExpectError(std::string(kGoodRecipe) + "name: again\n",
              "recipe.yaml:10:1: ", {"the key name for the second time"});
  ExpectError(GoodRecipeWith("{steps: 100}", ""),
              "recipe.yaml:6:5: ", {"found no value for the key train", "{}"});
  ExpectError(GoodRecipeWith("name: small", "name: ~"),
              "recipe.yaml:1:1: ", {"no value for the key name"});
  ExpectError(GoodRecipeWith("steps: 100", "steps: !!int 100"), "recipe.yaml:6:", {"the tag"});
  ExpectError(std::string(kGoodRecipe) + "---\nname: b\n",
              "recipe.yaml: ", {"more after the first YAML document"});
  ExpectError("", "recipe.yaml: ", {"found nothing"});
  ExpectError("{name: a} b", "recipe.yaml: ", {"more after the first"});
  ExpectError(",", "recipe.yaml: ", {});  // yaml-cpp 0.7's LoadAll never ends on this.
  ExpectError("[a, b]", "recipe.yaml: ", {"map of keys"});
  ExpectError("{[a]: b}", "recipe.yaml:1:", {"a key that is not plain text"});
}

TEST(LoadErrorTest, BrokenYamlHasThePlaceOfTheParser) {
  ExpectError("name: a\nmodel: {hidden_size: 3\n", "recipe.yaml:", {"not valid YAML"});
  ExpectError("name: a\n\tmodel: b\n", "recipe.yaml:2:", {"not valid YAML"});
  ExpectError("name: *nowhere\n", "recipe.yaml:1:", {"not valid YAML"});
}

TEST(LoadErrorTest, StagesOfTheWrongKindOrId) {
  ExpectError(GoodRecipeWith("- train", "- trian"),
              "recipe.yaml:6:5: stages: ", {"unknown stage trian", "did you mean train?"});
  for (const char* kind : {"import", "prune"}) {
    ExpectError(GoodRecipeWith("- train", std::string("- ") + kind),
                "recipe.yaml:6:5: stages: ", {kind, "not in this version"});
  }
  ExpectError(GoodRecipeWith("- train: {steps: 100}", "- train"),
              "recipe.yaml:6:5: stages: ", {"want one kind a list item"});
  ExpectError(GoodRecipeWith("- train: {steps: 100}", "- {train: {}, eval: {}}"),
              "recipe.yaml:6:5: stages: ", {"want one kind a list item"});
  ExpectError(std::string(kGoodRecipe) + "  - train: {}\n",
              "recipe.yaml:10:5: stages: ", {"second stage with the id train"});
  ExpectError(GoodRecipeWith("steps: 100", "id: a/b"),
              "recipe.yaml:6:5: stages: ", {"\"a/b\"", "letters"});
  ExpectError(GoodRecipeWith("steps: 100", "id: model"),
              "recipe.yaml:6:5: stages: ", {"a key of the recipe"});
}

TEST(LoadErrorTest, ParallelIsStrict) {
  ExpectError(std::string(kGoodRecipe) + "parallel: {data: 4}\n",
              "recipe.yaml:10:12: parallel.data", {"auto"});
  ExpectError(std::string(kGoodRecipe) + "parallel: {shard: zero4}\n",
              "recipe.yaml:10:12: parallel.shard", {"zero3"});
  ExpectError(std::string(kGoodRecipe) + "parallel: {shards: zero1}\n",
              "recipe.yaml:10:12: parallel.shards", {"unknown key", "shard,"});
  ExpectError(std::string(kGoodRecipe) + "parallel: {sequence: 2}\n",
              "recipe.yaml:10:12: parallel.sequence",
              {"unknown key", "one sequence is not split", "parallel.tensor"});
  ExpectError(std::string(kGoodRecipe) + "parallel: {pipeline: 2}\n",
              "recipe.yaml:10:12: parallel.pipeline", {"layers are not spread", "zero3"});
  ExpectError(std::string(kGoodRecipe) + "parallel: {shard_size: -1}\n",
              "recipe.yaml:10:12: parallel.shard_size", {"0"});
  ExpectError(std::string(kGoodRecipe) + "parallel: 3\n", "recipe.yaml:10:1: parallel: ", {"map"});
  EXPECT_EQ(RecipeFile(std::string(kGoodRecipe) + "parallel: {data: auto}\n").Error(), "");
}

TEST(LoadErrorTest, LimitsOnSizeDepthAndAliases) {
  ExpectError(std::string(kGoodRecipe) + "#" + std::string(1 << 20, 'x') + "\n", "recipe.yaml has ",
              {"1048576"});
  ExpectError("a: " + std::string(70, '[') + std::string(70, ']'),
              "recipe.yaml:1:", {"deeper than 64"});
  ExpectError("a: " + std::string(60000, '['), "recipe.yaml:1:", {});
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = StrCat("*a", i - 1);
    bomb += StrCat("a", i, ": &a", i, " [", before);
    for (int j = 1; j < 10; ++j) bomb += ", " + before;
    bomb += "]\n";
  }
  ExpectError(bomb, "recipe.yaml:", {"more than 100000 values"});
}

TEST(LoadErrorTest, UnreadableFileIsAnInputError) {
  EXPECT_THROW(LoadRecipe("no/such/recipe.yaml", {}), InputError);
}

TEST(PartsTest, LocalKeysWinOverPartsAndLaterPartsOverEarlier) {
  RecipeFile file(GoodRecipeWith("{steps: 100}", "{use: [slow, more/fast], steps: 100}"));
  file.AddPart("slow",
               "steps: 7\ntokens_per_step: 512\nschedule: {peak_lr: 0.5, final_lr: 0.25}\n");
  file.AddPart("more/fast", "schedule: {peak_lr: 0.75}\n");
  const LoadedRecipe loaded = file.Load();
  EXPECT_EQ(Train(loaded).steps, 100);
  EXPECT_EQ(Train(loaded).tokens_per_step, 512);
  EXPECT_EQ(Train(loaded).schedule.peak_lr, 0.75);
  EXPECT_EQ(Train(loaded).schedule.final_lr, 0.25);
  EXPECT_NE(loaded.origins.at("train.tokens_per_step").find("configs/slow.yaml:2:1"),
            std::string::npos);
}

TEST(PartsTest, MissingEscapingCyclicAndIllTypedPartsAreRefused) {
  const auto error = [](const std::string& use) {
    RecipeFile file(GoodRecipeWith("{steps: 100}", "{use: " + use + "}"));
    file.AddPart("a", "use: b\n");
    file.AddPart("b", "schedule: {use: a}\n");
    file.AddPart("list", "[1, 2]\n");
    file.AddPart("typo", "setps: 3\n");
    return file.Error();
  };
  EXPECT_EQ(error("none").substr(0, 44), "recipe.yaml:6:13: use: found no part none; l");
  EXPECT_NE(error("../recipe").find("want the name of a part in configs/"), std::string::npos);
  EXPECT_NE(error("/etc/passwd").find("want the name of a part in configs/"), std::string::npos);
  EXPECT_NE(error("a").find("leads back to itself"), std::string::npos);
  EXPECT_NE(error("list").find("a part must be a map"), std::string::npos);
  EXPECT_NE(error("{a: b}").find("recipe.yaml:6:13: use: wants the name"), std::string::npos);
  EXPECT_EQ(error("typo").substr(0, 35), "configs/typo.yaml:1:1: train.setps:");
}

TEST(OverrideTest, ReachesEveryPartOfTheRecipe) {
  const LoadedRecipe loaded =
      RecipeFile(kGoodRecipe)
          .Load({"train.steps=7", "train.steps=8", "data.files=[a.txt, \"b c.txt\"]", "name=mine",
                 "model.hidden_size=512", "train.schedule={kind: cosine}",
                 "generate.prompt=a=b, c?", "eval={perplexity: {tokens: 9}}"});
  EXPECT_EQ(Train(loaded).steps, 8);
  EXPECT_EQ(loaded.recipe.data.files, (std::vector<std::string>{"a.txt", "b c.txt"}));
  EXPECT_EQ(loaded.recipe.name, "mine");
  EXPECT_EQ(loaded.recipe.model.hidden_size, 512);
  EXPECT_EQ(Train(loaded).schedule.kind, ScheduleKind::kCosine);
  EXPECT_EQ(std::get<EvalStage>(loaded.recipe.stages[1]).tokens, 9);
  EXPECT_EQ(std::get<GenerateStage>(loaded.recipe.stages[3]).prompt, "a=b, c?");
}

TEST(OverrideTest, StagesAreNamedById) {
  const RecipeFile file(std::string(kGoodRecipe) + "  - train: {id: longer, steps: 5}\n");
  const LoadedRecipe loaded = file.Load({"longer.steps=6"});
  EXPECT_EQ(Train(loaded).steps, 100);
  EXPECT_EQ(std::get<TrainStage>(loaded.recipe.stages[4]).steps, 6);
}

// A part named on the command line replaces the recipe's part; keys of the recipe itself stay.
TEST(OverrideTest, CanExchangeAPart) {
  RecipeFile file(GoodRecipeWith("{steps: 100}", "{use: a, steps: 100}"));
  file.AddPart("a", "tokens_per_step: 512\nsteps: 1\n");
  file.AddPart("b", "tokens_per_step: 1024\nsteps: 2\n");
  for (const char* override : {"train.use=b", "train={use: b}"}) {
    const LoadedRecipe loaded = file.Load({override});
    EXPECT_EQ(Train(loaded).tokens_per_step, 1024) << override;
    EXPECT_EQ(Train(loaded).steps, 100) << override;
  }
}

TEST(OverrideTest, ErrorsNameTheCommandLine) {
  const RecipeFile file(kGoodRecipe);
  const auto expect = [&](const char* override, const std::string& begin, const char* word) {
    const std::string message = file.Error({override});
    EXPECT_EQ(message.substr(0, begin.size()), begin) << message;
    EXPECT_NE(message.find(word), std::string::npos) << message;
  };
  expect("train.steps", "command line: found train.steps", "want key=value");
  expect("=3", "command line: found =3", "want key=value");
  expect("train.setps=3", "command line: train.setps: unknown key", "did you mean steps?");
  expect("trian.steps=3", "command line: trian.steps: found no key or stage trian",
         "did you mean train?");
  expect("train.steps=x", "command line: train.steps: found \"x\"", "want a whole number");
  expect("name=", "command line: found name= without a value", "");
  expect("train.steps=~", "command line: found an empty value", "");
  expect("train.steps=[1", "command line: not valid YAML", "");
  expect("model=3", "command line: model: found \"3\"", "want a map");
  expect("train.steps.x=3", "command line: train.steps: found a map", "");
  expect("", "command line: found ", "want key=value");
}

}  // namespace
}  // namespace tern::recipe
