#include "protocol/event_loop.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <zmq.h>

#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {
namespace {

struct Watch {
  UniqueFd own_fd = {};    // a copy, where another watch has the same descriptor
  int fd = -1;             // what epoll knows
  void* socket = nullptr;  // of ZeroMQ; `fd` is then its ZMQ_FD
  std::function<bool()> wants_write = {};
  EventLoop::Task ready = {};

  // ZMQ_FD tells of a change only once, and any use of the socket takes that
  // away: from then on until there is nothing, libzmq itself has to be asked.
  bool must_ask = true;

  // Of a ZeroMQ socket: whether there is something to do.
  bool ask() {
    if (!must_ask) return false;
    int events = 0;
    std::size_t size = sizeof events;
    CHECK(zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0, zmq_strerror(errno));
    must_ask = (events & ZMQ_POLLIN) != 0 || ((events & ZMQ_POLLOUT) != 0 && wants_write && wants_write());
    return must_ask;
  }
};

struct Timer {
  std::uint64_t id;
  EventLoop::Task task;
};

// What epoll says of the loop's own descriptors; watches have the ids between.
constexpr std::uint64_t kWakeId = 0;
constexpr std::uint64_t kClockId = ~std::uint64_t{0};
constexpr int kEventsPerTurn = 64;

int epoll_add(int epoll, int fd, std::uint32_t how, std::uint64_t id) {
  epoll_event event{};
  event.events = how;
  event.data.u64 = id;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

struct EventLoop::Handle::State {
  // Any thread, under `mutex`.
  std::mutex mutex;
  std::vector<Task> posted;
  bool woken = false;
  UniqueFd wake_fd{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};  // never read: epoll tells each write once

  // The loop's thread only.
  UniqueFd epoll{epoll_create1(EPOLL_CLOEXEC)};
  // Set only when the next time to wake at changes: a timeout of epoll_wait
  // would be set up in every turn.
  UniqueFd clock_fd{timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
  TimePoint clock_set_to = TimePoint::max();
  std::uint64_t next_id = 1;
  std::map<std::uint64_t, std::shared_ptr<Watch>> watches;
  std::map<std::uint64_t, std::shared_ptr<Watch>> sockets;  // those of ZeroMQ
  std::multimap<TimePoint, Timer> timers;
  bool stopping = false;
  Duration spin{0};
  // Kept from turn to turn so that a turn allocates nothing; each turn takes
  // them out, for a task may run the loop itself.
  std::vector<Task> spare_tasks;
  std::vector<std::uint64_t> spare_ids;

  std::atomic<std::thread::id> runner{};

  State() {
    CHECK(wake_fd && epoll && clock_fd, std::strerror(errno));
    CHECK(epoll_add(epoll.get(), wake_fd.get(), EPOLLIN | EPOLLET, kWakeId) == 0);
    CHECK(epoll_add(epoll.get(), clock_fd.get(), EPOLLIN | EPOLLET, kClockId) == 0);
  }

  std::uint64_t add(Watch watch, std::uint32_t how) {
    const std::uint64_t id = next_id++;
    if (epoll_add(epoll.get(), watch.fd, how, id) != 0) {
      CHECK(errno == EEXIST, std::strerror(errno));
      watch.own_fd = UniqueFd(::fcntl(watch.fd, F_DUPFD_CLOEXEC, 0));
      watch.fd = watch.own_fd.get();
      CHECK(epoll_add(epoll.get(), watch.fd, how, id) == 0, std::strerror(errno));
    }
    const auto shared = watches[id] = std::make_shared<Watch>(std::move(watch));
    if (shared->socket != nullptr) sockets[id] = shared;
    return id;
  }

  // Taken out first, destroyed after: what a task holds may cancel others.
  void cancel(std::uint64_t id) {
    if (const auto watch = watches.extract(id)) {
      const auto socket = sockets.extract(id);
      // Fails where the descriptor was closed before: then it is gone already.
      ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, watch.mapped()->fd, nullptr);
      return;
    }
    const auto found =
        std::find_if(timers.begin(), timers.end(), [&](const auto& entry) { return entry.second.id == id; });
    if (found != timers.end()) timers.extract(found);
  }

  // Waits until `until` at the latest; the ids of what is ready go to `due`.
  // True when the loop was woken.
  bool wait(TimePoint until, bool may_wait, std::vector<std::uint64_t>& due) {
    if (may_wait && until != TimePoint::max()) set_clock(until);
    std::array<epoll_event, kEventsPerTurn> events;
    const auto look = [&](int timeout) {
      const int found = ::epoll_wait(epoll.get(), events.data(), kEventsPerTurn, timeout);
      CHECK(found >= 0 || errno == EINTR, std::strerror(errno));
      return found;
    };
    int count = look(may_wait && spin == Duration{0} ? -1 : 0);
    if (may_wait && spin > Duration{0}) {
      const TimePoint sleep_at = steady_clock().now() + spin;
      while (count == 0 && steady_clock().now() < sleep_at) count = look(0);
      if (count == 0) count = look(-1);
    }
    bool woke = false;
    for (int i = 0; i < count; ++i) {
      const std::uint64_t id = events[static_cast<std::size_t>(i)].data.u64;
      if (id == kWakeId) {
        woke = true;
      } else if (id == kClockId) {
        clock_set_to = TimePoint::max();
      } else {
        due.push_back(id);
      }
    }
    return woke;
  }

  void set_clock(TimePoint when) {
    if (when == clock_set_to) return;
    clock_set_to = when;
    const Duration since = std::max(when.time_since_epoch(), Duration(1));  // 0 would switch it off
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
    const itimerspec time{
        {}, {static_cast<time_t>(seconds.count()), static_cast<long>((since - seconds).count())}};
    CHECK(::timerfd_settime(clock_fd.get(), TFD_TIMER_ABSTIME, &time, nullptr) == 0, std::strerror(errno));
  }

  // The first timer that is due at `time` and older than `newest`.
  auto find_due(TimePoint time, std::uint64_t newest) {
    const auto end = timers.upper_bound(time);
    const auto found =
        std::find_if(timers.begin(), end, [&](const auto& entry) { return entry.second.id < newest; });
    return found == end ? timers.end() : found;
  }
};

EventLoop::Handle::Handle(Handle&& other) noexcept
    : state_(std::move(other.state_)), id_(std::exchange(other.id_, 0)) {}

EventLoop::Handle& EventLoop::Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    state_ = std::move(other.state_);
    id_ = std::exchange(other.id_, 0);
  }
  return *this;
}

void EventLoop::Handle::reset() {
  if (id_ == 0) return;
  if (const auto state = state_.lock()) state->cancel(id_);
  id_ = 0;
}

void EventLoop::Handle::look_again() {
  const auto state = state_.lock();
  if (!state) return;
  const auto found = state->watches.find(id_);
  if (found != state->watches.end()) found->second->must_ask = true;
}

EventLoop::EventLoop(const Clock& clock) : clock_(clock), state_(std::make_shared<Handle::State>()) {}

EventLoop::~EventLoop() {
  std::vector<Task> unrun;
  {
    const std::lock_guard lock(state_->mutex);
    unrun.swap(state_->posted);
  }
  unrun.clear();
  // Swapped out first: what a task holds may cancel others.
  std::exchange(state_->sockets, {}).clear();
  std::exchange(state_->watches, {}).clear();
  std::exchange(state_->timers, {}).clear();
}

void EventLoop::post(Task task) {
  post_lazily(std::move(task));
  wake();
}

void EventLoop::wake() {
  bool asleep = false;
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->posted.empty()) asleep = !std::exchange(state_->woken, true);
  }
  if (!asleep) return;
  const std::uint64_t one = 1;
  // Fails only when the counter is full: then the loop is awake anyway.
  [[maybe_unused]] const ssize_t written = ::write(state_->wake_fd.get(), &one, sizeof one);
}

void EventLoop::post_lazily(Task task) {
  const std::lock_guard lock(state_->mutex);
  state_->posted.push_back(std::move(task));
}

EventLoop::Handle EventLoop::watch_readable(int fd, Task ready) {
  CHECK(in_loop());
  return {state_, state_->add({.fd = fd, .ready = std::move(ready)}, EPOLLIN)};
}

EventLoop::Handle EventLoop::watch_bell(int fd, Task rung) {
  CHECK(in_loop());
  return {state_, state_->add({.fd = fd, .ready = std::move(rung)}, EPOLLIN | EPOLLET)};
}

EventLoop::Handle EventLoop::watch_socket(void* socket, std::function<bool()> wants_write, Task ready) {
  CHECK(in_loop());
  int fd = -1;
  std::size_t size = sizeof fd;
  CHECK(zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0, zmq_strerror(errno));
  Watch watch{.fd = fd, .socket = socket, .wants_write = std::move(wants_write), .ready = std::move(ready)};
  return {state_, state_->add(std::move(watch), EPOLLIN)};
}

EventLoop::Handle EventLoop::call_at(TimePoint when, Task task) {
  CHECK(in_loop());
  const std::uint64_t id = state_->next_id++;
  state_->timers.emplace(when, Timer{id, std::move(task)});
  return {state_, id};
}

void EventLoop::spin_for(Duration spin) {
  CHECK(in_loop());
  state_->spin = std::clamp(spin, Duration{0}, Duration{kMaxSpin});
}

void EventLoop::stop() {
  CHECK(in_loop());
  state_->stopping = true;
}

bool EventLoop::in_loop() const {
  const std::thread::id runner = state_->runner.load();
  return runner == std::thread::id{} || runner == std::this_thread::get_id();
}

TimePoint EventLoop::next_timer() const {
  return state_->timers.empty() ? TimePoint::max() : state_->timers.begin()->first;
}

void EventLoop::run() {
  run_until([this] { return std::exchange(state_->stopping, false); });
}

bool EventLoop::run_until(const std::function<bool()>& done, TimePoint deadline) {
  CHECK(in_loop());
  const std::thread::id before = state_->runner.exchange(std::this_thread::get_id());
  bool held = done();
  while (!held && (deadline == TimePoint::max() || now() < deadline)) {
    turn(deadline, clock_.is_real());
    held = done();
  }
  state_->runner = before;
  return held;
}

bool EventLoop::run_ready() {
  CHECK(in_loop());
  const std::thread::id before = state_->runner.exchange(std::this_thread::get_id());
  const bool worked = turn(now(), false);
  state_->runner = before;
  return worked;
}

bool EventLoop::turn(TimePoint until, bool may_wait) {
  bool worked = run_tasks();
  worked |= run_timers();
  // What has just been done may be what the caller waits for: look again
  // before sleeping.
  return poll_watches(std::min(until, next_timer()), may_wait && !worked) || worked;
}

bool EventLoop::run_tasks() {
  Handle::State& state = *state_;
  std::vector<Task> tasks = std::move(state.spare_tasks);
  {
    const std::lock_guard lock(state.mutex);
    tasks.swap(state.posted);
    state.woken = false;
  }
  // Run without the lock: a task may post.
  for (Task& task : tasks) task();
  const bool worked = !tasks.empty();
  tasks.clear();
  state.spare_tasks = std::move(tasks);
  return worked;
}

// Timers made in this turn wait for the next one: one that is due at once
// must not keep the sockets waiting.
bool EventLoop::run_timers() {
  Handle::State& state = *state_;
  if (state.timers.empty()) return false;
  bool worked = false;
  const TimePoint time = now();
  const std::uint64_t newest = state.next_id;
  for (auto due = state.find_due(time, newest); due != state.timers.end();
       due = state.find_due(time, newest)) {
    const Task task = std::move(due->second.task);
    state.timers.erase(due);
    task();
    worked = true;
  }
  return worked;
}

bool EventLoop::poll_watches(TimePoint until, bool may_wait) {
  Handle::State& state = *state_;
  std::vector<std::uint64_t> due = std::move(state.spare_ids);
  due.clear();
  for (const auto& [id, watch] : state.sockets) {
    if (watch->ask()) due.push_back(id);
  }
  bool worked = state.wait(until, may_wait && due.empty(), due);
  // In the order of their making, each once.
  std::sort(due.begin(), due.end());
  due.erase(std::unique(due.begin(), due.end()), due.end());
  for (const std::uint64_t id : due) {
    const auto found = state.watches.find(id);
    if (found == state.watches.end()) continue;  // ended by a callback before it
    const std::shared_ptr<Watch> watch = found->second;
    if (watch->socket != nullptr) {
      watch->must_ask = true;
      if (!watch->ask()) continue;
      watch->must_ask = true;  // `ready` uses the socket
    }
    watch->ready();
    worked = true;
  }
  state.spare_ids = std::move(due);
  return worked;
}

}  // namespace bulkhead
