// A batch: named tensors, seen through typed views.
//
// Reading costs nothing.  A tensor that is not touched travels no further: the
// rank keeps its own; nor does a piece of one (set()).  mutable_view() is
// writable and already the output, where it can without a copy.
// Views stay valid until the hook returns.  Every mistake (a name that is not
// there, another type) is a std::invalid_argument that says what is there.
//
// Text has `input_ids` and `labels`, int64 [N, T]; images `images`, float32
// [N, C, H, W], and `labels`, int64 [N]; csv `features`, float32 [N, F], and
// `labels`; captions `images` and `input_ids`; rows `input_ids` and `labels`,
// int64 [N, T] of another T each time.
//
// With `device: cuda` in the run file all of it lies on the rank's GPU (device()),
// and so does what add() makes.  There is nothing here that could copy on a GPU: a
// tensor is changed where it lies, by mutable_view() before any view() of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/dtype.h"
#include "bulkhead/tensor_view.h"

namespace bulkhead {
inline namespace sdk_v5 {

class Batch {
 public:
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Entry& entry : entries_) names.push_back(entry.name);
    return names;
  }
  bool has(std::string_view name) const { return find(name) != nullptr; }
  DType dtype(std::string_view name) const { return at(name).dtype; }
  const Shape& shape(std::string_view name) const { return at(name).shape; }
  // −1: its tensors lie in host memory; else on this GPU, as CUDA counts.
  int device() const { return device_; }

  // Read-only, without a copy; view<float> and view<const float> are the same.
  template <class T>
  TensorView<const std::remove_const_t<T>> view(std::string_view name) const {
    const Entry& entry = typed<T>(name);
    entry.was_seen = true;
    return {static_cast<const T*>(entry.data), entry.shape, entry.strides, device_};
  }

  // Writable and dense, filled with the input's elements; what is written goes
  // into the output.  A view() taken before goes on showing the input.
  template <class T>
  TensorView<T> mutable_view(std::string_view name) {
    Entry& entry = const_cast<Entry&>(typed<T>(name));
    if (!entry.storage || (entry.piece_of && !entry.in_place)) make_own(entry);
    return {static_cast<T*>(entry.storage.get()), entry.shape, entry.strides, device_};
  }

  // A new tensor, zeros; it replaces one of the same name.  At most 8
  // dimensions and 4,096 tensors.
  template <class T>
  TensorView<T> add(std::string_view name, const Shape& shape) {
    Entry entry{std::string(name), dtype_of<T>(), shape, dense_strides(shape), nullptr, nullptr, nullptr};
    allocate(entry);
    if (device_ < 0) std::memset(entry.storage.get(), 0, bytes_of(entry));
    T* data = static_cast<T*>(entry.storage.get());
    put(std::move(entry));
    return {data, shape, dense_strides(shape), device_};
  }

  // These elements as the tensor of that name.  What is a view() of an input, or a
  // slice or permutation of one, is not copied.
  template <class T>
  void set(std::string_view name, const TensorView<T>& view) {
    using Element = std::remove_const_t<T>;
    Entry entry{
        std::string(name), dtype_of<Element>(), view.shape(), view.strides(), view.data(), nullptr, nullptr};
    const auto* data = reinterpret_cast<const std::byte*>(view.data());
    for (const Input& input : inputs_) {
      if (data < input.data || data + span_of(view) > input.data + input.bytes) continue;
      entry.piece_of = input.name;
      entry.offset = data - input.data;
      entry.storage = {const_cast<std::byte*>(data), [](void*) {}};
      return put(std::move(entry));
    }
    copy_in(entry);
    put(std::move(entry));
  }

  void remove(std::string_view name) {
    retire(const_cast<Entry&>(at(name)));
    std::erase_if(entries_, [&](const Entry& entry) { return entry.name == name; });
  }

  // Those that were written to or added.
  std::vector<std::string> changed_names() const {
    std::vector<std::string> names;
    for (const Entry& entry : entries_) {
      if (entry.storage) names.push_back(entry.name);
    }
    return names;
  }

  // An empty one, to add() to.
  Batch() = default;

  // Made by the host, which keeps the inputs' memory, and gives that of outputs
  // where `host` is not null.  `device`: where all of that is.
  Batch(const abi::Tensor* tensors, std::size_t count, const abi::Host* host = nullptr, int device = -1)
      : host_(host), device_(device) {
    for (const abi::Tensor& tensor : std::span(tensors, count)) {
      const auto dims = static_cast<std::size_t>(tensor.dims);
      entries_.push_back(
          {std::string(abi::view(tensor.name)), tensor.dtype, Shape(tensor.shape, tensor.shape + dims),
           Shape(tensor.strides, tensor.strides + dims), tensor.data, tensor.writable, nullptr});
      const Entry& entry = entries_.back();
      inputs_.push_back({entry.name, static_cast<const std::byte*>(tensor.data),
                         span_of(entry.shape, entry.strides) * size_bytes(entry.dtype)});
    }
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  // After the hook: gives the host what changed and names what did not.
  void hand_over(const abi::Host& host) const {
    for (const Entry& entry : entries_) {
      if (!entry.storage) host.keep(host.self, abi::text(entry.name));
    }
    hand_over_changed(host);
  }

  void hand_over_changed(const abi::Host& host) const {
    for (const Entry& entry : entries_) {
      if (!entry.storage) continue;
      if (entry.piece_of) {
        const abi::Tensor piece{abi::text(entry.name),
                                entry.dtype,
                                static_cast<std::int32_t>(entry.shape.size()),
                                entry.shape.data(),
                                entry.strides.data(),
                                nullptr,
                                nullptr};
        host.piece(host.self, &piece, abi::text(*entry.piece_of), entry.offset);
        continue;
      }
      auto owner = std::make_unique<std::shared_ptr<void>>(entry.storage);
      const abi::Tensor tensor{abi::text(entry.name),
                               entry.dtype,
                               static_cast<std::int32_t>(entry.shape.size()),
                               entry.shape.data(),
                               entry.strides.data(),
                               entry.data,
                               nullptr};
      host.put(host.self, &tensor, owner.release(),
               [](void* kept) { delete static_cast<std::shared_ptr<void>*>(kept); });
    }
  }

 private:
  struct Entry {
    std::string name;
    DType dtype;
    Shape shape;
    Shape strides;
    const void* data;
    void* writable;                         // of an input that may be changed where it lies
    std::shared_ptr<void> storage;          // null: still the input's memory
    std::optional<std::string> piece_of{};  // the input whose memory it is
    std::int64_t offset = 0;                // in it, bytes
    bool in_place = false;                  // all of it, written to
    mutable bool was_seen = false;          // somebody may look at it as it came
  };
  struct Input {
    std::string name;
    const std::byte* data;
    std::int64_t bytes;
  };
  static constexpr std::align_val_t kAlignment{64};
  static constexpr std::int64_t kWorthSharing = 4096;  // bytes; smaller tensors are sent

  Entry* find(std::string_view name) {
    for (Entry& entry : entries_) {
      if (entry.name == name) return &entry;
    }
    return nullptr;
  }
  const Entry* find(std::string_view name) const { return const_cast<Batch*>(this)->find(name); }

  const Entry& at(std::string_view name) const {
    if (const Entry* entry = find(name)) return *entry;
    std::string present;
    for (const Entry& entry : entries_) present += (present.empty() ? "" : ", ") + entry.name;
    throw std::invalid_argument("the batch has no tensor \"" + std::string(name) + "\"; it has " +
                                (present.empty() ? "none" : present));
  }

  template <class T>
  const Entry& typed(std::string_view name) const {
    const Entry& entry = at(name);
    if (entry.dtype == dtype_of<T>()) return entry;
    throw std::invalid_argument("\"" + std::string(name) + "\" holds " + std::string(name_of(entry.dtype)) +
                                ", not " + std::string(name_of(dtype_of<T>())));
  }

  // Elements from the first to the last, which lie between them or not.
  static std::int64_t span_of(const Shape& shape, const Shape& strides) {
    std::int64_t last = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 0) return 0;
      last += (shape[i] - 1) * strides[i];
    }
    return last + 1;
  }
  template <class T>
  static std::int64_t span_of(const TensorView<T>& view) {
    return span_of(view.shape(), view.strides()) * static_cast<std::int64_t>(sizeof(T));
  }

  void put(Entry entry) {
    if (Entry* old = find(entry.name)) {
      retire(*old);
      *old = std::move(entry);
    } else {
      entries_.push_back(std::move(entry));
    }
  }

  // The entry is an output that can be written to, with the elements it had.
  void make_own(Entry& entry) {
    const bool may = entry.writable != nullptr && !entry.storage && !entry.was_seen &&
                     entry.strides == dense_strides(entry.shape);
    if (!may) {
      retire(entry);
      entry.piece_of.reset();
      return copy_in(entry);
    }
    entry.storage = {entry.writable, [](void*) {}};
    entry.data = entry.writable;
    entry.piece_of = entry.name;
    entry.in_place = true;
  }

  static std::size_t bytes_of(const Entry& entry) {
    return static_cast<std::size_t>(count_of(entry.shape) * size_bytes(entry.dtype));
  }

  void allocate(Entry& entry) const {
    std::int64_t bytes = size_bytes(entry.dtype);
    for (const std::int64_t extent : entry.shape) {
      if (extent < 0) throw std::invalid_argument("\"" + entry.name + "\" has a negative extent");
      if (__builtin_mul_overflow(bytes, extent, &bytes))
        throw std::invalid_argument("\"" + entry.name + "\" is too large");
    }
    if (host_ != nullptr && (bytes >= kWorthSharing || device_ >= 0)) {
      const abi::Memory given = host_->allocate(host_->self, static_cast<std::size_t>(bytes));
      if (given.data != nullptr) {
        entry.storage = {given.data, [given](void*) { given.release(given.owner); }};
        entry.data = given.data;
        return;
      }
    }
    if (device_ >= 0)
      throw std::length_error("\"" + entry.name + "\": the region on the GPU has no room for " +
                              std::to_string(bytes) + " bytes more");
    // One byte at least, so that an empty tensor of the plugin's is not taken for the input.
    void* memory = ::operator new(static_cast<std::size_t>(bytes) + 1, kAlignment);
    entry.storage = {memory, [](void* data) { ::operator delete(data, kAlignment); }};
    entry.data = memory;
  }

  void copy_in(Entry& entry) const {
    if (device_ >= 0)
      throw std::invalid_argument(
          "\"" + entry.name + "\" cannot be copied on a GPU: take mutable_view() before any view() of it");
    const Entry input = entry;
    allocate(entry);
    entry.strides = dense_strides(entry.shape);
    if (input.strides == entry.strides) {
      std::memcpy(entry.storage.get(), input.data, bytes_of(entry));
      return;
    }
    auto* to = static_cast<std::byte*>(entry.storage.get());
    gather(input, 0, static_cast<const std::byte*>(input.data), to);
  }

  // Copies from dimension `dim` on, element by element, and moves `to` along.
  static void gather(const Entry& input, std::size_t dim, const std::byte* from, std::byte*& to) {
    const std::int64_t element = size_bytes(input.dtype);
    if (dim == input.shape.size()) {
      std::memcpy(to, from, static_cast<std::size_t>(element));
      to += element;
      return;
    }
    for (std::int64_t i = 0; i < input.shape[dim]; ++i) {
      gather(input, dim + 1, from + i * input.strides[dim] * element, to);
    }
  }

  // Views of what was replaced stay valid too.
  void retire(Entry& entry) {
    if (entry.storage) retired_.push_back(std::move(entry.storage));
  }

  const abi::Host* host_ = nullptr;
  int device_ = -1;
  std::vector<Input> inputs_;
  std::vector<Entry> entries_;
  std::vector<std::shared_ptr<void>> retired_;
};

}  // namespace sdk_v5
}  // namespace bulkhead
