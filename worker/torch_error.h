// What torch and c10d throw, as Results.
//
// The files that own a part of torch (communicator, gradient reduction,
// optimizer, checkpoints) run it inside catching(); no exception leaves them.
// Any thread.
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "protocol/result.h"

namespace bulkhead {

// The exception being handled, as one sentence that begins with `doing`.
// Timeouts are kTimeout, everything else is `otherwise`.  Only in a catch block.
Error error_from_exception(const std::string& doing, ErrorCode otherwise);

// Runs `body`, which returns void, a Status or a Result; an exception becomes
// an Error "<doing> failed: <first line of the exception>".
template <class Body>
auto catching(const std::string& doing, ErrorCode otherwise, Body&& body) {
  using Returned = std::invoke_result_t<Body>;
  using Caught = std::conditional_t<std::is_void_v<Returned>, Status, Returned>;
  try {
    if constexpr (std::is_void_v<Returned>) {
      std::forward<Body>(body)();
      return Caught(Done{});
    } else {
      return Caught(std::forward<Body>(body)());
    }
  } catch (...) {
    return Caught(error_from_exception(doing, otherwise));
  }
}

}  // namespace bulkhead
