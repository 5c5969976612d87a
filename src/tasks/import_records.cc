// See import_records.h. Prompts as lm-evaluation-harness 0.4.13 makes them (facts of its task
// definitions; no code of it).
#include "tasks/import_records.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "tasks/answers.h"
#include "tasks/import.h"

namespace tern::tasks {
namespace {

using nlohmann::json;

std::string Short(const json& value) {
  const std::string text = value.dump(-1, ' ', true);
  return text.size() <= 60 ? text : text.substr(0, 60) + "...";
}

TaskItem Choice(std::string context, std::vector<std::string> choices, int64_t gold) {
  TaskItem item;
  item.contexts = {std::move(context)};
  item.choices = std::move(choices);
  item.delimiter = " ";
  item.gold = gold;
  return item;
}

// The answer among labels: "A", "1", or whatever the record calls its choices.
int64_t GoldOf(const RecordFields& record, const std::vector<std::string>& labels) {
  const std::string key(Trimmed(record.Text("answerKey")));
  const auto it = std::find(labels.begin(), labels.end(), key);
  TERN_CHECK_FORMAT(it != labels.end(), record.where(), ": answerKey is \"", key,
                    "\", which is no label of a choice");
  return it - labels.begin();
}

// ARC and OpenBookQA, in both of their layouts: choices as lists of texts and labels (Parquet), or
// as objects within "question" (the authors' JSONL).
struct ScienceQuestion {
  std::string stem;
  std::vector<std::string> texts, labels;
};

ScienceQuestion Science(const RecordFields& record, const char* stem) {
  ScienceQuestion question;
  if (!record.Has("choices")) {
    const RecordFields inner = record.Object("question");
    question.stem = inner.Text("stem");
    TERN_CHECK_FORMAT(inner.Has("choices") && inner.record()["choices"].is_array(), record.where(),
                      ": question.choices is missing or no list");
    for (const json& choice : inner.record()["choices"]) {
      const RecordFields fields(choice, record.where());
      question.texts.push_back(fields.Text("text"));
      question.labels.push_back(fields.Text("label"));
    }
    return question;
  }
  question.stem = record.Text(stem);
  const RecordFields choices = record.Object("choices");
  question.texts = choices.Texts("text");
  question.labels = choices.Texts("label");
  TERN_CHECK_FORMAT(question.texts.size() == question.labels.size(), record.where(), ": ",
                    question.texts.size(), " choices with ", question.labels.size(), " labels");
  return question;
}

std::string Id(const RecordFields& record) { return record.Has("id") ? record.Text("id") : ""; }

TaskItem Arc(const RecordFields& record) {
  ScienceQuestion question = Science(record, "question");
  const int64_t gold = GoldOf(record, question.labels);
  TaskItem item =
      Choice("Question: " + question.stem + "\nAnswer:", std::move(question.texts), gold);
  item.id = Id(record);
  return item;
}

TaskItem OpenBookQa(const RecordFields& record) {
  ScienceQuestion question = Science(record, "question_stem");
  const int64_t gold = GoldOf(record, question.labels);
  TaskItem item = Choice(question.stem, std::move(question.texts), gold);
  item.id = Id(record);
  return item;
}

// The first character in upper case, all others in lower case (ASCII letters; the set is English).
std::string Capitalized(std::string text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) text[i] = static_cast<char>(i == 0 ? std::toupper(c) : std::tolower(c));
  }
  return text;
}

TaskItem HellaSwag(const RecordFields& record) {
  std::vector<std::string> endings = record.Texts("endings");
  for (std::string& ending : endings) ending = CleanHellaSwag(ending);
  const int64_t gold = record.Index("label", static_cast<int64_t>(endings.size()));
  return Choice(CleanHellaSwag(record.Text("activity_label") + ": " + record.Text("ctx_a") + " " +
                               Capitalized(record.Text("ctx_b"))),
                std::move(endings), gold);
}

TaskItem Mmlu(const RecordFields& record) {
  const std::vector<std::string> choices = record.Texts("choices");
  TERN_CHECK_FORMAT(choices.size() == 4, record.where(), ": ", choices.size(), " choices; want 4");
  const json& answer = record.record().contains("answer") ? record.record()["answer"] : json();
  int64_t gold = 0;
  if (answer.is_string() && answer.get<std::string>().size() == 1 &&
      answer.get<std::string>() >= "A" && answer.get<std::string>() <= "D")
    gold = answer.get<std::string>()[0] - 'A';
  else
    gold = record.Index("answer", 4);
  std::string context(Trimmed(record.Text("question")));
  for (size_t i = 0; i < 4; ++i)
    context += StrCat("\n", static_cast<char>('A' + i), ". ", choices[i]);
  TaskItem item = Choice(context + "\nAnswer:", {"A", "B", "C", "D"}, gold);
  item.group = record.Has("subject") ? record.Text("subject") : "";
  std::string subject = item.group;
  std::replace(subject.begin(), subject.end(), '_', ' ');
  if (!subject.empty())
    item.preamble =
        "The following are multiple choice questions (with answers) about " + subject + ".\n\n";
  return item;
}

TaskItem Piqa(const RecordFields& record) {
  return Choice("Question: " + record.Text("goal") + "\nAnswer:",
                {record.Text("sol1"), record.Text("sol2")}, record.Index("label", 2));
}

// Partial evaluation (Trinh and Le, arXiv 1806.02847): the end of the sentence is scored after each
// of the two names.
TaskItem WinoGrande(const RecordFields& record) {
  const std::string sentence = record.Text("sentence");
  const size_t gap = sentence.find('_');
  TERN_CHECK_FORMAT(gap != sentence.npos, record.where(), ": the sentence has no gap (_)");
  TaskItem item;
  for (const char* option : {"option1", "option2"})
    item.contexts.push_back(sentence.substr(0, gap) + record.Text(option));
  item.choices = {StrCat(" ", Trimmed(std::string_view(sentence).substr(gap + 1)))};
  const std::string answer = record.Text("answer");
  TERN_CHECK_FORMAT(answer == "1" || answer == "2", record.where(), ": answer is \"", answer,
                    "\"; want 1 or 2 (the test split has no answers)");
  item.gold = answer == "1" ? 0 : 1;
  return item;
}

TaskItem BoolQ(const RecordFields& record) {
  return Choice(record.Text("passage") + "\nQuestion: " + record.Text("question") + "?\nAnswer:",
                {"no", "yes"}, record.Index(record.Has("label") ? "label" : "answer", 2));
}

TaskItem Lambada(const RecordFields& record) {
  const std::string text = record.Text("text");
  const size_t space = text.rfind(' ');
  TERN_CHECK_FORMAT(space != text.npos && space > 0 && space + 1 < text.size(), record.where(),
                    ": the text has no last word");
  TaskItem item;
  item.contexts = {text.substr(0, space)};
  item.choices = {text.substr(space)};
  return item;
}

TaskItem Gsm8k(const RecordFields& record) {
  TaskItem item;
  item.contexts = {"Question: " + record.Text("question") + "\nAnswer:"};
  item.delimiter = " ";
  item.answer = record.Text("answer");
  return item;
}

TaskItem HumanEval(const RecordFields& record) {
  TaskItem item;
  item.id = record.Text("task_id");
  item.contexts = {record.Text("prompt")};
  item.test = record.Text("test");
  item.entry_point = record.Text("entry_point");
  return item;
}

constexpr Importer kImporters[] = {{"arc_easy", TaskKind::kChoice, Arc},
                                   {"arc_challenge", TaskKind::kChoice, Arc},
                                   {"hellaswag", TaskKind::kChoice, HellaSwag},
                                   {"mmlu", TaskKind::kChoice, Mmlu},
                                   {"piqa", TaskKind::kChoice, Piqa},
                                   {"winogrande", TaskKind::kChoice, WinoGrande},
                                   {"boolq", TaskKind::kChoice, BoolQ},
                                   {"openbookqa", TaskKind::kChoice, OpenBookQa},
                                   {"lambada", TaskKind::kContinuation, Lambada},
                                   {"gsm8k", TaskKind::kGenerate, Gsm8k},
                                   {"humaneval", TaskKind::kCode, HumanEval}};

}  // namespace

bool RecordFields::Has(const char* field) const {
  return record_.is_object() && record_.contains(field) && !record_[field].is_null();
}

const json& RecordFields::At(const char* field) const {
  if (!Has(field)) {
    std::string keys;
    if (record_.is_object())
      for (const auto& [key, value] : record_.items())
        keys += StrCat(keys.empty() ? "" : ", ", key);
    throw FormatError(StrCat(where_, ": no field ", field, "; there are ", keys));
  }
  return record_[field];
}

std::string RecordFields::Text(const char* field) const {
  const json& value = At(field);
  TERN_CHECK_FORMAT(value.is_string(), where_, ": ", field, " is ", Short(value), "; want a text");
  return value.get<std::string>();
}

std::vector<std::string> RecordFields::Texts(const char* field) const {
  const json& value = At(field);
  const bool fits = value.is_array() && std::all_of(value.begin(), value.end(),
                                                    [](const json& v) { return v.is_string(); });
  TERN_CHECK_FORMAT(fits, where_, ": ", field, " is ", Short(value), "; want a list of texts");
  return value.get<std::vector<std::string>>();
}

int64_t RecordFields::Index(const char* field, int64_t count) const {
  const json& value = At(field);
  int64_t index = -1;
  if (value.is_boolean()) {
    index = value.get<bool>() ? 1 : 0;
  } else if (value.is_number_integer() && (!value.is_number_unsigned() ||
                                           value.get<uint64_t>() < static_cast<uint64_t>(count))) {
    index = value.get<int64_t>();
  } else if (value.is_string()) {
    const std::string text = value.get<std::string>();
    if (text.size() == 1 && text[0] >= '0' && text[0] <= '9') index = text[0] - '0';
  }
  TERN_CHECK_FORMAT(index >= 0 && index < count, where_, ": ", field, " is ", Short(value),
                    "; want 0 to ", count - 1, " (test splits without answers cannot be used)");
  return index;
}

RecordFields RecordFields::Object(const char* field) const {
  const json& value = At(field);
  TERN_CHECK_FORMAT(value.is_object(), where_, ": ", field, " is ", Short(value),
                    "; want an object");
  return {value, where_};
}

const Importer& ImporterOf(const std::string& task) {
  std::string known;
  for (const Importer& importer : kImporters) {
    if (task == importer.task) return importer;
    known += StrCat(known.empty() ? "" : ", ", importer.task);
  }
  throw UsageError(StrCat("no importer for \"", task, "\"; there are ", known));
}

std::string CleanHellaSwag(std::string_view text) {
  const auto replace_all = [](std::string* in, std::string_view from, std::string_view to) {
    for (size_t at = 0; (at = in->find(from, at)) != in->npos; at += to.size())
      in->replace(at, from.size(), to);
  };
  std::string out(Trimmed(text));
  replace_all(&out, " [title]", ". ");
  // From each '[' to the next ']' of the same line.
  for (size_t open = 0; (open = out.find('[', open)) != out.npos;) {
    const size_t close = out.find_first_of("]\n", open);
    if (close != out.npos && out[close] == ']')
      out.erase(open, close + 1 - open);
    else
      ++open;
  }
  replace_all(&out, "  ", " ");
  return out;
}

}  // namespace tern::tasks
