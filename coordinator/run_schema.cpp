#include "run_schema.h"

#include <algorithm>
#include <cmath>

#include "suggestion.h"
#include "yaml_tree.h"

namespace bulkhead {
namespace {

std::string kind_cell(const KeySpec& spec) {
  switch (spec.kind) {
    case KeyKind::kText:
      return "text";
    case KeyKind::kName:
      return "name";
    case KeyKind::kPath:
      return "path";
    case KeyKind::kInterpreter:
      return "program";
    case KeyKind::kInteger:
      return "integer";
    case KeyKind::kNumber:
      return "number";
    case KeyKind::kBoolean:
      return "true, false";
    case KeyKind::kChoice:
      return join(spec.choices);
    case KeyKind::kDuration:
      return "duration";
    case KeyKind::kSize:
      return "size";
    case KeyKind::kMapping:
      return "mapping";
  }
  return "";
}

std::string default_cell(const KeySpec& spec) {
  if (spec.required) return "required";
  std::vector<std::string> parts;
  for (const KeyDefault& value : spec.defaults) {
    const bool last_of_many = value.key.empty() && spec.defaults.size() > 1;
    parts.push_back((value.text.empty() ? "–" : "`" + value.text + "`") + (last_of_many ? " else"
                                                                           : value.key.empty()
                                                                               ? ""
                                                                               : " for " + value.value));
  }
  return parts.empty() ? "–" : join(parts);
}

std::string row_of(const KeySpec& spec, const std::string& prefix) {
  std::string value = kind_cell(spec);
  if (const std::string range = describe(spec.range); !range.empty()) value += " " + range;
  if (!spec.unit.empty() && spec.unit != value && !value.starts_with(spec.unit))
    value += " (" + spec.unit + ")";
  std::string meaning = spec.meaning;
  if (!spec.belongs.key.empty())
    meaning += " · only with `" + spec.belongs.key + "` " + one_of(spec.belongs.values);
  return "| `" + prefix + spec.key + "` | " + value + " | " + default_cell(spec) + " | " + meaning + " |\n";
}

}  // namespace

std::string text_of(const std::string& key, const std::vector<KeySpec>& keys, ConfigRef config) {
  for (const KeySpec& spec : keys) {
    if (spec.key != key) continue;
    const Slot slot = spec.slot(config);
    if (const auto* text = std::get_if<std::string*>(&slot)) return **text;
  }
  return "";
}

bool belongs(const KeySpec& spec, const std::vector<KeySpec>& keys, ConfigRef config) {
  if (spec.belongs.key.empty()) return true;
  for (const KeySpec& other : keys) {
    if (other.key == spec.belongs.key && !belongs(other, keys, config)) return false;
  }
  const auto& values = spec.belongs.values;
  return std::find(values.begin(), values.end(), text_of(spec.belongs.key, keys, config)) != values.end();
}

std::optional<std::string> default_of(const KeySpec& spec, const std::vector<KeySpec>& keys,
                                      ConfigRef config) {
  for (const KeyDefault& value : spec.defaults) {
    if (!value.key.empty() && text_of(value.key, keys, config) != value.value) continue;
    return value.text.empty() ? std::nullopt : std::optional(value.text);
  }
  return std::nullopt;
}

std::string describe(const KeyRange& range) {
  const auto number = [](double value) {
    const bool is_whole = value == std::floor(value) && std::abs(value) < 1e15;
    return is_whole ? std::to_string(static_cast<std::int64_t>(value)) : to_yaml(value);
  };
  if (range.at_least && range.at_most)
    return "from " + number(*range.at_least) + " to " + number(*range.at_most);
  std::string low = range.at_least ? "at least " + number(*range.at_least) : "";
  if (range.above) low = "greater than " + number(*range.above);
  std::string high = range.at_most ? "at most " + number(*range.at_most) : "";
  if (range.below) high = "below " + number(*range.below);
  return low.empty() || high.empty() ? low + high : low + " and " + high;
}

std::string schema_markdown() {
  std::string text = "| Key | Value | Default | Meaning |\n|---|---|---|---|\n";
  for (const KeySpec& spec : run_keys()) text += row_of(spec, "");
  for (const KeySpec& spec : plugin_keys()) text += row_of(spec, "plugins[].");
  return text;
}

}  // namespace bulkhead
