// One message of every type with every field set, and a text form to compare
// messages by.  Both go by visit(), so a new field needs nothing here.  The
// samples are the content of the golden files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "protocol/messages.h"

namespace bulkhead {

template <class T>
concept Visited = requires(T& value) {
  T::visit(value, [](const char*, auto&) {});
};

// Gives each field a value of its own, other than its default.
class Filler {
 public:
  template <class Struct>
  void fill(Struct& value) {
    Struct::visit(value, [&](const char* name, auto& member) {
      name_ = name;
      set(member);
    });
  }

 private:
  void set(bool& value) { value = !value; }
  // A fraction, a whole number, a negative zero, one beyond every integer: all are eight bytes behind cb.
  void set(double& value) {
    const std::array<double, 4> numbers{0.5 + static_cast<double>(++count_), 2.0, -0.0, 1e300};
    value = numbers[++doubles_ % numbers.size()];
  }
  void set(std::string& value) { value = name_ + " " + std::to_string(++count_); }
  // One for each of msgpack's integer formats.
  void set(std::int64_t& value) {
    static constexpr std::array<std::int64_t, 10> kNumbers{
        7, 200, 60'000, 4'000'000'000, 5'000'000'000'000, -5, -100, -30'000, -2'000'000'000, INT64_MIN};
    value = kNumbers[++count_ % kNumbers.size()];
  }
  template <class Tag>
  void set(Id<Tag>& id) {
    id.value = static_cast<std::int64_t>(++count_);
  }
  void set(Value& value) {
    value = {{"flag", true}, {"items", {1, -2, 2.5, "text", nullptr}}, {"nested", {{"key", name_}}}};
  }
  void set(DType& dtype) { dtype = DType::kInt16; }
  void set(Blob& blob) { blob = Blob::of(std::string("bytes of ") + name_); }
  void set(Batch& batch) {
    batch = {
        {"input_ids", DType::kInt64, {1, 2}, Blob::of(std::string("\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 16))},
        {"weight", DType::kFloat32, {}, Blob::of(std::string("\0\0\x80\x3f", 4))},
        {"none", DType::kBool, {0, 4}, Blob::of(std::string())}};
  }
  template <class T>
  void set(std::optional<T>& value) {
    set(value.emplace());
  }
  template <class T>
  void set(std::vector<T>& values) {
    const std::string name = name_;
    for (int i = 0; i < 2; ++i) {
      name_ = name;
      set(values.emplace_back());
    }
  }
  template <class T>
  void set(std::map<std::string, T>& values) {
    const std::string name = name_;
    for (const char* key : {"first", "second"}) {
      name_ = name;
      set(values[key]);
    }
  }
  template <Visited Struct>
  void set(Struct& value) {
    fill(value);
  }

  std::string name_;
  std::size_t count_ = 0;
  std::size_t doubles_ = 0;
};

template <class Body>
Body sample() {
  Body body;
  Filler().fill(body);
  if constexpr (std::is_same_v<Body, Hello>) body.magic = kMagic;
  return body;
}

inline std::vector<Message> all_samples() {
  return []<std::size_t... I>(std::index_sequence<I...>) {
    return std::vector<Message>{sample<std::variant_alternative_t<I, Message>>()...};
  }
  (std::make_index_sequence<std::variant_size_v<Message>>{});
}

// ----- Text -----

inline Value as_value(const Blob& blob) {
  Value bytes = Value::array();
  for (std::size_t i = 0; i < blob.size; ++i) bytes.push_back(std::to_integer<int>(blob.data[i]));
  return bytes;
}
inline Value as_value(const Value& value) { return value; }
inline Value as_value(bool value) { return value; }
inline Value as_value(std::int64_t value) { return value; }
inline Value as_value(double value) { return value; }
inline Value as_value(const std::string& value) { return value; }
template <class Tag>
Value as_value(Id<Tag> id) {
  return id.value;
}
inline Value as_value(DType dtype) { return name_of(dtype); }
inline Value as_value(const Tensor& tensor) {
  return {{"name", tensor.name},
          {"dtype", name_of(tensor.dtype)},
          {"shape", tensor.shape},
          {"strides", tensor.strides},
          {"bytes", as_value(tensor.bytes)}};
}
template <Visited Struct>
Value as_value(const Struct& value);
template <class T>
Value as_value(const std::optional<T>& value) {
  return value ? as_value(*value) : Value();
}
template <class T>
Value as_value(const std::vector<T>& values) {
  Value items = Value::array();
  for (const T& value : values) items.push_back(as_value(value));
  return items;
}
template <class T>
Value as_value(const std::map<std::string, T>& values) {
  Value items = Value::object();
  for (const auto& [key, value] : values) items[key] = as_value(value);
  return items;
}
template <Visited Struct>
Value as_value(const Struct& value) {
  Value fields = Value::object();
  Struct::visit(value, [&](const char* name, const auto& member) { fields[name] = as_value(member); });
  return fields;
}

// Equal texts, equal messages.
inline std::string text_of(const Message& message) {
  return std::string(type_of(message)) + " " +
         std::visit([](const auto& body) { return as_value(body).dump(); }, message);
}

}  // namespace bulkhead
