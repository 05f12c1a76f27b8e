// Where the ranks of one run find each other: a small key-value store that
// rank 0 hosts and the others connect to (c10d's TCPStore).
//
// It carries addresses while groups are being formed and nothing after that.
// A value that shares the store; keep one alive for as long as its
// communicators.  Compute thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include <c10/util/intrusive_ptr.h>

#include "protocol/result.h"

namespace c10d {
class Store;
}

namespace bulkhead {

class Rendezvous {
 public:
  // None: all that a world of one rank needs.
  Rendezvous() = default;

  // Listens on `address` (IPv4 or a host name of this machine) and on `port`,
  // 0 = one that is free; see port().  A port in use is kUnavailable.
  static Result<Rendezvous> host(const std::string& address, std::uint16_t port,
                                 std::chrono::milliseconds timeout);

  // Connects to the store of rank 0, trying again until `timeout`.
  static Result<Rendezvous> connect(const std::string& address, std::uint16_t port,
                                    std::chrono::milliseconds timeout);

  // The port that the store listens on; 0 for none.
  std::uint16_t port() const;

  // Null for none.
  c10::intrusive_ptr<c10d::Store> store() const;

 private:
  struct State;
  explicit Rendezvous(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace bulkhead
