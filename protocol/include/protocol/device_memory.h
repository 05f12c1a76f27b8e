// Memory on one GPU that this process has beside torch's: blocks that other
// processes open by CUDA IPC, and blocks of its own for what came from them.
//
// What is shared is given away: a reader in another process can write to it at
// any time, so nothing that must stay is kept there (README.md, "On the GPU").
// All copies run on one stream, in the order in which they were asked for.  One
// thread, but for blobs of blocks (Blob::device), which any may read and release.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "protocol/arena.h"
#include "protocol/device_calls.h"
#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

// A GPU in this process: its context, and a stream of our own.  Any thread.
class Device {
 public:
  // `ordinal`: as CUDA counts.  kUnavailable, in a sentence, where it cannot be used.
  static Result<std::shared_ptr<const Device>> open(const DeviceCalls& calls, int ordinal);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceCalls& calls() const { return calls_; }
  int ordinal() const { return ordinal_; }
  const std::string& uuid() const { return uuid_; }  // 32 hexadecimal digits
  std::size_t total_bytes() const { return total_bytes_; }
  DeviceStream stream() const { return stream_; }
  // Makes this thread's next calls go to this GPU.
  Status enter() const;
  // The result of a call: "cannot DOING: …" where it is not 0.
  Status done(int result, const char* doing) const;
  // Waits for what was copied so far.
  Status settle() const;
  // Waits for an event of another process, which may have died before it came: not for ever.
  Status wait(DeviceEvent event, std::chrono::milliseconds patience) const;

 private:
  Device(const DeviceCalls& calls, int ordinal) : calls_(calls), ordinal_(ordinal) {}
  Status begin();

  const DeviceCalls calls_;
  const int ordinal_;
  std::string uuid_;
  std::size_t total_bytes_ = 0;
  void* context_ = nullptr;
  DeviceStream stream_ = nullptr;
};

// One allocation.  Two events go with it: `ready`, when what was copied into it
// is there, and `used`, when a reader on another stream has read it.
class DeviceBlock {
 public:
  static Result<std::shared_ptr<DeviceBlock>> allocate(std::shared_ptr<const Device> device, std::size_t size,
                                                       bool shared);
  ~DeviceBlock();
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  DeviceAddress address() const { return address_; }
  std::size_t size() const { return size_; }
  const Device& device() const { return *device_; }
  // Of a shared one: its name in this process, from −1 downwards, which no segment of host
  // memory has, and what opens it elsewhere.
  std::int64_t number() const { return number_; }
  const std::string& memory_handle() const { return memory_handle_; }
  const std::string& ready_handle() const { return ready_handle_; }

  // Queues a copy into it from host memory or its GPU's.  The source stays as it
  // is until the block is ready.
  Status fill(std::size_t offset, DeviceAddress source, std::size_t bytes);
  // What was filled in so far is what `ready` stands for.
  Status finish();
  // What is queued to `stream` from here on comes after `ready`; what was queued
  // until end_use(), before the block is filled anew.  Any thread.
  Status begin_use(DeviceStream stream) const;
  void end_use(DeviceStream stream) const;
  // The same bytes in host memory; waits for them.  Any thread.
  Result<Blob> to_host(const Blob& bytes) const;

 private:
  friend class DeviceMemory;
  DeviceBlock(std::shared_ptr<const Device> device, std::size_t size)
      : device_(std::move(device)), size_(size) {}
  Status begin(bool shared);

  const std::shared_ptr<const Device> device_;
  const std::size_t size_;
  DeviceAddress address_ = 0;
  std::int64_t number_ = 0;
  std::string memory_handle_, ready_handle_;
  DeviceEvent ready_ = nullptr;
  DeviceEvent used_ = nullptr;
  std::atomic<bool> taken_ = false;
};

// Gives out blocks and takes them back: what is freed is used again, since to
// free memory of a GPU can mean to wait for all that runs there.
class DeviceMemory {
 public:
  // `most_bytes`: of all blocks together.
  DeviceMemory(std::shared_ptr<const Device> device, std::size_t most_bytes)
      : device_(std::move(device)), most_bytes_(most_bytes) {}
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  const Device& device() const { return *device_; }

  // A shared block of at least `bytes`, for one reader; kUnavailable where there is no room.
  Result<std::shared_ptr<DeviceBlock>> take_shared(std::size_t bytes);
  // No other process has it any more.
  void put_back(std::shared_ptr<DeviceBlock> block) { idle_.push_back(std::move(block)); }
  // Copies a blob into it, as DeviceBlock::fill() does.
  Status fill(DeviceBlock& block, std::size_t offset, const Blob& source);
  // A copy of what lies in a shared block, in one of this process alone.  What is
  // filled into the shared block from here on comes after the copy.
  Result<Blob> keep(const DeviceBlock& block, std::size_t offset, std::size_t bytes);

 private:
  Result<std::shared_ptr<DeviceBlock>> allocate(std::size_t bytes, bool shared);
  void pin(const Segment& segment);

  const std::shared_ptr<const Device> device_;
  const std::size_t most_bytes_;
  std::size_t reserved_bytes_ = 0;
  std::vector<std::shared_ptr<DeviceBlock>> idle_;  // shared
  std::vector<std::shared_ptr<DeviceBlock>> own_;   // not shared; in use while taken
  // Segments whose copies need no staging, and those for which that was refused.
  std::map<std::shared_ptr<const Segment>, bool> pinned_;
};

// The batch with what lies on a GPU copied to host memory; the rest is shared.
// Waits for the copies.  A process whose own GPU fails it cannot go on.  Any thread.
Batch in_host_memory(Batch batch);

}  // namespace bulkhead
