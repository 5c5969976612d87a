// See tree.h.
#include "recipe/tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"

namespace tern::recipe {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxDepth = 64;
constexpr int kMaxValues = 100'000;
constexpr size_t kMaxFields = 1000;  // Of one map: keys are looked up one by one
constexpr int kMaxParts = 1000;      // Read for one recipe: parts that use parts multiply

std::string Place(const std::string& source, const YAML::Mark& mark) {
  return mark.is_null() ? source : StrCat(source, ":", mark.line + 1, ":", mark.column + 1);
}

class Converter {
 public:
  explicit Converter(std::string source, bool marks) : source_(std::move(source)), marks_(marks) {}

  Node Convert(const YAML::Node& yaml, int depth) {
    Node node;
    node.origin = marks_ ? Place(source_, yaml.Mark()) : source_;
    if (depth > kMaxDepth) Fail(node, StrCat("nested deeper than ", kMaxDepth, " levels"));
    if (++values_ > kMaxValues)
      Fail(node, StrCat("more than ", kMaxValues, " values (aliases count each time)"));
    // yaml-cpp: "?" for a plain value, "!" for a quoted one, else the tag that was written.
    if (yaml.Tag() != "" && yaml.Tag() != "?" && yaml.Tag() != "!") {
      Fail(node, StrCat("the tag ", yaml.Tag(), "; want plain YAML without tags"));
    }
    switch (yaml.Type()) {
      case YAML::NodeType::Scalar:
        node.kind = Node::Kind::kScalar;
        node.text = yaml.Scalar();
        node.quoted = yaml.Tag() == "!";
        break;
      case YAML::NodeType::Sequence:
        node.kind = Node::Kind::kList;
        for (const YAML::Node& item : yaml) node.items.push_back(Convert(item, depth + 1));
        break;
      case YAML::NodeType::Map:
        AddFields(yaml, depth, node);
        break;
      case YAML::NodeType::Null:
        Fail(node, "an empty value; want one, or {} for an empty map");
      case YAML::NodeType::Undefined:
        Fail(node, "an undefined value");
    }
    return node;
  }

 private:
  [[noreturn]] static void FailAt(const std::string& origin, const std::string& what) {
    throw RecipeError(StrCat(origin, ": found ", what));
  }
  [[noreturn]] static void Fail(const Node& node, const std::string& what) {
    FailAt(node.origin, what);
  }

  void AddFields(const YAML::Node& yaml, int depth, Node& node) {
    node.kind = Node::Kind::kMap;
    for (const auto& entry : yaml) {
      if (!entry.first.IsScalar()) Fail(node, "a key that is not plain text");
      const std::string key = entry.first.Scalar();
      const std::string origin = marks_ ? Place(source_, entry.first.Mark()) : source_;
      if (entry.second.IsNull())
        FailAt(origin, StrCat("no value for the key ", key, "; want one, or {} for an empty map"));
      Node value = Convert(entry.second, depth + 1);
      value.origin = origin;
      if (node.Find(key) != nullptr)
        Fail(value, StrCat("the key ", key, " for the second time in one map"));
      if (node.fields.size() == kMaxFields)
        Fail(value, StrCat("more than ", kMaxFields, " keys in one map"));
      node.fields.emplace_back(key, std::move(value));
    }
  }

  std::string source_;
  bool marks_;
  int values_ = 0;
};

// Events of a document that nobody wants.
class IgnoreEvents : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// YAML::Load reads the first document and ignores what follows ("{a: b} c"); YAML::LoadAll (0.7)
// does not end on ",".
YAML::Node LoadOnly(const std::string& yaml, const std::string& source) {
  std::istringstream stream(yaml);
  YAML::Parser parser(stream);
  IgnoreEvents ignore;
  if (!parser.HandleNextDocument(ignore))
    throw RecipeError(StrCat(source, ": found nothing; want a value"));
  if (parser.HandleNextDocument(ignore)) {
    throw RecipeError(
        StrCat(source, ": found more after the first YAML document; want one document"));
  }
  return YAML::Load(yaml);
}

Node ParseYaml(const std::string& yaml, const std::string& source, bool marks) {
  if (const auto bad = FirstInvalidUtf8(yaml)) {
    throw RecipeError(StrCat(source, ": byte ", *bad, " is not UTF-8; want a recipe in UTF-8"));
  }
  try {
    return Converter(source, marks).Convert(LoadOnly(yaml, source), 0);
  } catch (const YAML::Exception& error) {
    throw RecipeError(
        StrCat(marks ? Place(source, error.mark) : source, ": not valid YAML: ", error.msg));
  }
}

std::vector<std::string> PartNames(const Node& use) {
  std::vector<std::string> names;
  if (use.kind == Node::Kind::kScalar) return {use.text};
  for (const Node& item : use.items) {
    if (item.kind == Node::Kind::kScalar) names.push_back(item.text);
  }
  if (use.kind != Node::Kind::kList || names.size() != use.items.size()) {
    throw RecipeError(
        StrCat(use.origin, ": use: wants the name of a part in configs/, or a list of names"));
  }
  return names;
}

class PartMerger {
 public:
  explicit PartMerger(const std::string& folder) : folder_(folder) {}

  void Resolve(Node& node) {
    for (Node& item : node.items) Resolve(item);
    for (auto& [key, value] : node.fields) {
      if (key != "use") Resolve(value);
    }
    const auto use = std::find_if(node.fields.begin(), node.fields.end(),
                                  [](const auto& f) { return f.first == "use"; });
    if (use == node.fields.end()) return;
    const Node names = use->second;
    node.fields.erase(use);
    Node merged;
    merged.origin = node.origin;
    for (const std::string& name : PartNames(names)) MergeInto(merged, Part(name, names.origin));
    MergeInto(merged, node);
    node = std::move(merged);
  }

 private:
  // The part with its own parts merged.
  Node Part(const std::string& name, const std::string& origin) {
    const bool plain = !name.empty() && name.front() != '/' &&
                       name.find("..") == std::string::npos && name.find('\0') == std::string::npos;
    if (!plain) {
      throw RecipeError(
          StrCat(origin, ": use: found \"", name, "\"; want the name of a part in configs/"));
    }
    const std::string path = StrCat(folder_, "/", name, ".yaml");
    if (std::find(open_.begin(), open_.end(), path) != open_.end()) {
      throw RecipeError(StrCat(origin, ": use: ", name, " leads back to itself"));
    }
    std::error_code unreadable;  // A name that the system refuses is no part, either
    if (!std::filesystem::is_regular_file(path, unreadable)) {
      throw RecipeError(StrCat(origin, ": use: found no part ", name, "; looked for ", path));
    }
    if (++parts_ > kMaxParts) {
      throw RecipeError(
          StrCat(origin, ": use: found more than ", kMaxParts, " parts in one recipe"));
    }
    Node part = ReadTree(path);
    if (part.kind != Node::Kind::kMap)
      throw RecipeError(StrCat(path, ": a part must be a map of keys"));
    open_.push_back(path);
    Resolve(part);
    open_.pop_back();
    return part;
  }

  std::string folder_;
  std::vector<std::string> open_;  // Parts being merged, outermost first
  int parts_ = 0;                  // Read so far
};

}  // namespace

const Node* Node::Find(const std::string& key) const {
  for (const auto& [name, value] : fields) {
    if (name == key) return &value;
  }
  return nullptr;
}

Node* Node::Find(const std::string& key) {
  return const_cast<Node*>(std::as_const(*this).Find(key));
}

Node ReadTree(const std::string& path) {
  std::error_code unreadable;  // ReadFile reports it.
  const auto size_bytes = std::filesystem::file_size(path, unreadable);
  if (!unreadable && size_bytes > kMaxFileBytes) {
    throw RecipeError(
        StrCat(path, " has ", size_bytes, " bytes; a recipe may have ", kMaxFileBytes));
  }
  const std::string yaml = ReadFile(path);
  return ParseYaml(yaml, path, /*marks=*/true);
}

Node ParseValue(const std::string& yaml, const std::string& origin) {
  return ParseYaml(yaml, origin, /*marks=*/false);
}

void MergeInto(Node& base, const Node& over) {
  if (base.kind != Node::Kind::kMap || over.kind != Node::Kind::kMap) {
    base = over;
    return;
  }
  for (const auto& [key, value] : over.fields) {
    if (Node* mine = base.Find(key)) {
      MergeInto(*mine, value);
    } else {
      base.fields.emplace_back(key, value);
    }
  }
}

void ResolveUses(Node& node, const std::string& configs_folder) {
  PartMerger(configs_folder).Resolve(node);
}

}  // namespace tern::recipe
