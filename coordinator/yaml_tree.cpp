#include "yaml_tree.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <regex>
#include <set>

#include <yaml-cpp/yaml.h>

namespace bulkhead {
namespace {

constexpr int kDeepest = 64;
constexpr int kMostNodes = 100'000;

// Turns yaml-cpp's graph into our tree, line by line.
class TreeBuilder {
 public:
  TreeBuilder(std::string source, bool typed) : source_(std::move(source)), typed_(typed) {}

  Result<YamlNode> build(const YAML::Node& node, int line, int depth) {
    if (++nodes_ > kMostNodes || depth > kDeepest)
      return refuse(line, "the file is nested too deep or too large");
    YamlNode made;
    made.place = place(line);
    made.from_command_line = typed_;
    const std::string tag = node.Tag();
    if (!tag.empty() && tag != "?" && tag != "!" && !tag.starts_with("tag:yaml.org,2002:")) {
      return refuse(line, "the tag " + tag + " is not supported");
    }
    if (node.IsScalar()) {
      made.kind = YamlNode::Kind::kScalar;
      made.text = node.Scalar();
      made.quoted = tag == "!" || tag.ends_with(":str");
    } else if (node.IsSequence()) {
      return build_list(node, std::move(made), depth);
    } else if (node.IsMap()) {
      return build_map(node, std::move(made), depth);
    }
    return made;
  }

  Error refuse(int line, const std::string& sentence) const {
    return Error{ErrorCode::kMalformed, place(line) + ": " + sentence};
  }

 private:
  Result<YamlNode> build_list(const YAML::Node& node, YamlNode made, int depth) {
    made.kind = YamlNode::Kind::kList;
    for (const auto& item : node) {
      auto child = build(item, item.Mark().line, depth + 1);
      if (!child) return child;
      made.children.push_back(std::move(*child));
    }
    return made;
  }

  Result<YamlNode> build_map(const YAML::Node& node, YamlNode made, int depth) {
    made.kind = YamlNode::Kind::kMap;
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const int line = entry.first.Mark().line;
      if (!entry.first.IsScalar()) return refuse(line, "a key must be plain text");
      const std::string key = entry.first.Scalar();
      if (!seen.insert(key).second) return refuse(line, "the key " + key + " is given twice");
      auto child = build(entry.second, line, depth + 1);
      if (!child) return child;
      child->key = key;
      made.children.push_back(std::move(*child));
    }
    return made;
  }

  std::string place(int line) const {
    return typed_ ? source_ : source_ + ":" + std::to_string(std::max(line, 0) + 1);
  }

  std::string source_;
  bool typed_;
  int nodes_ = 0;
};

Result<YamlNode> parse(const std::string& text, const std::string& source, bool typed) {
  TreeBuilder builder(source, typed);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1)
      return builder.refuse(documents[1].Mark().line, "there must be one YAML document only");
    if (documents.empty()) {
      YamlNode empty;
      empty.place = source;
      empty.from_command_line = typed;
      return empty;
    }
    return builder.build(documents[0], documents[0].Mark().line, 0);
  } catch (const YAML::Exception& error) {
    return builder.refuse(error.mark.line, "not valid YAML: " + error.msg);
  }
}

const std::regex& integer_pattern() {
  static const std::regex pattern("[-+]?[0-9]+");
  return pattern;
}

const std::regex& number_pattern() {
  static const std::regex pattern(R"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)");
  return pattern;
}

template <class Number>
std::optional<Number> read_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<Value> special_value(const std::string& text) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL")
    return Value(nullptr);
  if (text == "true" || text == "True" || text == "TRUE") return Value(true);
  if (text == "false" || text == "False" || text == "FALSE") return Value(false);
  if (text == ".inf" || text == "+.inf" || text == ".Inf") return Value(kInfinity);
  if (text == "-.inf" || text == "-.Inf") return Value(-kInfinity);
  if (text == ".nan" || text == ".NaN" || text == ".NAN")
    return Value(std::numeric_limits<double>::quiet_NaN());
  return std::nullopt;
}

Value scalar_value(const std::string& text) {
  if (auto special = special_value(text)) return *special;
  if (std::regex_match(text, integer_pattern())) {
    if (const auto number = read_number<std::int64_t>(text)) return *number;
  }
  if (text.starts_with("0x")) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), number, 16);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  // The pattern is tried on short text only: std::regex recurses per character.
  if (text.size() < 64 && std::regex_match(text, number_pattern())) {
    if (const auto number = read_number<double>(text)) return *number;
  }
  return text;
}

// Text that no YAML 1.1 or 1.2 parser takes for anything else.
bool is_plain_text(const std::string& text) {
  static const std::set<std::string> words = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  static const std::regex pattern("[A-Za-z_][A-Za-z0-9_./-]*");
  std::string lower;
  for (const char c : text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text.size() < 256 && std::regex_match(text, pattern) && !words.contains(lower);
}

}  // namespace

const YamlNode* YamlNode::find(std::string_view name) const {
  for (const YamlNode& child : children) {
    if (child.key == name) return &child;
  }
  return nullptr;
}

YamlNode* YamlNode::find(std::string_view name) {
  return const_cast<YamlNode*>(static_cast<const YamlNode*>(this)->find(name));
}

Result<YamlNode> parse_yaml(const std::string& text, const std::string& source) {
  return parse(text, source, false);
}

Result<YamlNode> parse_typed_value(const std::string& text, const std::string& place) {
  return parse(text, place, true);
}

Value to_value(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kScalar:
      return node.quoted ? Value(node.text) : scalar_value(node.text);
    case YamlNode::Kind::kList: {
      Value list = Value::array();
      for (const YamlNode& child : node.children) list.push_back(to_value(child));
      return list;
    }
    case YamlNode::Kind::kMap: {
      Value map = Value::object();
      for (const YamlNode& child : node.children) map[child.key] = to_value(child);
      return map;
    }
  }
  return nullptr;
}

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kScalar:
      return "\"" + node.text + "\"";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a mapping";
  }
  return "";
}

std::string to_yaml(const std::string& text) {
  if (is_plain_text(text)) return text;
  return Value(text).dump(-1, ' ', false, Value::error_handler_t::replace);
}

std::string to_yaml(double number) {
  if (std::isnan(number)) return ".nan";
  if (std::isinf(number)) return number > 0 ? ".inf" : "-.inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), number).ptr;
  std::string text(buffer, end);
  // YAML 1.1 takes 1e-08 for text: a number needs its point.
  if (text.find('.') == std::string::npos) text.insert(std::min(text.find('e'), text.size()), ".0");
  return text;
}

std::string to_yaml(const Value& value) {
  if (value.is_string()) return to_yaml(value.get<std::string>());
  if (value.is_number_float()) return to_yaml(value.get<double>());
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!text.empty()) text += ", ";
    if (value.is_object()) text += to_yaml(key) + ": ";
    text += to_yaml(item);
  }
  return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

}  // namespace bulkhead
