// See task_file.h. The keys of each kind are in one table.
#include "tasks/task_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "base/error.h"
#include "base/sha256.h"
#include "data/record_file.h"
#include "formats/strict_json.h"

namespace tern::tasks {
namespace {

using nlohmann::json;

enum class Type { kText, kTexts, kInteger };

struct Key {
  const char* name;
  Type type;
  bool required;
};

constexpr Key kChoiceKeys[] = {{"context", Type::kText, true},
                               {"choices", Type::kTexts, true},
                               {"gold", Type::kInteger, true},
                               {"delimiter", Type::kText, false}};
constexpr Key kContextsKeys[] = {{"contexts", Type::kTexts, true},
                                 {"continuation", Type::kText, true},
                                 {"gold", Type::kInteger, true}};
constexpr Key kContinuationKeys[] = {{"context", Type::kText, true},
                                     {"continuation", Type::kText, true}};
constexpr Key kGenerateKeys[] = {{"prompt", Type::kText, true},
                                 {"answer", Type::kText, true},
                                 {"delimiter", Type::kText, false}};
constexpr Key kCodeKeys[] = {{"task_id", Type::kText, true},
                             {"prompt", Type::kText, true},
                             {"test", Type::kText, true},
                             {"entry_point", Type::kText, true},
                             {"canonical_solution", Type::kText, false}};
constexpr Key kCommonKeys[] = {
    {"id", Type::kText, false}, {"group", Type::kText, false}, {"preamble", Type::kText, false}};

struct Form {
  const char* tell;  // The key that no form before has
  TaskKind kind;
  std::span<const Key> keys;
};
constexpr Form kForms[] = {{"choices", TaskKind::kChoice, kChoiceKeys},
                           {"contexts", TaskKind::kChoice, kContextsKeys},
                           {"continuation", TaskKind::kContinuation, kContinuationKeys},
                           {"answer", TaskKind::kGenerate, kGenerateKeys},
                           {"test", TaskKind::kCode, kCodeKeys}};

const Form& FormOf(const json& object, const std::string& where) {
  for (const Form& form : kForms)
    if (object.contains(form.tell)) return form;
  throw FormatError(
      StrCat(where,
             ": no question of a known form; want one of the keys \"choices\", "
             "\"contexts\", \"continuation\", \"answer\" or \"test\" (docs/tasks.md)"));
}

bool Fits(const json& value, Type type) {
  switch (type) {
    case Type::kText:
      return value.is_string();
    case Type::kTexts:
      return value.is_array() &&
             std::all_of(value.begin(), value.end(), [](const json& v) { return v.is_string(); });
    case Type::kInteger:
      return value.is_number_integer();
  }
  __builtin_unreachable();
}

const char* Want(Type type) {
  switch (type) {
    case Type::kText:
      return "a text";
    case Type::kTexts:
      return "a list of texts";
    case Type::kInteger:
      return "a whole number";
  }
  __builtin_unreachable();
}

std::string Short(const json& value) {
  const std::string text = value.dump(-1, ' ', true);
  return text.size() <= 60 ? text : text.substr(0, 60) + "...";
}

void CheckKeys(const json& object, const Form& form, const std::string& where) {
  const auto find = [&](const std::string& name) -> const Key* {
    for (const std::span<const Key> keys : {form.keys, std::span<const Key>(kCommonKeys)})
      for (const Key& key : keys)
        if (name == key.name) return &key;
    return nullptr;
  };
  for (const auto& [name, value] : object.items()) {
    const Key* key = find(name);
    std::string known;
    for (const std::span<const Key> keys : {form.keys, std::span<const Key>(kCommonKeys)})
      for (const Key& k : keys) known += StrCat(known.empty() ? "" : ", ", k.name);
    TERN_CHECK_FORMAT(key, where, ": unknown key ", Short(name), "; a question with \"", form.tell,
                      "\" has ", known);
    TERN_CHECK_FORMAT(Fits(value, key->type), where, ": ", name, " is ", Short(value), "; want ",
                      Want(key->type));
  }
  for (const Key& key : form.keys)
    TERN_CHECK_FORMAT(!key.required || object.contains(key.name), where, ": ", key.name,
                      " is missing");
}

std::string TextOr(const json& object, const char* key, const char* fallback) {
  return object.contains(key) ? object[key].get<std::string>() : fallback;
}

// An empty choice has no tokens to score, an empty prompt none to go on from.
void CheckTexts(const TaskItem& item, const Form& form, const std::string& where) {
  for (const std::string& choice : item.choices)
    TERN_CHECK_FORMAT(!choice.empty(), where, ": an empty choice; each needs text to be scored");
  if (form.kind == TaskKind::kGenerate || form.kind == TaskKind::kCode)
    TERN_CHECK_FORMAT(!item.contexts[0].empty(), where, ": the prompt is empty");
  if (form.kind != TaskKind::kChoice) return;
  const size_t count =
      form.tell == std::string_view("contexts") ? item.contexts.size() : item.choices.size();
  TERN_CHECK_FORMAT(count >= 2 && count <= kMaxChoices, where, ": ", count, " ", form.tell,
                    "; want 2 to ", kMaxChoices);
  TERN_CHECK_FORMAT(item.gold >= 0 && item.gold < static_cast<int64_t>(count), where, ": gold is ",
                    item.gold, "; want 0 to ", count - 1);
}

TaskItem ItemOf(const json& object, const Form& form, const std::string& where) {
  TaskItem item;
  item.id = TextOr(object, object.contains("task_id") ? "task_id" : "id", "");
  item.group = TextOr(object, "group", "");
  item.preamble = TextOr(object, "preamble", "");
  item.delimiter = TextOr(object, "delimiter", " ");
  if (object.contains("gold")) {
    const json& gold = object["gold"];
    TERN_CHECK_FORMAT(!gold.is_number_unsigned() || gold.get<uint64_t>() < kMaxChoices, where,
                      ": gold is ", Short(gold), "; want less than ", kMaxChoices);
    item.gold = gold.get<int64_t>();
  }
  if (object.contains("contexts"))
    item.contexts = object["contexts"].get<std::vector<std::string>>();
  else
    item.contexts = {TextOr(object, object.contains("prompt") ? "prompt" : "context", "")};
  if (object.contains("choices"))
    item.choices = object["choices"].get<std::vector<std::string>>();
  else if (object.contains("continuation"))
    item.choices = {object["continuation"].get<std::string>()};
  item.answer = TextOr(object, "answer", "");
  item.test = TextOr(object, "test", "");
  item.entry_point = TextOr(object, "entry_point", "");
  CheckTexts(item, form, where);
  return item;
}

}  // namespace

TaskFile ReadTaskFile(const std::string& path) {
  data::RecordOptions options;
  options.format = data::RecordFormat::kJsonl;
  options.max_record_bytes = kMaxItemBytes;
  options.max_records = kMaxItems;
  data::RecordFile file(path, options);
  TaskFile task;
  const Form* form = nullptr;
  data::Record record;
  while (file.Next(&record)) {
    const std::string where = file.Where(record.number);
    const json object = formats::ParseStrictJson(record.text, where);
    const Form& own = FormOf(object, where);
    if (!form) form = &own;
    TERN_CHECK_FORMAT(own.kind == form->kind, where, ": a question with \"", own.tell,
                      "\" in a file of questions with \"", form->tell, "\"");
    CheckKeys(object, own, where);
    task.items.push_back(ItemOf(object, own, where));
  }
  TERN_CHECK_INPUT(form, path, " has no questions");
  task.kind = form->kind;
  task.sha256 = Sha256OfFile(path);
  return task;
}

std::string TaskLine(TaskKind kind, const TaskItem& item) {
  nlohmann::ordered_json line;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) line[key] = value;
  };
  add(kind == TaskKind::kCode ? "task_id" : "id", item.id);
  add("group", item.group);
  add("preamble", item.preamble);
  switch (kind) {
    case TaskKind::kChoice:
      if (item.contexts.size() > 1) {
        line["contexts"] = item.contexts;
        line["continuation"] = item.choices[0];
      } else {
        line["context"] = item.contexts[0];
        line["choices"] = item.choices;
        if (item.delimiter != " ") line["delimiter"] = item.delimiter;
      }
      line["gold"] = item.gold;
      break;
    case TaskKind::kContinuation:
      line["context"] = item.contexts[0];
      line["continuation"] = item.choices[0];
      break;
    case TaskKind::kGenerate:
      line["prompt"] = item.contexts[0];
      line["answer"] = item.answer;
      if (item.delimiter != " ") line["delimiter"] = item.delimiter;
      break;
    case TaskKind::kCode:
      line["prompt"] = item.contexts[0];
      line["test"] = item.test;
      line["entry_point"] = item.entry_point;
      break;
    case TaskKind::kPerplexity:
      TERN_CHECK(false, "a text is no question");
  }
  return line.dump();
}

std::string ExampleText(TaskKind kind, const TaskItem& item) {
  const auto gold = static_cast<size_t>(item.gold);
  switch (kind) {
    case TaskKind::kChoice:
      return item.context(gold) + (item.contexts.size() > 1 ? "" : item.delimiter) +
             item.choice(gold);
    case TaskKind::kContinuation:
      return item.contexts[0] + item.choices[0];
    case TaskKind::kGenerate:
      return item.contexts[0] + item.delimiter + item.answer;
    case TaskKind::kCode:
    case TaskKind::kPerplexity:
      throw UsageError("few-shot examples are for questions with answers; use --fewshot 0");
  }
  __builtin_unreachable();
}

std::string FewShotText(TaskKind kind, const TaskItem& item,
                        const std::vector<const TaskItem*>& examples) {
  std::string text = item.preamble;
  for (const TaskItem* example : examples) text += ExampleText(kind, *example) + "\n\n";
  return text;
}

}  // namespace tern::tasks
