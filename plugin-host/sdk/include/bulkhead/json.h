// A JSON value: rows of a data set.
//
//   bulkhead::Json preprocess(bulkhead::Json rows, bulkhead::Context&) override {
//     bulkhead::Json texts;
//     for (const bulkhead::Json& title : rows.at("title").items()) texts.push_back("Title: " + title.text());
//     rows["text"] = texts;
//     rows.erase("title");
//     return rows;
//   }
//
// Values, which own what they hold; any thread.  Every mistake (another kind, a
// key that is not there) is a std::invalid_argument that says what is there.
#pragma once

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

namespace bulkhead {
inline namespace sdk_v5 {

class Json {
 public:
  using Kind = abi::Value::Kind;
  using Entry = std::pair<std::string, Json>;

  Json() = default;  // null
  Json(std::nullptr_t) {}
  Json(bool value) : kind_(Kind::kBool), integer_(value ? 1 : 0) {}
  template <std::integral T>
  Json(T value) : kind_(Kind::kInt), integer_(static_cast<std::int64_t>(value)) {}
  template <std::floating_point T>
  Json(T value) : kind_(Kind::kFloat), real_(static_cast<double>(value)) {}
  template <std::convertible_to<std::string_view> T>
  Json(const T& value) : kind_(Kind::kText), text_(std::string_view(value)) {}
  static Json list(std::vector<Json> items = {}) {
    Json list;
    list.kind_ = Kind::kList;
    list.items_ = std::move(items);
    return list;
  }
  static Json map(std::initializer_list<Entry> entries = {}) {
    Json map;
    map.kind_ = Kind::kMap;
    for (const Entry& entry : entries) map[entry.first] = entry.second;
    return map;
  }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }
  bool is_text() const { return kind_ == Kind::kText; }
  bool is_list() const { return kind_ == Kind::kList; }
  bool is_map() const { return kind_ == Kind::kMap; }

  bool boolean() const { return need(Kind::kBool, "true or false"), integer_ != 0; }
  std::int64_t integer() const { return need(Kind::kInt, "an integer"), integer_; }
  double number() const { return kind_ == Kind::kInt ? static_cast<double>(integer_) : real(); }
  const std::string& text() const { return need(Kind::kText, "a text"), text_; }

  // Of a list or a map; 0 for all else.
  std::size_t size() const { return items_.size(); }

  // ----- Lists -----
  const std::vector<Json>& items() const { return need(Kind::kList, "a list"), items_; }
  const Json& at(std::size_t index) const {
    if (index < items().size()) return items_[index];
    throw std::invalid_argument("there is no item " + std::to_string(index) + " in a list of " +
                                std::to_string(items_.size()));
  }
  // Null becomes a list.
  void push_back(Json item) {
    become(Kind::kList, "a list");
    items_.push_back(std::move(item));
  }

  // ----- Maps: keys stay in the order in which they came -----
  const std::vector<std::string>& keys() const { return need(Kind::kMap, "a map"), keys_; }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  // nullptr when it is no map or has no such key.
  const Json* find(std::string_view key) const {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (keys_[i] == key) return &items_[i];
    }
    return nullptr;
  }
  template <std::convertible_to<std::string_view> T>
  const Json& at(const T& name) const {
    const std::string_view key(name);
    need(Kind::kMap, "a map");
    if (const Json* found = find(key)) return *found;
    std::string present;
    for (const std::string& other : keys_) present += (present.empty() ? "" : ", ") + other;
    throw std::invalid_argument("there is no \"" + std::string(key) + "\"; there is " +
                                (present.empty() ? "nothing" : present));
  }
  // Null becomes a map; a key that is not there is added, with null.
  Json& operator[](std::string_view key) {
    become(Kind::kMap, "a map");
    if (const Json* found = find(key)) return const_cast<Json&>(*found);
    keys_.emplace_back(key);
    return items_.emplace_back();
  }
  // Nothing where there is no such key.
  void erase(std::string_view key) {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (keys_[i] != key) continue;
      keys_.erase(keys_.begin() + static_cast<std::ptrdiff_t>(i));
      items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
  }

  // ----- For the host -----
  static Json of(const abi::Value& plain) {
    Json value;
    value.kind_ = plain.kind;
    value.integer_ = plain.integer;
    value.real_ = plain.real;
    value.text_ = abi::view(plain.text);
    for (std::size_t i = 0; i < plain.count; ++i) {
      value.items_.push_back(of(plain.items[i]));
      if (plain.kind == Kind::kMap) value.keys_.emplace_back(abi::view(plain.keys[i]));
    }
    return value;
  }

  void hand_over(const abi::Host& host) const {
    Plain kept;
    const abi::Value value = plain(kept);
    host.rows(host.self, &value);
  }

 private:
  // Deques: what is in them stays where it is while more is added.
  struct Plain {
    std::deque<std::vector<abi::Value>> lists;
    std::deque<std::vector<abi::Text>> keys;
  };

  abi::Value plain(Plain& kept) const {
    abi::Value value{};
    value.kind = kind_;
    value.integer = integer_;
    value.real = real_;
    value.text = abi::text(text_);
    if (kind_ != Kind::kList && kind_ != Kind::kMap) return value;
    std::vector<abi::Value>& items = kept.lists.emplace_back();
    std::vector<abi::Text>& keys = kept.keys.emplace_back();
    for (const Json& item : items_) items.push_back(item.plain(kept));
    for (const std::string& key : keys_) keys.push_back(abi::text(key));
    value.count = items.size();
    value.items = items.data();
    value.keys = keys.data();
    return value;
  }

  double real() const { return need(Kind::kFloat, "a number"), real_; }

  void need(Kind kind, const char* wanted) const {
    if (kind_ == kind) return;
    static constexpr const char* kNames[] = {"null",   "true or false", "an integer", "a number",
                                             "a text", "a list",        "a map"};
    throw std::invalid_argument("the value is " + std::string(kNames[static_cast<int>(kind_)]) + ", not " +
                                wanted);
  }

  void become(Kind kind, const char* wanted) {
    if (kind_ == Kind::kNull) kind_ = kind;
    need(kind, wanted);
  }

  Kind kind_ = Kind::kNull;
  std::int64_t integer_ = 0;
  double real_ = 0;
  std::string text_;
  std::vector<Json> items_;        // of a list or a map
  std::vector<std::string> keys_;  // of a map, beside items_
};

}  // namespace sdk_v5
}  // namespace bulkhead
