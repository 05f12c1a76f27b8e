// Messages to frames and back.  Frame 0 is the msgpack envelope, the frames
// after it are the bytes of its tensors and states, in envelope order, in
// pieces of at most kChunkBytes.
//
// decode() trusts nothing: every length has a limit (Limits), nothing throws,
// a malformed message is an Error and costs no more memory than its frames.
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <vector>

#include "protocol/messages.h"
#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

using Frames = std::vector<Blob>;

// README.md, "Limits", has the reasons.
inline constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxFrameBytes = std::size_t{4} << 20;  // of any frame, so of an envelope
inline constexpr std::size_t kMaxFrames = 65536;
inline constexpr std::size_t kMaxTensors = 4096;  // of one batch; weights are one
inline constexpr std::size_t kMaxDims = 8;
inline constexpr std::size_t kMaxItems = 65536;  // of an array or map
inline constexpr std::size_t kMaxDepth = 32;
inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20;  // of one string

class Places;  // places.h

// Bytes that lie in shared memory are named where `places` is given and can name
// them; else they go into frames.
//
// Never fails: a message that breaks a limit is our bug (CHECK), except for
// sizes that a plugin chose, which hosts check first.
Frames encode(const Message& message, Places* places = nullptr);

// Without `places` a message that names bytes in shared memory is malformed.
Result<Message> decode(const Frames& frames, Places* places = nullptr);

}  // namespace bulkhead
