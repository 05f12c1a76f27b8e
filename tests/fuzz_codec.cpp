// libFuzzer over decode(): whatever comes, it neither crashes nor leaks, and
// what it lets in has one meaning: encoded and decoded again it is the same.
//
// The peer has shown one segment, number 1, of 4 MiB, so places are found too.
//
// An input is a list of frames, each behind its length in two little-endian
// bytes; a length beyond the end means "the rest".
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "protocol/arena.h"
#include "protocol/codec.h"
#include "protocol/local_socket.h"
#include "protocol/places.h"

namespace {

bulkhead::Frames frames_in(const std::uint8_t* data, std::size_t size) {
  bulkhead::Frames frames;
  for (std::size_t at = 0; at + 2 <= size;) {
    const std::size_t wanted = data[at] | static_cast<std::size_t>(data[at + 1]) << 8;
    const std::size_t length = std::min(wanted, size - at - 2);
    frames.push_back(bulkhead::Blob::of(std::string(reinterpret_cast<const char*>(data) + at + 2, length)));
    at += 2 + length;
  }
  return frames;
}

// NaN is not equal to itself, and invalid UTF-8 has no JSON text: compare bytes.
std::string bytes_of(const bulkhead::Frames& frames) {
  std::string bytes;
  for (const bulkhead::Blob& frame : frames)
    bytes += std::to_string(frame.size) + ":" + std::string(frame.text());
  return bytes;
}

// A connection whose other side has named a piece of its memory.
struct Connection {
  bulkhead::Arena arena{std::size_t{64} << 20};
  std::optional<bulkhead::Places> peer, own;

  Connection() {
    auto sockets = bulkhead::local_pair();
    CHECK(sockets.ok());
    peer.emplace(std::move(sockets->first));
    own.emplace(std::move(sockets->second));
    peer->begin();
    const auto slot = arena.allocate(bulkhead::kWorthSharing);
    const bulkhead::Place expected{1, 0};
    CHECK(slot.ok() && peer->name(slot->blob()) == expected);
  }
};

bulkhead::Places& places() {
  static Connection connection;
  return *connection.own;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto message = bulkhead::decode(frames_in(data, size), &places());
  places().take_unused();
  if (!message) {
    CHECK(!message.error().message.empty());
    return 0;
  }
  const bulkhead::Frames once = bulkhead::encode(*message);
  const auto again = bulkhead::decode(once);
  CHECK(again.ok(), again.ok() ? "" : again.error().message);
  CHECK(bytes_of(bulkhead::encode(*again)) == bytes_of(once), "two encodings of one message");
  return 0;
}
