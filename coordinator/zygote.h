// The parent of one Python plugin's hosts: a process that has imported what
// they import and forks one whenever it is asked (plugin-host/python,
// bulkhead/zygote.py, which says what goes over its socket).
//
// Never waits for it.  Used on the loop's thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>

#include "child_process.h"
#include "protocol/event_loop.h"
#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

class Zygote {
 public:
  // The pid of a child of this process, or why there is none.
  using Born = std::function<void(Result<pid_t>)>;

  // Starts it with `options`, whose `input` it sets.
  static Result<std::unique_ptr<Zygote>> start(EventLoop& loop, ChildOptions options);
  // Ends it.  Its children live on.
  ~Zygote();
  Zygote(const Zygote&) = delete;
  Zygote& operator=(const Zygote&) = delete;

  // Asks for a host: environment, log and limits of `options` count.  `born` is
  // called once, from the loop: also when the zygote ends first.  It may
  // destroy this object.
  void fork(const ChildOptions& options, Born born);
  // It answers no more: every later fork fails.
  bool is_gone() const { return gone_; }
  // A child may be among ours of which we have not heard yet.
  bool is_busy() const { return !waiting_.empty(); }
  pid_t pid() const { return process_ ? process_->pid() : 0; }

 private:
  explicit Zygote(EventLoop& loop) : loop_(loop) {}
  void answered();
  void lose(const std::string& why);

  EventLoop& loop_;
  UniqueFd socket_;
  std::optional<ChildProcess> process_;
  std::deque<Born> waiting_;
  bool gone_ = false;
  EventLoop::Handle watch_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bulkhead
