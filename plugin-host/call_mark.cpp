#include "call_mark.h"

#include <cstdint>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>
#include <utility>

namespace bulkhead {
namespace {

constexpr std::string_view kScheme = "ipc://";

}  // namespace

CallMark::~CallMark() {
  if (file_ >= 0) ::close(file_);
}

void CallMark::be_beside(const std::string& endpoint) {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
  path_ = endpoint.starts_with(kScheme) ? endpoint.substr(kScheme.size()) + ".call" : "";
}

void CallMark::begin(Seq seq) {
  if (!path_.empty()) file_ = ::open(std::exchange(path_, {}).c_str(), O_WRONLY | O_CLOEXEC);
  if (file_ < 0) return;
  const std::int64_t number = seq.value;
  [[maybe_unused]] const ssize_t written =
      ::pwrite(file_, &number, sizeof number, 0);  // a hint: nothing to be done
}

}  // namespace bulkhead
