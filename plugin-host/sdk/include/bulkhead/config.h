// What the hook `configure` reads and returns: the run's configuration, and the
// plugin's changes to it.
//
//   bulkhead::Changes configure(const bulkhead::Config& run, bulkhead::Context&) override {
//     return {{"optimizer.lr", 2 * run.require<double>("optimizer.lr")}, {"checkpoint.keep", 5}};
//   }
//
// A Config is valid inside its hook only, on its thread; Changes are values.
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/value.h"

namespace bulkhead {
inline namespace sdk_v5 {

// The map that run.yaml holds, with every default filled in and the changes of
// the plugins before this one.  A path is names and list indices with dots
// between them: "optimizer.lr", "plugins.0.name".
class Config {
 public:
  bool has(std::string_view path) const { return find(path) != nullptr; }

  // T as in Options::get.  Throws std::invalid_argument, naming the path, when
  // the value has another type.
  template <class T>
  T get(std::string_view path, T fallback) const {
    const abi::Value* value = find(path);
    return value == nullptr ? std::move(fallback) : convert<T>(*value, path);
  }
  std::string get(std::string_view path, const char* fallback) const {
    return get<std::string>(path, fallback);
  }

  // Also throws when there is no such path.
  template <class T>
  T require(std::string_view path) const {
    return convert<T>(at(path), path);
  }

  // Names of a map, in order; empty for what is none.  "" is the whole.
  std::vector<std::string> keys(std::string_view path = {}) const {
    std::vector<std::string> names;
    const abi::Value& map = at(path);
    for (std::size_t i = 0; map.kind == abi::Value::Kind::kMap && i < map.count; ++i) {
      names.emplace_back(abi::view(map.keys[i]));
    }
    return names;
  }

  // Entries of a list or map; 0 for what is neither.
  std::size_t size(std::string_view path = {}) const { return at(path).count; }

  // Made by the host, which keeps `root`.
  explicit Config(const abi::Value& root) : root_(root) {}
  Config(const Config&) = delete;
  Config& operator=(const Config&) = delete;

 private:
  const abi::Value* find(std::string_view path) const {
    const abi::Value* value = &root_;
    while (!path.empty() && value != nullptr) {
      const std::size_t dot = path.find('.');
      value = child(*value, path.substr(0, dot));
      path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
    }
    return value;
  }

  static const abi::Value* child(const abi::Value& value, std::string_view name) {
    if (value.kind != abi::Value::Kind::kList) return entry::entry_of(value, name);
    std::size_t index = 0;
    const char* end = name.data() + name.size();
    const auto [stopped, error] = std::from_chars(name.data(), end, index);
    return error == std::errc{} && stopped == end && index < value.count ? &value.items[index] : nullptr;
  }

  const abi::Value& at(std::string_view path) const {
    if (const abi::Value* value = find(path)) return *value;
    throw std::invalid_argument("the run's configuration has no " + std::string(path));
  }

  template <class T>
  static T convert(const abi::Value& value, std::string_view path) {
    try {
      return entry::convert<T>(value, std::string(path));
    } catch (const entry::WrongValue& wrong) {
      throw std::invalid_argument(wrong.where + " " + wrong.what());
    }
  }

  const abi::Value& root_;
};

// A value to write: nothing, a truth value, a number, a text, or a list of them.
class ConfigValue {
 public:
  ConfigValue(std::nullptr_t) : kind_(Kind::kNull) {}
  ConfigValue(bool value) : kind_(Kind::kBool), integer_(value ? 1 : 0) {}
  template <std::integral T>
  ConfigValue(T value) : kind_(Kind::kInt), integer_(static_cast<std::int64_t>(value)) {}
  template <std::floating_point T>
  ConfigValue(T value) : kind_(Kind::kFloat), real_(static_cast<double>(value)) {}
  template <std::convertible_to<std::string_view> T>
  ConfigValue(const T& value) : kind_(Kind::kText), text_(std::string_view(value)) {}
  template <class T>
  ConfigValue(const std::vector<T>& values) : kind_(Kind::kList), items_(values.begin(), values.end()) {}

  // For the host; `lists` keeps what the result points to, besides this value.
  abi::Value plain(std::deque<std::vector<abi::Value>>& lists) const {
    abi::Value value{};
    value.kind = kind_;
    value.integer = integer_;
    value.real = real_;
    value.text = abi::text(text_);
    if (kind_ == Kind::kList) {
      std::vector<abi::Value>& items = lists.emplace_back();
      for (const ConfigValue& item : items_) items.push_back(item.plain(lists));
      value.count = items.size();
      value.items = items.data();
    }
    return value;
  }

 private:
  using Kind = abi::Value::Kind;
  Kind kind_;
  std::int64_t integer_ = 0;
  double real_ = 0;
  std::string text_;
  std::vector<ConfigValue> items_;
};

// Dotted keys of the run file and their new values, checked like the run file
// itself: an unknown key or a value of the wrong type refuses the run.
class Changes {
 public:
  Changes() = default;
  Changes(std::initializer_list<std::pair<std::string, ConfigValue>> changes) : changes_(changes) {}

  // The last value of a key counts.
  Changes& set(std::string key, ConfigValue value) {
    std::erase_if(changes_, [&](const auto& change) { return change.first == key; });
    changes_.emplace_back(std::move(key), std::move(value));
    return *this;
  }

  bool empty() const { return changes_.empty(); }

  void hand_over(const abi::Host& host) const {
    std::deque<std::vector<abi::Value>> lists;
    std::vector<abi::Text> keys;
    std::vector<abi::Value> values;
    for (const auto& [key, value] : changes_) {
      keys.push_back(abi::text(key));
      values.push_back(value.plain(lists));
    }
    abi::Value map{};
    map.kind = abi::Value::Kind::kMap;
    map.count = values.size();
    map.items = values.data();
    map.keys = keys.data();
    host.configured(host.self, &map);
  }

 private:
  std::vector<std::pair<std::string, ConfigValue>> changes_;
};

}  // namespace sdk_v5
}  // namespace bulkhead
