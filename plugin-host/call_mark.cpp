#include "call_mark.h"

#include <cstdint>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

namespace bulkhead {
namespace {

constexpr std::string_view kScheme = "ipc://";

}  // namespace

CallMark::~CallMark() {
  if (file_ >= 0) ::close(file_);
}

void CallMark::open(const std::string& endpoint) {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
  if (!endpoint.starts_with(kScheme)) return;
  file_ = ::open((endpoint.substr(kScheme.size()) + ".call").c_str(), O_WRONLY | O_CLOEXEC);
}

void CallMark::begin(Seq seq) const {
  const std::int64_t number = seq.value;
  if (file_ < 0) return;
  [[maybe_unused]] const ssize_t written =
      ::pwrite(file_, &number, sizeof number, 0);  // a hint: nothing to be done
}

}  // namespace bulkhead
