#include "call_mark.h"

#include <cstdint>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

namespace bulkhead {
namespace {

constexpr std::string_view kScheme = "ipc://";

}  // namespace

CallMark::CallMark(const std::string& endpoint) {
  if (!endpoint.starts_with(kScheme)) return;
  path_ = endpoint.substr(kScheme.size()) + ".call";
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

CallMark::~CallMark() {
  if (file_ < 0) return;
  unlink();
  ::close(file_);
}

void CallMark::unlink() {
  if (file_ >= 0 && !path_.empty()) ::unlink(path_.c_str());
  path_.clear();
}

std::optional<Seq> CallMark::last() const {
  std::int64_t seq = 0;
  if (file_ < 0 || ::pread(file_, &seq, sizeof seq, 0) != sizeof seq) return std::nullopt;
  return Seq(seq);
}

}  // namespace bulkhead
