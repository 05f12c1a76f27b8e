// ctx.control: what a hook asks of the training loop.  Values only; the hook's
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "bulkhead/abi.h"

namespace bulkhead {
inline namespace sdk_v5 {

// Requests to the training loop, OR-merged over plugins and ranks.  They take
// effect at a fixed step, the same on every rank, however late the reply is.
class Control {
 public:
  // Ends the training in order; the reason goes into summary.json.
  void stop(std::string_view reason = {}) {
    if (!(flags_ & abi::kStop)) reason_ = reason;  // the first one counts
    flags_ |= abi::kStop;
  }
  void stop_epoch() { flags_ |= abi::kStopEpoch; }  // ends this epoch
  void save() { flags_ |= abi::kSave; }             // writes a checkpoint
  void validate() { flags_ |= abi::kValidate; }     // runs a validation
  void log() { flags_ |= abi::kLog; }               // logs this step's metrics

  std::uint32_t flags() const { return flags_; }
  const std::string& reason() const { return reason_; }

 private:
  std::uint32_t flags_ = 0;
  std::string reason_;
};

}  // namespace sdk_v5
}  // namespace bulkhead
