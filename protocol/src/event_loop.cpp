#include "protocol/event_loop.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <zmq.h>

#include "protocol/result.h"

namespace bulkhead {
namespace {

struct Watch {
  int fd = -1;
  void* socket = nullptr;
  std::function<bool()> wants_write;
  EventLoop::Task ready;
};

struct Timer {
  std::uint64_t id;
  EventLoop::Task task;
};

}  // namespace

struct EventLoop::Handle::State {
  // Any thread, under `mutex`.
  std::mutex mutex;
  std::deque<Task> posted;
  bool woken = false;
  int wake_fd = -1;

  // The loop's thread only.
  std::uint64_t next_id = 1;
  std::map<std::uint64_t, std::shared_ptr<Watch>> watches;
  std::multimap<TimePoint, Timer> timers;
  bool stopping = false;

  std::atomic<std::thread::id> runner{};

  // Taken out first, destroyed after: what a task holds may cancel others.
  void cancel(std::uint64_t id) {
    if (watches.extract(id)) return;
    const auto found =
        std::find_if(timers.begin(), timers.end(), [&](const auto& entry) { return entry.second.id == id; });
    if (found != timers.end()) timers.extract(found);
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

EventLoop::EventLoop(const Clock& clock) : clock_(clock), state_(std::make_shared<Handle::State>()) {
  state_->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  CHECK(state_->wake_fd >= 0, std::strerror(errno));
}

EventLoop::~EventLoop() {
  std::deque<Task> unrun;
  {
    const std::lock_guard lock(state_->mutex);
    unrun.swap(state_->posted);
  }
  unrun.clear();
  // Swapped out first: what a task holds may cancel others.
  std::exchange(state_->watches, {}).clear();
  std::exchange(state_->timers, {}).clear();
  ::close(state_->wake_fd);
}

void EventLoop::post(Task task) {
  bool wake = false;
  {
    const std::lock_guard lock(state_->mutex);
    state_->posted.push_back(std::move(task));
    wake = !std::exchange(state_->woken, true);
  }
  if (!wake) return;
  const std::uint64_t one = 1;
  // Fails only when the counter is full: then the loop is awake anyway.
  [[maybe_unused]] const ssize_t written = ::write(state_->wake_fd, &one, sizeof one);
}

EventLoop::Handle EventLoop::watch_readable(int fd, Task ready) {
  CHECK(in_loop());
  const std::uint64_t id = state_->next_id++;
  state_->watches[id] = std::make_shared<Watch>(Watch{fd, nullptr, {}, std::move(ready)});
  return {state_, id};
}

EventLoop::Handle EventLoop::watch_socket(void* socket, std::function<bool()> wants_write, Task ready) {
  CHECK(in_loop());
  const std::uint64_t id = state_->next_id++;
  state_->watches[id] = std::make_shared<Watch>(Watch{-1, socket, std::move(wants_write), std::move(ready)});
  return {state_, id};
}

EventLoop::Handle EventLoop::call_at(TimePoint when, Task task) {
  CHECK(in_loop());
  const std::uint64_t id = state_->next_id++;
  state_->timers.emplace(when, Timer{id, std::move(task)});
  return {state_, id};
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
  while (!held && now() < deadline) {
    const Duration wait = deadline == TimePoint::max() ? Duration::max() : deadline - now();
    turn(clock_.is_real() ? wait : Duration::zero());
    held = done();
  }
  state_->runner = before;
  return held;
}

bool EventLoop::run_ready() {
  CHECK(in_loop());
  const std::thread::id before = state_->runner.exchange(std::this_thread::get_id());
  const bool worked = turn(Duration::zero());
  state_->runner = before;
  return worked;
}

bool EventLoop::turn(Duration longest_wait) {
  Handle::State& state = *state_;
  bool worked = false;

  std::deque<Task> tasks;
  {
    const std::lock_guard lock(state.mutex);
    tasks.swap(state.posted);
    state.woken = false;
  }
  // Run without the lock: a task may post.
  for (Task& task : tasks) {
    task();
    worked = true;
  }

  // Timers made in this turn wait for the next one: one that is due at once
  // must not keep the sockets waiting.
  const TimePoint time = now();
  const std::uint64_t newest = state.next_id;
  for (auto due = state.find_due(time, newest); due != state.timers.end();
       due = state.find_due(time, newest)) {
    const Task task = std::move(due->second.task);
    state.timers.erase(due);
    task();
    worked = true;
  }

  // What has just been done may be what the caller waits for: look again
  // before sleeping.
  if (worked) longest_wait = Duration::zero();
  if (const TimePoint next = next_timer(); next != TimePoint::max())
    longest_wait = std::min(longest_wait, next - now());

  std::vector<zmq_pollitem_t> items{{nullptr, state.wake_fd, ZMQ_POLLIN, 0}};
  std::vector<std::shared_ptr<Watch>> order{nullptr};
  std::vector<std::uint64_t> ids{0};
  for (const auto& [id, watch] : state.watches) {
    const bool write = watch->wants_write && watch->wants_write();
    items.push_back(
        {watch->socket, watch->fd, static_cast<short>(write ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN), 0});
    order.push_back(watch);
    ids.push_back(id);
  }
  // Rounded up: waking a little late is better than spinning to the deadline.
  const auto whole =
      std::chrono::ceil<std::chrono::milliseconds>(std::min<Duration>(longest_wait, std::chrono::hours(1)));
  const int ready = zmq_poll(items.data(), static_cast<int>(items.size()), std::max<long>(0, whole.count()));
  if (ready < 0) {
    CHECK(errno == EINTR, zmq_strerror(errno));
    return worked;
  }
  if (items[0].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(state.wake_fd, &count, sizeof count);
  }
  for (std::size_t i = 1; i < items.size(); ++i) {
    if (items[i].revents == 0 || !state.watches.contains(ids[i])) continue;  // ended by a callback before it
    order[i]->ready();
    worked = true;
  }
  return worked || items[0].revents != 0;
}

}  // namespace bulkhead
