// The rank's GPU in this host: regions that the worker lends with its calls,
// and where they are not lent, room for copies (protocol/README.md, "On the
// GPU").  The loop's thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/device_memory.h"
#include "protocol/messages.h"

namespace bulkhead {

class DeviceGuest {
 public:
  // `device`: as the facts name the rank's, "cuda:0".  kUnavailable, in a sentence,
  // where it cannot be used.
  static Result<std::unique_ptr<DeviceGuest>> open(const std::string& device);

  // What the hello to a worker says of it.
  std::string capability() const { return std::string(kDevice) + device_->uuid(); }
  int ordinal() const { return device_->ordinal(); }

  // Makes the batch of a transform one whose tensors lie on the GPU, their bytes
  // not to be read here, and waits until they are there.  An error: the GPU does
  // not work for this process, or the worker has lied.
  Status begin(Call& call);
  // Between begin() and end(): memory behind the input, zeros; nothing where there is no room.
  std::optional<Slot> allocate(std::size_t bytes);
  // Waits for all that the plugin has queued and says where its outputs are.  An
  // error: the GPU has stopped working for this process.
  Status end(Reply& reply);
  // The worker has gone.
  void forget();

 private:
  struct Opened {
    DeviceAddress address = 0;
    DeviceEvent ready = nullptr;
  };

  explicit DeviceGuest(std::shared_ptr<const Device> device) : device_(std::move(device)) {}
  Status open_region(const Region& region);
  Status copy_in(const Batch& batch);
  // An output in host memory.
  Result<Tensor> copy_out(const Piece& piece) const;

  const std::shared_ptr<const Device> device_;
  std::map<std::int64_t, Opened> opened_;  // by the worker's number
  std::shared_ptr<DeviceBlock> own_;       // for copies
  // The call that runs.
  bool is_lent_ = false;
  DeviceAddress begin_ = 0;
  std::size_t size_ = 0;
  std::size_t used_ = 0;
  std::vector<Piece> inputs_;
};

}  // namespace bulkhead
