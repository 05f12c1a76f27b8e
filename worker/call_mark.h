// Which call a host was in when it died: eight bytes in a file, which the host
// writes before each call and this rank reads after the death.
//
// Replies alone cannot tell: those that had not left the host's process are
// lost with it, and the oldest call without a reply need not be the guilty
// one.  The plugin can scribble on the file, so it is read, never mapped, and
// what it says is a hint.  The loop thread only.
#pragma once

#include <optional>
#include <string>

#include "protocol/ids.h"

namespace bulkhead {

class CallMark {
 public:
  // Makes the file beside the socket of an ipc:// endpoint.  Where that cannot
  // be done, or the endpoint is another, the mark says nothing for ever.
  explicit CallMark(const std::string& endpoint);
  ~CallMark();
  CallMark(const CallMark&) = delete;
  CallMark& operator=(const CallMark&) = delete;

  // The host has opened it; from now on only those two know it.
  void unlink();
  // The call that the host began last; nothing before its first.
  std::optional<Seq> last() const;

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace bulkhead
