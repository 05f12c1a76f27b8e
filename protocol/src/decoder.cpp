#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include <msgpack.hpp>

#include "protocol/codec.h"
#include "protocol/places.h"
#include "visited.h"

namespace bulkhead {
namespace {

constexpr std::align_val_t kTensorAlignment{64};

std::size_t chunks_of(std::size_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }

// Thrown and caught in this file only.
struct Malformed {
  std::string message;
};

class Decoder {
 public:
  Decoder(const Frames& frames, Places* places) : frames_(frames), places_(places) {}

  template <class Body>
  void decode(const msgpack::object& envelope, Body& body) {
    read_fields(envelope, body);
    if (next_frame_ != frames_.size()) throw Malformed{"frames are left over"};
  }

 private:
  // The field that is being read, for the message of an error.
  struct Field {
    const Field* outer;
    const char* name;
  };

  [[noreturn]] void fail(const std::string& what) const {
    std::string path;
    for (const Field* field = field_; field != nullptr; field = field->outer)
      path = field->name + (path.empty() ? "" : "." + path);
    throw Malformed{(path.empty() ? "message" : path) + " " + what};
  }

  template <class Struct>
  void read_fields(const msgpack::object& object, Struct& value) {
    if (object.type != msgpack::type::MAP) fail("must be a map");
    std::uint32_t expected = 0;
    Struct::visit(value, [&](const char* name, auto& member) {
      const msgpack::object* found = find(object, name, expected);
      if (found == nullptr) return;  // keeps its default: an older peer does not know the field
      const Field here{field_, name};
      field_ = &here;
      read(*found, member);
      field_ = here.outer;
    });
  }

  static bool is_key(const msgpack::object_kv& entry, std::string_view name) {
    return entry.key.type == msgpack::type::STR &&
           std::string_view(entry.key.via.str.ptr, entry.key.via.str.size) == name;
  }

  // The value of a key.  Keys mostly come in the order in which they are asked
  // for: `expected` is where to look first, and then the place behind.
  static const msgpack::object* find(const msgpack::object& map, std::string_view name,
                                     std::uint32_t& expected) {
    const auto* entries = map.via.map.ptr;
    const std::uint32_t size = map.via.map.size;
    std::uint32_t at = expected;
    if (at >= size || !is_key(entries[at], name)) {
      for (at = 0; at < size && !is_key(entries[at], name); ++at) {
      }
    }
    if (at == size) return nullptr;
    expected = at + 1;
    return &entries[at].val;
  }

  void read(const msgpack::object& object, bool& value) {
    if (object.type != msgpack::type::BOOLEAN) fail("must be a boolean");
    value = object.via.boolean;
  }
  void read(const msgpack::object& object, std::int64_t& value) {
    if (object.type == msgpack::type::NEGATIVE_INTEGER) {
      value = object.via.i64;
    } else if (object.type == msgpack::type::POSITIVE_INTEGER &&
               object.via.u64 <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      value = static_cast<std::int64_t>(object.via.u64);
    } else {
      fail("must be a 64-bit signed integer");
    }
  }
  void read(const msgpack::object& object, double& value) {
    if (object.type == msgpack::type::FLOAT32 || object.type == msgpack::type::FLOAT64) {
      value = object.via.f64;
      return;
    }
    std::int64_t whole = 0;
    read(object, whole);
    value = static_cast<double>(whole);
  }
  void read(const msgpack::object& object, std::string& value) {
    if (object.type != msgpack::type::STR) fail("must be a string");
    value.assign(object.via.str.ptr, object.via.str.size);
  }
  void read(const msgpack::object& object, DType& dtype) {
    std::string name;
    read(object, name);
    const Result<DType> known = dtype_named(name);
    if (!known) fail(known.error().message);
    dtype = *known;
  }
  template <class Tag>
  void read(const msgpack::object& object, Id<Tag>& id) {
    read(object, id.value);
  }
  template <class T>
  void read(const msgpack::object& object, std::optional<T>& value) {
    if (object.type == msgpack::type::NIL) {
      value.reset();
    } else {
      read(object, value.emplace());
    }
  }
  template <class T>
  void read(const msgpack::object& object, std::vector<T>& values) {
    if (object.type != msgpack::type::ARRAY) fail("must be an array");
    if constexpr (std::is_same_v<T, Tensor>) {
      if (object.via.array.size > kMaxTensors) fail("holds too many tensors");
    }
    values.clear();
    for (std::uint32_t i = 0; i < object.via.array.size; ++i)
      read(object.via.array.ptr[i], values.emplace_back());
  }
  template <class T>
  void read(const msgpack::object& object, std::map<std::string, T>& values) {
    if (object.type != msgpack::type::MAP) fail("must be a map");
    values.clear();
    for (std::uint32_t i = 0; i < object.via.map.size; ++i) {
      std::string key;
      read(object.via.map.ptr[i].key, key);
      read(object.via.map.ptr[i].val, values[key]);
    }
  }
  template <Visited Struct>
  void read(const msgpack::object& object, Struct& value) {
    read_fields(object, value);
  }
  void read(const msgpack::object& object, Blob& blob) {
    if (object.type != msgpack::type::MAP) fail("must be a map");
    std::uint32_t expected = 0;
    const msgpack::object* bytes = find(object, "bytes", expected);
    std::int64_t size = 0;
    if (bytes == nullptr) fail("has no \"bytes\"");
    read(*bytes, size);
    if (size < 0) fail("has a negative size");
    blob = take_bytes(object, static_cast<std::size_t>(size), 1);
  }
  void read(const msgpack::object& object, Tensor& tensor) {
    if (object.type != msgpack::type::MAP) fail("must be a map");
    std::uint32_t expected = 0;
    const msgpack::object* name = find(object, "name", expected);
    const msgpack::object* dtype = find(object, "dtype", expected);
    const msgpack::object* shape = find(object, "shape", expected);
    if (name == nullptr || dtype == nullptr || shape == nullptr) fail("needs name, dtype and shape");
    read(*name, tensor.name);
    read(*dtype, tensor.dtype);
    read(*shape, tensor.shape);
    std::size_t size = checked_size(tensor);
    const msgpack::object* strides = find(object, "strides", expected);
    if (strides != nullptr && strides->type != msgpack::type::NIL) {
      read(*strides, tensor.strides);
      const Result<std::int64_t> span = span_bytes(tensor.dtype, tensor.shape, tensor.strides);
      if (!span) fail(span.error().message);
      size = static_cast<std::size_t>(*span);
      if (size == 0) tensor.strides.clear();
      if (!has_place(object)) fail("has strides, but lies in no shared memory");
    }
    tensor.bytes = take_bytes(object, size, static_cast<std::size_t>(size_bytes(tensor.dtype)));
  }
  std::size_t checked_size(const Tensor& tensor) const {
    if (tensor.shape.size() > kMaxDims) fail("has too many dimensions");
    std::int64_t size = size_bytes(tensor.dtype);
    for (const std::int64_t extent : tensor.shape) {
      if (extent < 0) fail("has a negative extent");
      if (__builtin_mul_overflow(size, extent, &size)) fail("is too large");
    }
    return static_cast<std::size_t>(size);
  }
  void read(const msgpack::object& object, Value& value) {
    switch (object.type) {
      case msgpack::type::NIL:
        value = nullptr;
        return;
      case msgpack::type::BOOLEAN:
        value = object.via.boolean;
        return;
      case msgpack::type::POSITIVE_INTEGER:
      case msgpack::type::NEGATIVE_INTEGER: {
        std::int64_t number = 0;
        read(object, number);
        value = number;
        return;
      }
      case msgpack::type::FLOAT32:
      case msgpack::type::FLOAT64:
        value = object.via.f64;
        return;
      case msgpack::type::STR:
        value = std::string(object.via.str.ptr, object.via.str.size);
        return;
      case msgpack::type::ARRAY:
        value = Value::array();
        for (std::uint32_t i = 0; i < object.via.array.size; ++i) {
          Value item;
          read(object.via.array.ptr[i], item);
          value.push_back(std::move(item));
        }
        return;
      case msgpack::type::MAP:
        value = Value::object();
        for (std::uint32_t i = 0; i < object.via.map.size; ++i) {
          std::string key;
          read(object.via.map.ptr[i].key, key);
          read(object.via.map.ptr[i].val, value[key]);
        }
        return;
      default:
        fail("has a type that is not carried");
    }
  }

  static bool has_place(const msgpack::object& object) {
    std::uint32_t expected = 0;
    const msgpack::object* at = find(object, "place", expected);
    return at != nullptr && at->type != msgpack::type::NIL;
  }

  // Where `object` says they are: in shared memory, else in the next frames.
  Blob take_bytes(const msgpack::object& object, std::size_t size, std::size_t alignment) {
    if (!has_place(object)) return take_frames(size);
    std::uint32_t expected = 3;
    const msgpack::object* at = find(object, "place", expected);
    if (places_ == nullptr) fail("names shared memory, of which there is none here");
    Place place;
    read(*at, place);
    if (place.offset % static_cast<std::int64_t>(alignment) != 0) fail("is not aligned");
    Result<Blob> bytes = places_->find(place, size);
    if (!bytes) fail("cannot be found: " + bytes.error().message);
    return std::move(*bytes);
  }

  // The next frames, `size` bytes in all, gathered in aligned memory.
  Blob take_frames(std::size_t size) {
    const std::size_t count = chunks_of(size);
    if (count > frames_.size() - next_frame_) fail("has fewer frames than its size says");
    std::size_t present = 0;
    for (std::size_t i = 0; i < count; ++i) present += frames_[next_frame_ + i].size;
    if (present != size) fail("has frames of another size than its shape says");
    std::shared_ptr<std::byte> owner(
        static_cast<std::byte*>(::operator new(std::max<std::size_t>(size, 1), kTensorAlignment)),
        [](std::byte* data) { ::operator delete(data, kTensorAlignment); });
    std::byte* to = owner.get();
    for (std::size_t i = 0; i < count; ++i) {
      const Blob& frame = frames_[next_frame_++];
      if (frame.size > 0) std::memcpy(to, frame.data, frame.size);
      to += frame.size;
    }
    return {owner, owner.get(), size};
  }

  const Frames& frames_;
  Places* places_;
  std::size_t next_frame_ = 1;
  const Field* field_ = nullptr;
};

template <std::size_t... I>
void decode_as(std::string_view type, const msgpack::object& envelope, const Frames& frames, Places* places,
               Message& message, std::index_sequence<I...>) {
  const auto attempt = [&]<class Body>(std::type_identity<Body>) {
    if (type != Body::kType) return false;
    Decoder(frames, places).decode(envelope, message.emplace<Body>());
    return true;
  };
  if (!(attempt(std::type_identity<std::variant_alternative_t<I, Message>>{}) || ...)) {
    throw Malformed{"\"" + std::string(type.substr(0, 64)) + "\" is not a message type"};
  }
}

std::string_view type_in(const msgpack::object& envelope) {
  if (envelope.type != msgpack::type::MAP) throw Malformed{"the envelope is not a map"};
  for (std::uint32_t i = 0; i < envelope.via.map.size; ++i) {
    const auto& [key, value] = envelope.via.map.ptr[i];
    if (key.type == msgpack::type::STR && std::string_view(key.via.str.ptr, key.via.str.size) == "type" &&
        value.type == msgpack::type::STR) {
      return {value.via.str.ptr, value.via.str.size};
    }
  }
  throw Malformed{"the envelope has no type"};
}

// The tree refers to the strings in the frame, which outlives it.
bool refer(msgpack::type::object_type, std::size_t, void*) { return true; }

}  // namespace

Result<Message> decode(const Frames& frames, Places* places) {
  if (frames.empty()) return Error{ErrorCode::kMalformed, "no frame"};
  if (frames.size() > kMaxFrames) return Error{ErrorCode::kMalformed, "too many frames"};
  for (const Blob& frame : frames) {
    if (frame.size > kMaxFrameBytes) return Error{ErrorCode::kMalformed, "a frame is too large"};
  }
  try {
    const msgpack::unpack_limit limit(kMaxItems, kMaxItems, kMaxTextBytes, kMaxTextBytes, 0, kMaxDepth);
    // Kept, so that a small message allocates nothing but what it holds.
    thread_local msgpack::zone zone;
    zone.clear();
    std::size_t end = 0;
    bool refers = false;
    const msgpack::object envelope =
        msgpack::unpack(zone, frames[0].text().data(), frames[0].size, end, refers, refer, nullptr, limit);
    if (end != frames[0].size) return Error{ErrorCode::kMalformed, "bytes are left over after the envelope"};
    Result<Message> message{Message()};
    decode_as(type_in(envelope), envelope, frames, places, *message,
              std::make_index_sequence<std::variant_size_v<Message>>{});
    return message;
  } catch (const Malformed& malformed) {
    return Error{ErrorCode::kMalformed, malformed.message};
  } catch (const std::exception& error) {  // msgpack-c's own, and bad_alloc
    return Error{ErrorCode::kMalformed, std::string("not an envelope: ") + error.what()};
  }
}

}  // namespace bulkhead
