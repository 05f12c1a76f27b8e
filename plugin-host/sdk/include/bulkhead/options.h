// The constructor's arguments: the entry's `with` in the run file.
//
//   explicit EarlyStop(const bulkhead::Options& with)
//       : patience_(with.get("patience", 3)), path_(with.require<std::string>("path")) {}
//
// Reading a key makes it known: a key in the run file that the constructor has
// not read is refused, with the nearest known one.  A value of another type, or
// one that is reject()ed, is refused naming the key.  Valid during construction
// only.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/context.h"
#include "bulkhead/rng.h"

namespace bulkhead {
inline namespace sdk_v1 {

// An argument is wrong; the run is refused with this sentence.
struct OptionError : std::invalid_argument {
  OptionError(std::string_view wrong_key, const std::string& sentence, std::vector<std::string> others = {})
      : std::invalid_argument(sentence), key(wrong_key), candidates(std::move(others)) {}
  std::string key;
  std::vector<std::string> candidates;  // names that may have been meant
};

class Options {
 public:
  // T: bool, integers, float, double, std::string, std::vector<T> (a single
  // value is a list of one), std::map<std::string, T>.
  template <class T>
  T get(std::string_view key, T fallback) const {
    const abi::Value* value = find(key);
    return value == nullptr ? std::move(fallback) : convert<T>(*value, std::string(key));
  }
  std::string get(std::string_view key, const char* fallback) const {
    return get<std::string>(key, fallback);
  }

  // Without it the plugin cannot be.
  template <class T>
  T require(std::string_view key) const {
    const abi::Value* value = find(key);
    if (value == nullptr) throw OptionError(key, "with." + std::string(key) + " is required", unread());
    return convert<T>(*value, std::string(key));
  }

  bool has(std::string_view key) const { return find(key) != nullptr; }

  // For values of the right type that make no sense:
  //   if (p > 1) with.reject("p", "must be between 0 and 1");
  [[noreturn]] void reject(std::string_view key, std::string_view sentence) const {
    throw OptionError(key, "with." + std::string(key) + " " + std::string(sentence));
  }

  const Facts& facts() const { return facts_; }

  // Seeded like ctx.rng, as hook "__init__".
  Philox& rng() const { return rng_; }

  // Given in the run file, but not read so far.
  std::vector<std::string> unread() const {
    std::vector<std::string> keys;
    for (std::size_t i = 0; i < with_.count; ++i) {
      if (std::string key(abi::view(with_.keys[i])); std::ranges::find(read_, key) == read_.end())
        keys.push_back(key);
    }
    return keys;
  }
  const std::vector<std::string>& read() const { return read_; }

  // Made by the host, which keeps `with`.
  Options(const abi::Facts& facts, const abi::Value& with, const std::uint64_t key[2])
      : facts_(facts), with_(with), rng_({key[0], key[1]}) {}
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

 private:
  using Kind = abi::Value::Kind;

  const abi::Value* find(std::string_view key) const {
    if (std::ranges::find(read_, key) == read_.end()) read_.emplace_back(key);
    for (std::size_t i = 0; i < with_.count; ++i) {
      if (abi::view(with_.keys[i]) == key) return &with_.items[i];
    }
    return nullptr;
  }

  [[noreturn]] static void wrong(const abi::Value& value, const std::string& path,
                                 const std::string& wanted) {
    throw OptionError(path.substr(0, path.find_first_of(".[")),
                      "with." + path + " must be " + wanted + ", not " + told(value));
  }

  // The value in a person's words.
  static std::string told(const abi::Value& value) {
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

  template <class T>
  struct Want {};

  template <class T>
  static T convert(const abi::Value& value, const std::string& path) {
    return convert(value, path, Want<T>{});
  }

  static bool convert(const abi::Value& value, const std::string& path, Want<bool>) {
    if (value.kind != Kind::kBool) wrong(value, path, "true or false");
    return value.integer != 0;
  }

  template <std::integral T>
  static T convert(const abi::Value& value, const std::string& path, Want<T>) {
    if (value.kind != Kind::kInt) wrong(value, path, "an integer");
    if (!std::in_range<T>(value.integer)) {
      wrong(value, path,
            "between " + std::to_string(std::numeric_limits<T>::min()) + " and " +
                std::to_string(std::numeric_limits<T>::max()));
    }
    return static_cast<T>(value.integer);
  }

  template <std::floating_point T>
  static T convert(const abi::Value& value, const std::string& path, Want<T>) {
    if (value.kind == Kind::kInt) return static_cast<T>(value.integer);
    if (value.kind != Kind::kFloat) wrong(value, path, "a number");
    return static_cast<T>(value.real);
  }

  static std::string convert(const abi::Value& value, const std::string& path, Want<std::string>) {
    if (value.kind != Kind::kText) wrong(value, path, "a text");
    return std::string(abi::view(value.text));
  }

  template <class T>
  static std::vector<T> convert(const abi::Value& value, const std::string& path, Want<std::vector<T>>) {
    if (value.kind != Kind::kList) return {convert<T>(value, path)};
    std::vector<T> list;
    for (std::size_t i = 0; i < value.count; ++i) {
      list.push_back(convert<T>(value.items[i], path + "[" + std::to_string(i) + "]"));
    }
    return list;
  }

  template <class T>
  static std::map<std::string, T> convert(const abi::Value& value, const std::string& path,
                                          Want<std::map<std::string, T>>) {
    if (value.kind != Kind::kMap) wrong(value, path, "a map");
    std::map<std::string, T> map;
    for (std::size_t i = 0; i < value.count; ++i) {
      const std::string name(abi::view(value.keys[i]));
      map.emplace(name, convert<T>(value.items[i], path + "." + name));
    }
    return map;
  }

  Facts facts_;
  const abi::Value& with_;
  mutable Philox rng_;
  mutable std::vector<std::string> read_;
};

}  // namespace sdk_v1
}  // namespace bulkhead
