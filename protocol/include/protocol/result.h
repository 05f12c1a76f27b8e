// The three kinds of error (CONTRIBUTING.md): the world failed → Result; a
// library threw → caught by its owner and made a Result; our bug → CHECK.
//
// Values only; any thread.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace bulkhead {

enum class ErrorCode {
  kUnavailable,  // the peer, file or process is not there
  kTimeout,      // a deadline passed
  kMalformed,    // bytes or text that do not follow their format
  kMismatch,     // well formed, but not what was agreed (version, shape, generation, key)
  kFailed,       // the other side did its work and reports failure
};

// "unavailable", "timeout", …
const char* name_of(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kFailed;
  std::string message;  // one sentence for a person

  friend bool operator==(const Error&, const Error&) = default;
};

// A value or an Error.  Reading the wrong side aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return require(), std::get<0>(state_); }
  const T& value() const& { return require(), std::get<0>(state_); }
  T&& value() && { return require(), std::move(std::get<0>(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const {
    if (ok()) std::abort();
    return std::get<1>(state_);
  }

 private:
  void require() const {
    if (ok()) return;
    std::fprintf(stderr, "Result read without a value: %s\n", std::get<1>(state_).message.c_str());
    std::abort();
  }
  std::variant<T, Error> state_;
};

struct Done {};
// The result of something that returns nothing.
using Status = Result<Done>;
inline Status ok_status() { return Done{}; }

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace bulkhead

// Our own invariant: aborts with file, line and message when it does not hold.
#define CHECK(condition, ...)                                                             \
  do {                                                                                    \
    if (!(condition)) [[unlikely]]                                                        \
      ::bulkhead::check_failed(__FILE__, __LINE__, #condition, std::string{__VA_ARGS__}); \
  } while (false)
