// Envelopes by hand, also such as encode() would never give.
#pragma once

#include <string>

#include "protocol/codec.h"

namespace bulkhead {

inline Frames envelope(const Value& value) {
  const auto bytes = Value::to_msgpack(value);
  return {Blob::of(std::string(bytes.begin(), bytes.end()))};
}

}  // namespace bulkhead
