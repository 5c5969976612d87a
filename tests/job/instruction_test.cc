// Fine-tuning on conversations through a whole recipe: prepared by the chat template, packed in
// whole documents, trained on the answers alone, and resumed to the same bits.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/job/dense_run.h"

namespace tern::job {
namespace {

constexpr const char* kChat = R"(name: small
model: {from: MODEL}
data: {sources: {chats: {files: [TEXTS/chats.jsonl], record: messages}}, validation_fraction: 0.2,
       chat_template: TEXTS/chat.jinja, packing: samples}
stages:
  - train: {steps: 8, tokens_per_step: 128, sequence_length: 32, precision: fp32, eval_tokens: 0,
            eval_every: 0, checkpoint_every: 2, optimizer: {weight_decay: 0}, schedule: {kind: constant, peak_lr: 1.0e-3, warmup_steps: 0}}
  - eval: {perplexity: {split: validation}}
)";

class InstructionRun : public SmallRun {
 public:
  InstructionRun() : SmallRun(Placed()) {
    std::string lines;
    for (int i = 0; i < 60; ++i) {
      lines += "{\"messages\": [{\"role\": \"user\", \"content\": \"" +
               std::string(1 + i % 5, 'a') + "\"}, {\"role\": \"assistant\", \"content\": \"" +
               std::to_string(i) + "\"}]}\n";
    }
    WriteFileAtomically(folder() / "texts/chats.jsonl", lines);
    WriteFileAtomically(folder() / "texts/chat.jinja",
                        "{% for m in messages %}{{ m.role[0] }}:\n{{ m.content }}\n{% endfor %}"
                        "{% if add_generation_prompt %}a:\n{% endif %}");
  }
  void Run(const std::vector<std::string>& overrides) const {
    RunRecipe(Load(overrides), {runs(), "", ""});
  }

 private:
  static std::string Placed() {
    std::string yaml = kChat;
    yaml.replace(yaml.find("MODEL"), 5, DenseModel());
    return yaml;
  }
};

TEST(InstructionRunTest, TrainsOnAnswersAndResumesToTheSameBits) {
  const InstructionRun once, twice;
  once.Run({});
  twice.Run({"train.steps=4"});
  twice.Run({});
  EXPECT_EQ(once.Result("train")["validation_loss"], twice.Result("train")["validation_loss"]);
  EXPECT_EQ(once.Result("train")["loss"], twice.Result("train")["loss"]);
  // The answers of the validation side alone: digits and the end of the line.
  const int64_t predicted = once.Result("eval")["tokens"];
  EXPECT_GT(predicted, 0);
  EXPECT_LT(predicted, once.Result("prepare")["validation_tokens"].get<int64_t>() / 2);
}

TEST(InstructionRunTest, RefusesAStreamAndATemplateThatIsMissing) {
  const InstructionRun run;
  EXPECT_THROW(run.Run({"data.packing=stream"}), RecipeError);
  EXPECT_THROW(run.Run({"data.chat_template=''"}), InputError);  // The model brings none
}

}  // namespace
}  // namespace tern::job
