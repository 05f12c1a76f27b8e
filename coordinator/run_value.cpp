#include "run_value.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <unistd.h>
#include <utility>

#include "suggestion.h"

namespace bulkhead {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr std::array<Unit, 9> kDurations{{{"ms", 1e-3},
                                          {"s", 1},
                                          {"sec", 1},
                                          {"m", 60},
                                          {"min", 60},
                                          {"h", 3600},
                                          {"hour", 3600},
                                          {"hours", 3600},
                                          {"d", 86400}}};
constexpr std::array<Unit, 9> kSizes{{{"B", 1},
                                      {"KiB", 1024.0},
                                      {"MiB", 1024.0 * 1024},
                                      {"GiB", 1024.0 * 1024 * 1024},
                                      {"TiB", 1024.0 * 1024 * 1024 * 1024},
                                      {"kB", 1e3},
                                      {"MB", 1e6},
                                      {"GB", 1e9},
                                      {"TB", 1e12}}};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// YAML 1.1 allows 1_000; from_chars knows neither that nor a leading plus.
std::string bare_number(std::string_view text) {
  std::string bare;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool between_digits =
        i > 0 && i + 1 < text.size() && is_digit(text[i - 1]) && is_digit(text[i + 1]);
    if (text[i] == '_' && between_digits) continue;
    if (text[i] == '+' && i == 0 && text.size() > 1 && text[1] != '-') continue;
    bare += text[i];
  }
  return bare;
}

std::optional<double> parse_number(std::string_view text) {
  const std::string bare = bare_number(text);
  double number = 0;
  const auto [end, error] = std::from_chars(bare.data(), bare.data() + bare.size(), number);
  if (error != std::errc() || end != bare.data() + bare.size() || !std::isfinite(number)) return std::nullopt;
  return number;
}

// 1e3 and 500.0 are whole numbers too.
std::optional<std::int64_t> parse_integer(std::string_view text) {
  const std::string bare = bare_number(text);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(bare.data(), bare.data() + bare.size(), number);
  if (error == std::errc() && end == bare.data() + bare.size()) return number;
  const auto real = parse_number(text);
  if (!real || *real != std::floor(*real) || std::abs(*real) > 9.0e15) return std::nullopt;
  return static_cast<std::int64_t>(*real);
}

std::optional<bool> parse_boolean(const std::string& text) {
  for (const char* yes : {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

template <std::size_t N>
std::optional<double> parse_with_unit(std::string_view text, const std::array<Unit, N>& units) {
  std::size_t digits = text.size();
  while (digits > 0 && is_letter(text[digits - 1])) --digits;
  const std::string_view name = text.substr(digits);
  std::string_view number = text.substr(0, digits);
  while (number.ends_with(' ')) number.remove_suffix(1);
  for (const Unit& unit : units) {
    if (unit.name != name) continue;
    const auto value = parse_number(number);
    return value ? std::optional(*value * unit.factor) : std::nullopt;
  }
  return std::nullopt;
}

bool within(const KeyRange& range, double value) {
  return !((range.at_least && value < *range.at_least) || (range.above && value <= *range.above) ||
           (range.at_most && value > *range.at_most) || (range.below && value >= *range.below));
}

std::string wanted(const KeySpec& spec) {
  switch (spec.kind) {
    case KeyKind::kInteger:
      return "an integer";
    case KeyKind::kNumber:
      return "a number";
    case KeyKind::kBoolean:
      return "true or false";
    case KeyKind::kChoice:
      return one_of(spec.choices);
    case KeyKind::kDuration:
      return "a duration such as 30s, 500ms, 10min or 1h";
    case KeyKind::kSize:
      return "a size such as 512MiB or 2GiB";
    case KeyKind::kMapping:
      return "a mapping of names to values";
    case KeyKind::kName:
      return "letters, digits, _ and - (at most 64, a letter or _ first)";
    case KeyKind::kPath:
      return "a path";
    case KeyKind::kInterpreter:
      return "a program";
    case KeyKind::kText:
      return "text";
  }
  return "";
}

std::filesystem::path absolute_path(const std::string& text, const std::filesystem::path& base) {
  const char* home = std::getenv("HOME");
  if (text.starts_with("~/") && home != nullptr)
    return (std::filesystem::path(home) / text.substr(2)).lexically_normal();
  return (base / text).lexically_normal();
}

// A bare name is looked up in PATH, as a shell does; what is not found stays
// a path, and the check that it exists says so.
std::filesystem::path interpreter_path(const std::string& text, const std::filesystem::path& base) {
  const char* search = std::getenv("PATH");
  std::string_view rest = search != nullptr && text.find('/') == std::string::npos ? search : "";
  while (!rest.empty()) {
    const std::size_t colon = std::min(rest.find(':'), rest.size());
    const auto candidate = std::filesystem::path(rest.substr(0, colon)) / text;
    if (candidate.is_absolute() && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return absolute_path(text, base);
}

std::optional<double> parse_amount(const KeySpec& spec, const std::string& text) {
  switch (spec.kind) {
    case KeyKind::kNumber:
      return parse_number(text);
    case KeyKind::kDuration:
      return parse_duration(text);
    case KeyKind::kInteger:
    case KeyKind::kSize: {
      const auto whole = spec.kind == KeyKind::kInteger ? parse_integer(text) : parse_size(text);
      return whole ? std::optional(static_cast<double>(*whole)) : std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

// False: not of the kind that the key wants.
bool set_text(const KeySpec& spec, const std::string& text, const std::filesystem::path& base, Slot slot) {
  switch (spec.kind) {
    case KeyKind::kText:
      *std::get<std::string*>(slot) = text;
      return !text.empty();
    case KeyKind::kName:
      *std::get<std::string*>(slot) = text;
      return is_name(text);
    case KeyKind::kPath:
      *std::get<std::string*>(slot) = absolute_path(text, base).string();
      return !text.empty();
    case KeyKind::kInterpreter:
      *std::get<std::string*>(slot) = interpreter_path(text, base).string();
      return !text.empty();
    case KeyKind::kBoolean: {
      const auto value = parse_boolean(text);
      if (value) *std::get<bool*>(slot) = *value;
      return value.has_value();
    }
    case KeyKind::kChoice: {
      const auto& choices = spec.choices;
      if (std::find(choices.begin(), choices.end(), text) == choices.end()) return false;
      if (auto* flag = std::get_if<bool*>(&slot)) **flag = text != choices.front();
      if (auto* name = std::get_if<std::string*>(&slot)) **name = text;
      return true;
    }
    default:
      return false;
  }
}

std::string written_number(double number) {
  const std::string text = to_yaml(number);
  return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
}

std::string written_size(std::int64_t bytes) {
  for (const auto& [name, factor] : {std::pair("GiB", 1LL << 30), std::pair("MiB", 1LL << 20)}) {
    if (bytes % factor == 0) return std::to_string(bytes / factor) + name;
  }
  return std::to_string(bytes) + "B";
}

}  // namespace

std::optional<double> parse_duration(std::string_view text) { return parse_with_unit(text, kDurations); }

std::optional<std::int64_t> parse_size(std::string_view text) {
  const auto bytes = parse_with_unit(text, kSizes);
  if (!bytes || std::abs(*bytes) > 9.0e15) return std::nullopt;
  return static_cast<std::int64_t>(*bytes);
}

bool is_name(std::string_view text) {
  if (text.empty() || text.size() > 64 || !is_letter(text.front())) return false;
  for (const char c : text) {
    if (!is_letter(c) && !is_digit(c) && c != '-') return false;
  }
  return true;
}

std::string as_name(std::string_view text) {
  std::string name;
  for (const char c : text.substr(0, 63)) name += is_letter(c) || is_digit(c) ? c : '-';
  return is_name(name) ? name : "_" + name;
}

Status set_value(const KeySpec& spec, const std::string& key, const YamlNode& node,
                 const std::filesystem::path& base, Slot slot) {
  const auto refuse = [&](const std::string& what) {
    return Error{ErrorCode::kMismatch,
                 node.place + ": " + key + " must be " + what + ", not " + describe(node)};
  };
  if (spec.kind == KeyKind::kMapping) {
    if (!node.is_map() && node.kind != YamlNode::Kind::kNull) return refuse(wanted(spec));
    *std::get<Value*>(slot) = node.is_map() ? to_value(node) : Value::object();
    return ok_status();
  }
  if (!node.is_scalar()) return refuse(wanted(spec));
  const bool is_amount = spec.kind == KeyKind::kInteger || spec.kind == KeyKind::kNumber ||
                         spec.kind == KeyKind::kDuration || spec.kind == KeyKind::kSize;
  if (!is_amount) {
    if (!set_text(spec, node.text, base, slot)) {
      return refuse(wanted(spec));
    }
    return ok_status();
  }
  const auto amount = parse_amount(spec, node.text);
  if (!amount) return refuse(wanted(spec));
  if (!within(spec.range, *amount)) return refuse(describe(spec.range));
  if (auto* real = std::get_if<double*>(&slot)) **real = *amount;
  if (auto* whole = std::get_if<std::int64_t*>(&slot)) {
    **whole = spec.kind == KeyKind::kSize ? *parse_size(node.text) : *parse_integer(node.text);
  }
  return ok_status();
}

std::optional<std::string> written(const KeySpec& spec, Slot slot) {
  if (auto* value = std::get_if<Value*>(&slot)) return to_yaml(**value);
  if (auto* flag = std::get_if<bool*>(&slot)) {
    if (spec.kind == KeyKind::kChoice) return spec.choices[**flag ? 1 : 0];
    return **flag ? "true" : "false";
  }
  if (auto* text = std::get_if<std::string*>(&slot)) {
    return (*text)->empty() ? std::nullopt : std::optional(to_yaml(**text));
  }
  if (auto* real = std::get_if<double*>(&slot)) {
    if (!within(spec.range, **real)) return std::nullopt;  // what it holds while it is not given
    return spec.kind == KeyKind::kDuration ? written_number(**real) + "s" : to_yaml(**real);
  }
  const std::int64_t whole = *std::get<std::int64_t*>(slot);
  if (whole == 0 && spec.defaults.empty()) return std::nullopt;
  return spec.kind == KeyKind::kSize ? written_size(whole) : std::to_string(whole);
}

}  // namespace bulkhead
