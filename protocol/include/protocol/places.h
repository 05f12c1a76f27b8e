// Places instead of bytes, for one connection between two processes of one
// machine: what lies in shared memory is named in a message, not sent.
//
// Beside the channel runs a local socket, over which each side shows the other
// the segments that it names, once each and before it names them (README.md,
// "Shared memory").  One thread; only leases may end on any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "protocol/arena.h"
#include "protocol/result.h"
#include "protocol/tensor.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

class Places {
 public:
  // What a peer may show: more is malformed.
  static constexpr std::size_t kMostSegments = 4096;
  static constexpr std::size_t kMostBytes = std::size_t{1} << 40;

  // `socket`: connected, SOCK_SEQPACKET (local_socket.h).
  explicit Places(UniqueFd socket);

  // ----- Sending -----
  // The peer is there and takes names from here on; before, nothing is named.
  void begin() { begun_ = true; }
  // Where the peer finds these bytes; nothing when they are in no segment or the
  // peer does not take it: then they are sent.  They stay as they are until they
  // are given back, once for each time they were named.
  std::optional<Place> name(const Blob& bytes);
  // What was named since the last time.
  std::vector<Place> take_named() { return std::exchange(just_named_, {}); }
  // The peer reads these no more.  Malformed when they were not named.
  Status given_back(const std::vector<Place>& places);
  // Segments shown that have gone here, since the last time.
  std::vector<std::int64_t> take_gone();

  // ----- Receiving -----
  // The bytes that the peer has named.  Malformed when it has not shown that
  // segment, or they are not in it.
  Result<Blob> find(Place place, std::size_t bytes);
  // What find() has given and nobody has any more, since the last time.
  std::vector<Place> take_unused();
  // Segments of the peer that have gone there.  What is still read stays.
  void gone(const std::vector<std::int64_t>& segments);

 private:
  class Leases;
  struct Named {
    Blob bytes;
    int times = 0;
  };

  Status receive_shown();

  UniqueFd socket_;
  bool begun_ = false;
  std::map<std::int64_t, std::weak_ptr<const Segment>> shown_;
  std::map<Place, Named> named_;
  std::vector<Place> just_named_;
  std::map<std::int64_t, std::shared_ptr<Segment>> peers_;
  std::size_t peers_bytes_ = 0;
  std::shared_ptr<Leases> leases_;
};

}  // namespace bulkhead
