// Waits at a path for one process of this user, once.  Used on its loop's
// thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "protocol/event_loop.h"
#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

class LocalListener {
 public:
  // Calls on_peer once, from the loop; the callee may destroy the listener.  The
  // path must not exist; it is unlinked when the peer has come or the listener
  // goes.  Processes of other users are turned away.
  static Result<std::unique_ptr<LocalListener>> open(EventLoop& loop, const std::string& path,
                                                     std::function<void(UniqueFd)> on_peer);
  ~LocalListener();
  LocalListener(const LocalListener&) = delete;
  LocalListener& operator=(const LocalListener&) = delete;

 private:
  LocalListener(EventLoop& loop, UniqueFd socket, std::string path, std::function<void(UniqueFd)> on_peer);
  void ready();
  void stop();

  UniqueFd socket_;
  std::string path_;
  std::function<void(UniqueFd)> on_peer_;
  EventLoop::Handle watch_;
};

}  // namespace bulkhead
