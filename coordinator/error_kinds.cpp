#include "error_kinds.h"

#include <algorithm>

namespace bulkhead {
namespace {

constexpr std::size_t kMostKinds = 32;
constexpr std::size_t kMostBytes = 200;
constexpr const char* kOthers = "other errors";

// The first line, cut between characters.
std::string kind_of(const std::string& reason) {
  std::size_t size = std::min(reason.find('\n'), reason.size());
  if (size > kMostBytes) {
    size = kMostBytes;
    while (size > 0 && (static_cast<unsigned char>(reason[size]) & 0xc0) == 0x80) --size;
    return reason.substr(0, size) + "…";
  }
  return reason.substr(0, size);
}

}  // namespace

bool ErrorKinds::add(const std::string& reason) {
  std::string kind = kind_of(reason);
  if (!counts_.contains(kind) && counts_.size() >= kMostKinds) kind = kOthers;
  return ++counts_[kind] == 1;
}

}  // namespace bulkhead
