// The one thread of a process that owns sockets, timers and state machines.
//
// post(), post_lazily() and wake() are the only methods that may be called from
// another thread, and the only place in the code base with a mutex.  Everything else belongs to the
// thread that runs the loop.  A loop whose clock is not real never blocks and
// never sleeps: a test moves the time and calls run_ready().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "protocol/clock.h"

namespace bulkhead {

class EventLoop {
 public:
  // Ends a watch or a timer when it is destroyed or reset; harmless when the
  // timer has fired or the loop is gone.
  class Handle {
   public:
    Handle() = default;
    Handle(Handle&& other) noexcept;
    Handle& operator=(Handle&& other) noexcept;
    ~Handle() { reset(); }
    void reset();
    // For the watch of a ZeroMQ socket: whoever sends or receives on it outside
    // of `ready` says so here, or what came meanwhile is not noticed.
    void look_again();
    explicit operator bool() const { return id_ != 0; }

   private:
    friend class EventLoop;
    struct State;
    Handle(std::weak_ptr<State> state, std::uint64_t id) : state_(std::move(state)), id_(id) {}
    std::weak_ptr<State> state_;
    std::uint64_t id_ = 0;
  };
  using Task = std::function<void()>;

  static constexpr std::chrono::microseconds kMaxSpin{50};

  explicit EventLoop(const Clock& clock = steady_clock());
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Any thread: run `task` on the loop's thread, after everything posted
  // before.  Tasks posted after the loop ended are destroyed unrun.
  void post(Task task);
  // The same, but without waking the loop for it: it is woken by whatever comes
  // next, or by wake().
  void post_lazily(Task task);
  // Any thread: the loop runs what was posted.
  void wake();

  // Calls `ready` while the descriptor is readable.  The caller keeps fd open
  // for as long as the handle lives.
  [[nodiscard]] Handle watch_readable(int fd, Task ready);

  // Calls `rung` once for each time that something was written to an eventfd
  // since, or once for several.  Nobody has to read it.
  [[nodiscard]] Handle watch_bell(int fd, Task rung);

  // As watch_readable() for a ZeroMQ socket (void* of libzmq); also when writable while
  // `wants_write` says so.
  [[nodiscard]] Handle watch_socket(void* socket, std::function<bool()> wants_write, Task ready);

  // Once, at `when` or directly if that has passed.
  [[nodiscard]] Handle call_at(TimePoint when, Task task);
  [[nodiscard]] Handle call_after(Duration delay, Task task) {
    const TimePoint time = now();
    return call_at(delay < TimePoint::max() - time ? time + delay : TimePoint::max(), std::move(task));
  }

  // How long the loop goes on looking, without sleeping, when it has nothing left
  // to do; at most kMaxSpin, 0 at first.  Spares it the wake-up by what comes in
  // that time (some 50 us between two idle CPUs), at the price of a CPU's time:
  // only where cores are to spare.  Where the clock is not real it does nothing.
  void spin_for(Duration spin);

  // Runs until stop().
  void run();
  // Runs until `done` holds, or `deadline` has passed: then false.
  bool run_until(const std::function<bool()>& done, TimePoint deadline = TimePoint::max());
  // Runs what is ready now, without waiting; true if there was anything.
  bool run_ready();
  // From the loop's thread; other threads post it.
  void stop();

  // True on the thread that runs the loop, and on any thread while nobody runs
  // it.
  bool in_loop() const;

  TimePoint now() const { return clock_.now(); }
  const Clock& clock() const { return clock_; }
  // When the next timer is due; TimePoint::max() without one.
  TimePoint next_timer() const;

 private:
  bool turn(TimePoint until, bool may_wait);
  bool run_tasks();
  bool run_timers();
  bool poll_watches(TimePoint until, bool may_wait);

  const Clock& clock_;
  std::shared_ptr<Handle::State> state_;
};

}  // namespace bulkhead
