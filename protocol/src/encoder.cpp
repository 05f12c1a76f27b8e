#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

#include <msgpack.hpp>

#include "protocol/codec.h"
#include "protocol/places.h"
#include "visited.h"

namespace bulkhead {
namespace {

// Where the envelope grows; most fit without an allocation.
class Buffer {
 public:
  std::size_t size() const { return size_; }

  // As msgpack::packer writes.
  void write(const char* from, std::size_t size) {
    if (size > capacity_ - size_) [[unlikely]]
      grow(size);
    std::memcpy(data_ + size_, from, size);
    size_ += size;
  }
  // A string of up to 31 bytes, as nearly every key is.
  void write_short(std::string_view text) {
    if (text.size() + 1 > capacity_ - size_) [[unlikely]]
      grow(text.size() + 1);
    data_[size_] = static_cast<char>(0xA0 | text.size());
    std::memcpy(data_ + size_ + 1, text.data(), text.size());
    size_ += text.size() + 1;
  }
  Blob to_blob() const {
    const auto owner = std::make_shared_for_overwrite<std::byte[]>(size_);
    std::memcpy(owner.get(), data_, size_);
    return {owner, owner.get(), size_};
  }

 private:
  void grow(std::size_t by) {
    const std::size_t capacity = std::max(2 * capacity_, size_ + by);
    auto larger = std::make_unique_for_overwrite<char[]>(capacity);
    std::memcpy(larger.get(), data_, size_);
    large_ = std::move(larger);
    data_ = large_.get();
    capacity_ = capacity;
  }

  std::array<char, 1024> small_;
  std::unique_ptr<char[]> large_;
  char* data_ = small_.data();
  std::size_t size_ = 0;
  std::size_t capacity_ = small_.size();
};

using Packer = msgpack::packer<Buffer>;

class Encoder {
 public:
  explicit Encoder(Places* places) : places_(places) {}

  template <class Body>
  Frames encode(const Body& body) {
    frames_.emplace_back();
    std::uint32_t fields = 1;
    Body::visit(body, [&](const char*, const auto&) { ++fields; });
    packer_.pack_map(fields);
    put("type");
    put(Body::kType);
    put_fields(body);
    CHECK(buffer_.size() <= kMaxFrameBytes, "an envelope of " + std::to_string(buffer_.size()) + " bytes");
    CHECK(frames_.size() <= kMaxFrames, "a message of " + std::to_string(frames_.size()) + " frames");
    frames_[0] = buffer_.to_blob();
    return std::move(frames_);
  }

 private:
  template <class Struct>
  void put_fields(const Struct& value) {
    Struct::visit(value, [&](const char* name, const auto& member) {
      put(std::string_view(name));
      put(member);
    });
  }

  void put(bool value) { packer_.pack(value); }
  void put(std::int64_t value) { packer_.pack(value); }
  // By hand: msgpack-c writes a double without fraction as an integer, which
  // loses −0.0 and whatever lies beyond 2⁶³.
  void put(double value) {
    char bytes[9] = {static_cast<char>(0xCB)};
    const auto bits = std::bit_cast<std::uint64_t>(value);
    for (int i = 0; i < 8; ++i) bytes[1 + i] = static_cast<char>(bits >> (56 - 8 * i));
    buffer_.write(bytes, sizeof bytes);
  }
  void put(DType dtype) { put(name_of(dtype)); }
  void put(const char* text) { put(std::string_view(text)); }
  void put(const std::string& text) { put(std::string_view(text)); }
  void put(std::string_view value) {
    if (value.size() < 32) return buffer_.write_short(value);
    CHECK(value.size() <= kMaxTextBytes, "a string of " + std::to_string(value.size()) + " bytes");
    packer_.pack_str(static_cast<std::uint32_t>(value.size()));
    packer_.pack_str_body(value.data(), static_cast<std::uint32_t>(value.size()));
  }
  template <class Tag>
  void put(Id<Tag> id) {
    packer_.pack(id.value);
  }
  template <class T>
  void put(const std::optional<T>& value) {
    if (value) {
      put(*value);
    } else {
      packer_.pack_nil();
    }
  }
  template <class T>
  void put(const std::vector<T>& values) {
    start_array(values.size(), std::is_same_v<T, Tensor> ? kMaxTensors : kMaxItems);
    for (const T& value : values) put(value);
  }
  template <class T>
  void put(const std::map<std::string, T>& values) {
    start_map(values.size());
    for (const auto& [key, value] : values) {
      put(key);
      put(value);
    }
  }
  template <Visited Struct>
  void put(const Struct& value) {
    std::uint32_t fields = 0;
    Struct::visit(value, [&](const char*, const auto&) { ++fields; });
    packer_.pack_map(fields);
    put_fields(value);
  }
  void put(const Blob& blob) {
    const std::optional<Place> place = place_of(blob);
    packer_.pack_map(place ? 2 : 1);
    put("bytes");
    put(static_cast<std::int64_t>(blob.size));
    add_bytes(blob, place);
  }
  void put(const Tensor& tensor) {
    const std::optional<Place> place = place_of(tensor.bytes);
    if (!place && !tensor.strides.empty()) return put(dense(tensor));
    packer_.pack_map(3 + (place ? 1 : 0) + (tensor.strides.empty() ? 0 : 1));
    put("name");
    put(tensor.name);
    put("dtype");
    put(tensor.dtype);
    put("shape");
    CHECK(tensor.shape.size() <= kMaxDims, tensor.name);
    put(tensor.shape);
    if (tensor.strides.empty()) {
      CHECK(tensor.size_bytes() == static_cast<std::int64_t>(tensor.bytes.size), tensor.name);
    } else {
      put("strides");
      put(tensor.strides);
    }
    add_bytes(tensor.bytes, place);
  }
  void put(const Value& value) {
    switch (value.type()) {
      case Value::value_t::boolean:
        return put(value.get<bool>());
      case Value::value_t::number_integer:
      case Value::value_t::number_unsigned:
        return put(value.get<std::int64_t>());
      case Value::value_t::number_float:
        return put(value.get<double>());
      case Value::value_t::string:
        return put(value.get_ref<const std::string&>());
      case Value::value_t::array:
        start_array(value.size(), kMaxItems);
        for (const Value& item : value) put(item);
        return;
      case Value::value_t::object:
        start_map(value.size());
        for (const auto& [key, item] : value.items()) {
          put(key);
          put(item);
        }
        return;
      default:
        packer_.pack_nil();
    }
  }

  void start_array(std::size_t size, std::size_t most) {
    CHECK(size <= most, "an array of " + std::to_string(size) + " items");
    packer_.pack_array(static_cast<std::uint32_t>(size));
  }
  void start_map(std::size_t size) {
    CHECK(size <= kMaxItems, "a map of " + std::to_string(size) + " items");
    packer_.pack_map(static_cast<std::uint32_t>(size));
  }

  std::optional<Place> place_of(const Blob& blob) {
    return places_ == nullptr ? std::nullopt : places_->name(blob);
  }

  void add_bytes(const Blob& blob, const std::optional<Place>& place) {
    if (place) {
      put("place");
      return put(*place);
    }
    for (std::size_t at = 0; at < blob.size; at += kChunkBytes) {
      frames_.push_back({blob.owner, blob.data + at, std::min(kChunkBytes, blob.size - at)});
    }
  }

  Places* places_;
  Buffer buffer_;
  Packer packer_{buffer_};
  Frames frames_;
};

}  // namespace

Frames encode(const Message& message, Places* places) {
  return std::visit([&](const auto& body) { return Encoder(places).encode(body); }, message);
}

}  // namespace bulkhead
