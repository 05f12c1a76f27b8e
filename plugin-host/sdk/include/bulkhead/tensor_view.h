// A typed look at a tensor's elements: pointer, shape, strides.  It owns
// nothing and is valid until the hook that got it returns.  Where the elements
// lie on a GPU, data() is for kernels and CUDA's own calls: nothing here reads it.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bulkhead/dtype.h"

namespace bulkhead {
inline namespace sdk_v5 {

using Shape = std::vector<std::int64_t>;

// Number of elements.
inline std::int64_t count_of(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

// Strides, in elements, of a dense row-major tensor.
inline Shape dense_strides(const Shape& shape) {
  Shape strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

// "float32 [2, 3]"
inline std::string described(DType dtype, const Shape& shape) {
  std::string text = std::string(name_of(dtype)) + " [";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// T is const for a read-only view.
template <class T>
class TensorView {
 public:
  TensorView(T* data, Shape shape, Shape strides, int device = -1)
      : data_(data), shape_(std::move(shape)), strides_(std::move(strides)), device_(device) {}

  T* data() const { return data_; }
  int device() const { return device_; }  // −1: in this process's memory; else the GPU, as CUDA counts
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }  // in elements
  std::int64_t shape(std::size_t dim) const { return shape_.at(dim); }
  std::size_t dims() const { return shape_.size(); }
  std::int64_t size() const { return count_of(shape_); }

  // The element at these indices, one for each dimension; checked in debug
  // builds only.
  template <class... Index>
  T& operator()(Index... index) const {
    assert(sizeof...(index) == shape_.size() && device_ < 0);
    std::size_t dim = 0;
    std::int64_t offset = 0;
    const auto step = [&](std::int64_t i) {
      assert(i >= 0 && i < shape_[dim]);
      offset += i * strides_[dim++];
    };
    (step(static_cast<std::int64_t>(index)), ...);
    return data_[offset];
  }

  // The same elements with the dimensions in another order; a slice of one
  // dimension.  Nothing is copied.  std::out_of_range where there is no such
  // dimension or element.
  TensorView permuted(const std::vector<std::size_t>& order) const {
    Shape shape, strides;
    for (const std::size_t dim : order) {
      shape.push_back(shape_.at(dim));
      strides.push_back(strides_[dim]);
    }
    if (count_of(shape) != size() || order.size() != dims())
      throw std::out_of_range("an order names each dimension once");
    return {data_, std::move(shape), std::move(strides), device_};
  }
  TensorView sliced(std::size_t dim, std::int64_t first, std::int64_t count) const {
    if (first < 0 || count < 0 || first + count > shape(dim))
      throw std::out_of_range("a slice lies within its dimension");
    TensorView slice = *this;
    slice.data_ += first * strides_[dim];
    slice.shape_[dim] = count;
    return slice;
  }

  // True when the elements lie densely, in row-major order.
  bool is_contiguous() const {
    std::int64_t dense = 1;
    for (std::size_t i = shape_.size(); i-- > 0;) {
      if (shape_[i] != 1 && strides_[i] != dense) return size() == 0;
      dense *= shape_[i];
    }
    return true;
  }

  // All elements in row-major order.  Throws std::invalid_argument when the
  // view is not contiguous, as mutable views always are, or lies on a GPU.
  std::span<T> flat() const {
    if (device_ >= 0) throw std::invalid_argument("flat() needs elements in host memory; these lie on a GPU");
    if (!is_contiguous())
      throw std::invalid_argument("flat() needs a contiguous view; use indices or mutable_view");
    return {data_, static_cast<std::size_t>(size())};
  }

 private:
  T* data_;
  Shape shape_;
  Shape strides_;
  int device_;
};

}  // namespace sdk_v5
}  // namespace bulkhead
