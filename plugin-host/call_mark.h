// Says in a file which call is begun, so that it is known after this process
// has died in it (protocol/README.md, "Calls").
//
// Where the worker made no such file it does nothing.  The loop thread only.
#pragma once

#include <string>

#include "protocol/ids.h"

namespace bulkhead {

class CallMark {
 public:
  CallMark() = default;
  ~CallMark();
  CallMark(const CallMark&) = delete;
  CallMark& operator=(const CallMark&) = delete;

  // From now on the file beside the socket of an ipc:// endpoint; the one before
  // is closed.  It is opened at the first call: by then the worker has made it.
  void be_beside(const std::string& endpoint);
  // This call begins now.  Costs one system call.
  void begin(Seq seq);

 private:
  std::string path_;  // still to be opened
  int file_ = -1;
};

}  // namespace bulkhead
