#include "torch_error.h"

#include <exception>
#include <string_view>

#include <c10/util/Exception.h>

namespace bulkhead {
namespace {

// What c10d says when time is up, in its several spellings.
bool names_a_timeout(std::string_view text) {
  for (const std::string_view word : {"imed out", "imeout"}) {
    if (text.find(word) != std::string_view::npos) return true;
  }
  return false;
}

std::string text_of_current_exception() {
  try {
    throw;
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

}  // namespace

Error error_from_exception(const std::string& doing, ErrorCode otherwise) {
  std::string text = text_of_current_exception();
  const ErrorCode code = names_a_timeout(text) ? ErrorCode::kTimeout : otherwise;
  text.resize(std::min(text.find('\n'), text.size()));
  return Error{code, doing + " failed: " + text};
}

}  // namespace bulkhead
