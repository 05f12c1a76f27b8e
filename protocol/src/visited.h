// A type whose fields visit() names (messages.h): what the codec takes apart.
#pragma once

namespace bulkhead {

template <class T>
concept Visited = requires(T& value) {
  T::visit(value, [](const char*, auto&) {});
};

}  // namespace bulkhead
