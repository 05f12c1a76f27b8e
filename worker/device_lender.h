// What one plugin process is lent of the rank's GPU: a region for each call, in
// which its input lies and into which it may put its output.
//
// A region is the host's from the call to its reply, or longer where the plugin
// goes on looking at it.  Nothing is believed that a host says of one, and
// nothing in it is used in place: outputs are copied before anybody reads them.
// The loop thread only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "protocol/device_memory.h"
#include "protocol/messages.h"

namespace bulkhead {

class DeviceLender {
 public:
  explicit DeviceLender(DeviceMemory& memory) : memory_(memory) {}
  DeviceLender(const DeviceLender&) = delete;
  DeviceLender& operator=(const DeviceLender&) = delete;

  // Copies the input of `call` into a region, with as much room again for new
  // tensors, and says so in call.region instead of call.batch.  kUnavailable, and
  // the call as it was, where there is no room.
  Status lend(Call& call);

  // Takes the reply's outputs out of the call's region, as tensors of reply.batch,
  // and its end or its being held out of reply.held.  Floating point numbers and
  // pictures stay on the GPU, unless `all_to_host`; what must be checked before it
  // is used comes to host memory.  Malformed: it says what cannot be.
  Status take(Reply& reply, bool all_to_host);

  // Whether that is a region that was held, which it then no longer is.
  bool given_back(const Place& place);

  // Every block it ever had; the process must have ended before they are used again.
  std::vector<std::shared_ptr<DeviceBlock>> leave();

 private:
  struct Loan {
    std::shared_ptr<DeviceBlock> block;
    Batch sources;  // of the copies
  };
  Result<std::shared_ptr<DeviceBlock>> block_of(std::size_t bytes);
  Result<Tensor> output(const DeviceBlock& block, const Piece& piece, bool to_host);

  DeviceMemory& memory_;
  std::map<Seq, Loan> lent_;
  std::map<std::int64_t, std::shared_ptr<DeviceBlock>> held_;  // by number
  std::vector<std::shared_ptr<DeviceBlock>> idle_;             // the process has them open
};

}  // namespace bulkhead
