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
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/context.h"
#include "bulkhead/rng.h"
#include "bulkhead/value.h"

namespace bulkhead {
inline namespace sdk_v5 {

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
    return value == nullptr ? std::move(fallback) : convert<T>(*value, key);
  }
  std::string get(std::string_view key, const char* fallback) const {
    return get<std::string>(key, fallback);
  }

  // Without it the plugin cannot be.
  template <class T>
  T require(std::string_view key) const {
    const abi::Value* value = find(key);
    if (value == nullptr) throw OptionError(key, "with." + std::string(key) + " is required", unread());
    return convert<T>(*value, key);
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
  const abi::Value* find(std::string_view key) const {
    if (std::ranges::find(read_, key) == read_.end()) read_.emplace_back(key);
    return entry::entry_of(with_, key);
  }

  template <class T>
  static T convert(const abi::Value& value, std::string_view key) {
    try {
      return entry::convert<T>(value, std::string(key));
    } catch (const entry::WrongValue& wrong) {
      throw OptionError(key, "with." + wrong.where + " " + wrong.what());
    }
  }

  Facts facts_;
  const abi::Value& with_;
  mutable Philox rng_;
  mutable std::vector<std::string> read_;
};

}  // namespace sdk_v5
}  // namespace bulkhead
