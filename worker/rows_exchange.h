// How the other ranks get the data set that rank 0 has made or read: they hear
// that it is at work, then how that ended, then the bytes, over the communicator
// and so on any machine.
//
// Collective: rank 0 sends, all others receive, at the same place.  Compute
// thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include <c10/core/Device.h>

#include "communicator.h"
#include "protocol/event_loop.h"
#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

// What came of it; `bytes` where `status` is "done".
struct RowsVerdict {
  std::string status = "done";  // done | refused | aborted | interrupted
  std::string reason;
  std::string key;  // the run file's, that the reason is about
  Blob bytes;
};

// Rank 0, while it works: tells the others so, more often than a collective's
// patience ends.  It does so whenever the compute thread runs its loop, as it
// does while it waits for a plugin.
class StillWorking {
 public:
  StillWorking(EventLoop& compute, Communicator& communicator,
               std::chrono::milliseconds pulse = std::chrono::seconds(20));

  // A rank that was lost meanwhile.
  const Status& status() const { return status_; }

 private:
  void say();

  EventLoop& compute_;
  Communicator& communicator_;
  std::chrono::milliseconds pulse_;
  Status status_ = ok_status();
  EventLoop::Handle timer_;
};

// `device`: on which the communicator takes tensors.
Status send_rows(Communicator& communicator, at::Device device, const RowsVerdict& verdict);
Result<RowsVerdict> receive_rows(Communicator& communicator, at::Device device);

}  // namespace bulkhead
