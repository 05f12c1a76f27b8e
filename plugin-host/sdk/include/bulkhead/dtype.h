// The element types of tensors and the C++ types they are read as.  float16 and
// bfloat16, which C++20 lacks, come as Half and BFloat16: 16 bits that convert
// to and from float.  Values only; any thread.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "bulkhead/abi.h"

namespace bulkhead {
inline namespace sdk_v5 {

using abi::DType;

// IEEE 754 binary16.
struct Half {
  std::uint16_t bits = 0;
  Half() = default;
  explicit Half(float value);  // rounds to nearest, ties to even
  operator float() const;
};

// The upper half of an IEEE 754 binary32.
struct BFloat16 {
  std::uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value);  // rounds to nearest, ties to even
  operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

// "float32", as numpy and torch spell it.
constexpr std::string_view name_of(DType dtype) {
  constexpr std::string_view kNames[] = {"bool",  "uint8",   "int8",     "int16",   "int32",
                                         "int64", "float16", "bfloat16", "float32", "float64"};
  return kNames[static_cast<std::int32_t>(dtype)];
}

constexpr std::int64_t size_bytes(DType dtype) {
  constexpr std::int64_t kSizes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
  return kSizes[static_cast<std::int32_t>(dtype)];
}

template <class T>
inline constexpr bool kNoTensorType = false;

// The element type that T (const or not) stands for.
template <class T>
constexpr DType dtype_of() {
  using Plain = std::remove_const_t<T>;
  if constexpr (std::same_as<Plain, bool>) {
    return DType::kBool;
  } else if constexpr (std::same_as<Plain, Half>) {
    return DType::kFloat16;
  } else if constexpr (std::same_as<Plain, BFloat16>) {
    return DType::kBFloat16;
  } else if constexpr (std::same_as<Plain, float>) {
    return DType::kFloat32;
  } else if constexpr (std::same_as<Plain, double>) {
    return DType::kFloat64;
  } else if constexpr (std::unsigned_integral<Plain> && sizeof(Plain) == 1) {
    return DType::kUInt8;
  } else if constexpr (std::signed_integral<Plain>) {
    return sizeof(Plain) == 1   ? DType::kInt8
           : sizeof(Plain) == 2 ? DType::kInt16
           : sizeof(Plain) == 4 ? DType::kInt32
                                : DType::kInt64;
  } else {
    static_assert(kNoTensorType<T>,
                  "tensors hold bool, uint8, int8, int16, int32, int64, Half, BFloat16, float or double");
  }
}

inline Half::operator float() const {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);  // infinities, NaN
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = static_cast<float>(fraction) * 0x1.0p-24f;  // zero and subnormals
  return sign != 0 ? -magnitude : magnitude;
}

inline Half::Half(float value) {
  const std::uint32_t raw = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = raw >> 16 & 0x8000u;
  const float magnitude = std::bit_cast<float>(raw & 0x7fffffffu);
  if (!(magnitude < 65520.0f)) {  // overflow, infinity, NaN
    bits = static_cast<std::uint16_t>(sign | 0x7c00u | (magnitude != magnitude ? 0x200u : 0u));
  } else if (magnitude < 0x1.0p-14f) {  // subnormal: this sum's last bit is worth 2^-24, so the adder rounds
    bits = static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(magnitude + 0.5f) - 0x3f000000u));
  } else {
    const std::uint32_t low = raw & 0x7fffffffu;
    const std::uint32_t rounded = low - (112u << 23) + 0xfffu + (low >> 13 & 1u);
    bits = static_cast<std::uint16_t>(sign | rounded >> 13);
  }
}

inline BFloat16::BFloat16(float value) {
  const std::uint32_t raw = std::bit_cast<std::uint32_t>(value);
  bits = value != value ? static_cast<std::uint16_t>(raw >> 16 | 0x40u)
                        : static_cast<std::uint16_t>((raw + 0x7fffu + (raw >> 16 & 1u)) >> 16);
}

}  // namespace sdk_v5
}  // namespace bulkhead
