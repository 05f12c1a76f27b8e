// The other end of a ring in a process of its own, for tests.
//
//   ring_peer echo PATH [RING_BYTES]    connects, sends back what comes, ends when the channel does
//   ring_peer relay A B [RING_BYTES]    passes on what comes between two inherited sockets, until both have
//   ended
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "protocol/log.h"
#include "protocol/ring_channel.h"

namespace bulkhead {
namespace {

int failed(const Error& error) {
  spdlog::error("ring_peer: {}", error.message);
  return 1;
}

int echo(const std::string& path, RingOptions options) {
  EventLoop loop;
  auto channel = ring_connect(loop, path, options);
  if (!channel) return failed(channel.error());
  (*channel)->start(
      {[&](const Message& message) { (*channel)->send(message); }, [&](const Error&) { loop.stop(); }});
  loop.run();
  return 0;
}

int relay(int left_socket, int right_socket, RingOptions options) {
  EventLoop loop;
  auto left = ring_channel(loop, UniqueFd(left_socket), options);
  auto right = ring_channel(loop, UniqueFd(right_socket), options);
  if (!left) return failed(left.error());
  if (!right) return failed(right.error());
  int open = 2;
  const auto join = [&](Channel& from, Channel& to) {
    from.start({[&to](const Message& message) { to.send(message); },
                [&](const Error&) {
                  to.close();
                  if (--open == 0) loop.stop();
                }});
  };
  join(**left, **right);
  join(**right, **left);
  loop.run();
  return 0;
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  const int arguments = mode == "relay" ? 4 : 3;
  bulkhead::RingOptions options;
  if (argc > arguments) options.bytes = std::strtoul(argv[arguments], nullptr, 10);
  if (mode == "echo" && argc > 2) return bulkhead::echo(argv[2], options);
  if (mode == "relay" && argc > 3) return bulkhead::relay(std::atoi(argv[2]), std::atoi(argv[3]), options);
  return 2;
}
