#include "protocol/result.h"

#include <spdlog/spdlog.h>

namespace bulkhead {

const char* name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kTimeout:
      return "timeout";
    case ErrorCode::kMalformed:
      return "malformed";
    case ErrorCode::kMismatch:
      return "mismatch";
    case ErrorCode::kFailed:
      return "failed";
  }
  return "unknown";
}

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  spdlog::critical("CHECK failed at {}:{}: {}{}{}", file, line, condition, message.empty() ? "" : ": ",
                   message);
  spdlog::default_logger()->flush();
  std::abort();
}

}  // namespace bulkhead
