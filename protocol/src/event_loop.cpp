#include "protocol/event_loop.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <poll.h>
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
  void* socket = nullptr;  // of ZeroMQ; `fd` is then its ZMQ_FD
  std::function<bool()> wants_write = {};
  EventLoop::Task ready = {};

  bool ended = false;
  // ZMQ_FD tells of a change only once, and any use of the socket takes that
  // away: from then on until there is nothing, libzmq itself has to be asked.
  bool must_ask = true;

  // Of a ZeroMQ socket: whether there is something to do, as poll() says of
  // other descriptors.
  bool ask() {
    if (!must_ask) return false;
    int events = 0;
    std::size_t size = sizeof events;
    CHECK(zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0, zmq_strerror(errno));
    must_ask = (events & ZMQ_POLLIN) != 0 || ((events & ZMQ_POLLOUT) != 0 && wants_write && wants_write());
    return must_ask;
  }
};

// What poll() gets, made anew only when the watches have changed.
struct PollSet {
  std::vector<pollfd> items;                    // the first is wake_fd
  std::vector<std::shared_ptr<Watch>> watches;  // of the items behind it
};

timespec timespec_of(Duration duration) {
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(duration);
  return {static_cast<time_t>(whole.count()), static_cast<long>((duration - whole).count())};
}

struct Timer {
  std::uint64_t id;
  EventLoop::Task task;
};

}  // namespace

struct EventLoop::Handle::State {
  // Any thread, under `mutex`.
  std::mutex mutex;
  std::vector<Task> posted;
  bool woken = false;
  int wake_fd = -1;

  // The loop's thread only.
  std::uint64_t next_id = 1;
  std::map<std::uint64_t, std::shared_ptr<Watch>> watches;
  std::multimap<TimePoint, Timer> timers;
  bool stopping = false;
  // Kept from turn to turn so that a turn allocates nothing; each turn takes
  // them out, for a task may run the loop itself.
  std::vector<Task> spare_tasks;
  std::unique_ptr<PollSet> poll_set;  // nullptr when `watches` has changed
  std::uint64_t changes = 0;          // of `watches`

  std::atomic<std::thread::id> runner{};

  // Taken out first, destroyed after: what a task holds may cancel others.
  void cancel(std::uint64_t id) {
    if (const auto watch = watches.extract(id)) {
      watch.mapped()->ended = true;
      watches_changed();
      return;
    }
    const auto found =
        std::find_if(timers.begin(), timers.end(), [&](const auto& entry) { return entry.second.id == id; });
    if (found != timers.end()) timers.extract(found);
  }

  std::uint64_t add(Watch watch) {
    watches_changed();
    const std::uint64_t id = next_id++;
    watches[id] = std::make_shared<Watch>(std::move(watch));
    return id;
  }

  void watches_changed() {
    ++changes;
    poll_set.reset();
  }

  std::unique_ptr<PollSet> take_poll_set() {
    if (poll_set) return std::move(poll_set);
    auto set = std::make_unique<PollSet>();
    set->items.push_back({wake_fd, POLLIN, 0});
    for (const auto& [id, watch] : watches) {
      set->items.push_back({watch->fd, POLLIN, 0});
      set->watches.push_back(watch);
    }
    return set;
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

EventLoop::EventLoop(const Clock& clock) : clock_(clock), state_(std::make_shared<Handle::State>()) {
  state_->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  CHECK(state_->wake_fd >= 0, std::strerror(errno));
}

EventLoop::~EventLoop() {
  std::vector<Task> unrun;
  {
    const std::lock_guard lock(state_->mutex);
    unrun.swap(state_->posted);
  }
  unrun.clear();
  // Swapped out first: what a task holds may cancel others.
  state_->poll_set.reset();
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
  return {state_, state_->add({.fd = fd, .ready = std::move(ready)})};
}

EventLoop::Handle EventLoop::watch_socket(void* socket, std::function<bool()> wants_write, Task ready) {
  CHECK(in_loop());
  int fd = -1;
  std::size_t size = sizeof fd;
  CHECK(zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0, zmq_strerror(errno));
  return {
      state_,
      state_->add(
          {.fd = fd, .socket = socket, .wants_write = std::move(wants_write), .ready = std::move(ready)})};
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
  while (!held) {
    Duration wait = Duration::max();
    if (deadline != TimePoint::max()) {
      wait = deadline - now();
      if (wait <= Duration::zero()) break;
    }
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
  bool worked = run_tasks();
  worked |= run_timers();
  // What has just been done may be what the caller waits for: look again
  // before sleeping.
  if (worked) longest_wait = Duration::zero();
  if (const TimePoint next = next_timer(); next != TimePoint::max())
    longest_wait = std::min(longest_wait, next - now());
  return poll_watches(longest_wait) || worked;
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

bool EventLoop::poll_watches(Duration longest_wait) {
  Handle::State& state = *state_;
  std::unique_ptr<PollSet> set = state.take_poll_set();
  const std::uint64_t changes = state.changes;
  for (const auto& watch : set->watches) {
    if (watch->socket != nullptr && watch->ask()) longest_wait = Duration::zero();
  }
  const timespec wait =
      timespec_of(std::clamp<Duration>(longest_wait, Duration::zero(), std::chrono::hours(1)));
  if (::ppoll(set->items.data(), set->items.size(), &wait, nullptr) < 0) {
    CHECK(errno == EINTR, std::strerror(errno));
    for (pollfd& item : set->items) item.revents = 0;
  }
  bool worked = set->items[0].revents != 0;
  if (worked) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(state.wake_fd, &count, sizeof count);
  }
  for (std::size_t i = 0; i < set->watches.size(); ++i) {
    Watch& watch = *set->watches[i];
    if (watch.ended) continue;  // by a callback before it
    if (watch.socket != nullptr) {
      watch.must_ask |= set->items[i + 1].revents != 0;
      if (!watch.ask()) continue;
      watch.must_ask = true;  // `ready` uses the socket
    } else if (set->items[i + 1].revents == 0) {
      continue;
    }
    watch.ready();
    worked = true;
  }
  if (state.changes == changes && !state.poll_set) state.poll_set = std::move(set);
  return worked;
}

}  // namespace bulkhead
