// Turns the host's plain values into C++ ones: what Options and Config read with.  Nothing here is for plugin
// authors.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bulkhead/abi.h"

namespace bulkhead {
inline namespace sdk_v5 {
namespace entry {

// A value is not what was asked for.
struct WrongValue : std::invalid_argument {
  WrongValue(std::string path, const std::string& what)
      : std::invalid_argument(what), where(std::move(path)) {}
  std::string where;  // "steps[1]", "weights.a": below the key that was read
};

// The value in a person's words.
inline std::string told(const abi::Value& value) {
  using Kind = abi::Value::Kind;
  switch (value.kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return value.integer != 0 ? "true" : "false";
    case Kind::kInt:
      return std::to_string(value.integer);
    case Kind::kFloat: {
      std::string text = std::to_string(value.real);
      text.erase(std::max(text.find_last_not_of('0'), text.find('.') + 1) + 1);
      return text;
    }
    case Kind::kText:
      return "\"" + std::string(abi::view(value.text)) + "\"";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a map";
  }
  return "something else";
}

[[noreturn]] inline void wrong(const abi::Value& value, const std::string& path, const std::string& wanted) {
  throw WrongValue(path, "must be " + wanted + ", not " + told(value));
}

template <class T>
struct Want {};

// T: bool, integers, float, double, std::string, std::vector<T> (a single
// value is a list of one), std::map<std::string, T>.
template <class T>
T convert(const abi::Value& value, const std::string& path);

inline bool convert_to(const abi::Value& value, const std::string& path, Want<bool>) {
  if (value.kind != abi::Value::Kind::kBool) wrong(value, path, "true or false");
  return value.integer != 0;
}

template <std::integral T>
T convert_to(const abi::Value& value, const std::string& path, Want<T>) {
  if (value.kind != abi::Value::Kind::kInt) wrong(value, path, "an integer");
  if (!std::in_range<T>(value.integer)) {
    wrong(value, path,
          "between " + std::to_string(std::numeric_limits<T>::min()) + " and " +
              std::to_string(std::numeric_limits<T>::max()));
  }
  return static_cast<T>(value.integer);
}

template <std::floating_point T>
T convert_to(const abi::Value& value, const std::string& path, Want<T>) {
  if (value.kind == abi::Value::Kind::kInt) return static_cast<T>(value.integer);
  if (value.kind != abi::Value::Kind::kFloat) wrong(value, path, "a number");
  return static_cast<T>(value.real);
}

inline std::string convert_to(const abi::Value& value, const std::string& path, Want<std::string>) {
  if (value.kind != abi::Value::Kind::kText) wrong(value, path, "a text");
  return std::string(abi::view(value.text));
}

template <class T>
std::vector<T> convert_to(const abi::Value& value, const std::string& path, Want<std::vector<T>>) {
  if (value.kind != abi::Value::Kind::kList) return {convert<T>(value, path)};
  std::vector<T> list;
  for (std::size_t i = 0; i < value.count; ++i) {
    list.push_back(convert<T>(value.items[i], path + "[" + std::to_string(i) + "]"));
  }
  return list;
}

template <class T>
std::map<std::string, T> convert_to(const abi::Value& value, const std::string& path,
                                    Want<std::map<std::string, T>>) {
  if (value.kind != abi::Value::Kind::kMap) wrong(value, path, "a map");
  std::map<std::string, T> map;
  for (std::size_t i = 0; i < value.count; ++i) {
    const std::string name(abi::view(value.keys[i]));
    map.emplace(name, convert<T>(value.items[i], path + "." + name));
  }
  return map;
}

template <class T>
T convert(const abi::Value& value, const std::string& path) {
  return convert_to(value, path, Want<T>{});
}

// The entry of a map; nullptr when it is no map or has no such key.
inline const abi::Value* entry_of(const abi::Value& map, std::string_view key) {
  if (map.kind != abi::Value::Kind::kMap) return nullptr;
  for (std::size_t i = 0; i < map.count; ++i) {
    if (abi::view(map.keys[i]) == key) return &map.items[i];
  }
  return nullptr;
}

}  // namespace entry
}  // namespace sdk_v5
}  // namespace bulkhead
