#include "protocol/event_loop.h"

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "support/fake_clock.h"

namespace bulkhead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

void run_all(EventLoop& loop) {
  while (loop.run_ready()) {
  }
}

struct EventDescriptor {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ~EventDescriptor() { ::close(fd); }
  void signal() const { ASSERT_EQ(::eventfd_write(fd, 1), 0); }
  void take() const {
    eventfd_t value = 0;
    ASSERT_EQ(::eventfd_read(fd, &value), 0);
  }
};

TEST(EventLoop, RunsTasksInTheOrderOfPosting) {
  FakeClock clock;
  EventLoop loop(clock);
  std::string order;
  for (const char name : {'a', 'b', 'c'}) loop.post([&order, name] { order += name; });
  EXPECT_EQ(order, "");
  run_all(loop);
  EXPECT_EQ(order, "abc");
  EXPECT_FALSE(loop.run_ready());
}

TEST(EventLoop, RunsATaskPostedByATaskInALaterTurn) {
  FakeClock clock;
  EventLoop loop(clock);
  std::string order;
  loop.post([&] {
    order += 'a';
    loop.post([&] { order += 'c'; });
  });
  loop.post([&] { order += 'b'; });
  loop.run_ready();
  EXPECT_EQ(order, "ab");
  run_all(loop);
  EXPECT_EQ(order, "abc");
}

TEST(EventLoop, RunsTimersWhenTheirTimeHasCome) {
  FakeClock clock;
  EventLoop loop(clock);
  std::string order;
  const auto late = loop.call_after(seconds(2), [&] { order += 'l'; });
  const auto early = loop.call_after(seconds(1), [&] { order += 'e'; });
  EXPECT_EQ(loop.next_timer(), clock.now() + seconds(1));
  clock.advance(seconds(1) - Duration(1));
  EXPECT_FALSE(loop.run_ready());
  clock.advance(Duration(1));
  EXPECT_TRUE(loop.run_ready());
  EXPECT_EQ(order, "e");
  clock.advance(seconds(5));
  run_all(loop);
  EXPECT_EQ(order, "el");
  EXPECT_EQ(loop.next_timer(), TimePoint::max());
  clock.advance(seconds(5));
  EXPECT_FALSE(loop.run_ready());
}

TEST(EventLoop, RunsTimersOfTheSameTimeInTheOrderOfTheirMaking) {
  FakeClock clock;
  EventLoop loop(clock);
  std::string order;
  std::vector<EventLoop::Handle> handles;
  for (const char name : {'a', 'b', 'c'}) {
    handles.push_back(loop.call_after(seconds(1), [&order, name] { order += name; }));
  }
  clock.advance(seconds(1));
  run_all(loop);
  EXPECT_EQ(order, "abc");
}

TEST(EventLoop, TakesADelayBeyondTheEndOfTime) {
  FakeClock clock;
  clock.advance(seconds(1));
  EventLoop loop(clock);
  const auto never = loop.call_after(Duration::max(), [] { FAIL(); });
  EXPECT_EQ(loop.next_timer(), TimePoint::max());
  clock.advance(seconds(1'000'000));
  EXPECT_FALSE(loop.run_ready());
}

TEST(EventLoop, DoesNotStarveOthersOnATimerThatIsAlwaysDue) {
  FakeClock clock;
  EventLoop loop(clock);
  EventLoop::Handle handle;
  int rounds = 0;
  EventLoop::Task again = [&] {
    ++rounds;
    handle = loop.call_after(Duration::zero(), again);
  };
  handle = loop.call_after(Duration::zero(), again);
  bool ran = false;
  loop.post([&] { loop.post([&] { ran = true; }); });
  EXPECT_TRUE(loop.run_until([&] { return ran; }));
  EXPECT_LE(rounds, 3);
}

TEST(EventLoop, DoesNotRunWhatAHandleHasCancelled) {
  FakeClock clock;
  EventLoop loop(clock);
  {
    const auto gone = loop.call_after(seconds(1), [] { FAIL(); });
  }
  auto reset = loop.call_after(seconds(1), [] { FAIL(); });
  reset.reset();
  EXPECT_FALSE(static_cast<bool>(reset));
  auto replaced = loop.call_after(seconds(1), [] { FAIL(); });
  bool ran = false;
  replaced = loop.call_after(seconds(1), [&] { ran = true; });
  const EventLoop::Handle moved = std::move(replaced);
  clock.advance(seconds(1));
  run_all(loop);
  EXPECT_TRUE(ran);
}

TEST(EventLoop, LetsACallbackCancelAnotherThatIsDueToo) {
  FakeClock clock;
  EventLoop loop(clock);
  EventLoop::Handle second;
  const auto first = loop.call_after(seconds(1), [&] { second.reset(); });
  second = loop.call_after(seconds(1), [] { FAIL(); });
  clock.advance(seconds(1));
  run_all(loop);
}

TEST(EventLoop, LetsACallbackDropItsOwnHandle) {
  FakeClock clock;
  EventLoop loop(clock);
  EventDescriptor event;
  int calls = 0;
  EventLoop::Handle watch;
  const auto owned = std::make_shared<std::string>("still here");
  watch = loop.watch_readable(event.fd, [&, owned] {
    ++calls;
    watch.reset();
    EXPECT_EQ(*owned, "still here");
  });
  EventLoop::Handle timer;
  timer = loop.call_after(Duration::zero(), [&, owned] {
    timer.reset();
    EXPECT_EQ(*owned, "still here");
  });
  event.signal();
  run_all(loop);
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, LetsWhatACancelledTaskHeldCancelOthers) {
  FakeClock clock;
  EventLoop loop(clock);
  EventDescriptor event;
  auto inner = std::make_shared<EventLoop::Handle>(loop.watch_readable(event.fd, [] { FAIL(); }));
  auto timer = std::make_shared<EventLoop::Handle>(loop.call_after(seconds(1), [] { FAIL(); }));
  auto outer =
      loop.watch_readable(event.fd, [inner = std::move(inner), timer = std::move(timer)] { FAIL(); });
  outer.reset();
  event.signal();
  clock.advance(seconds(1));
  EXPECT_FALSE(loop.run_ready());
}

TEST(EventLoop, CallsAWatchForAsLongAsThereIsSomethingToRead) {
  FakeClock clock;
  EventLoop loop(clock);
  EventDescriptor event;
  int calls = 0;
  auto watch = loop.watch_readable(event.fd, [&] { ++calls; });
  EXPECT_FALSE(loop.run_ready());
  event.signal();
  EXPECT_TRUE(loop.run_ready());
  EXPECT_TRUE(loop.run_ready());
  event.take();
  EXPECT_FALSE(loop.run_ready());
  EXPECT_EQ(calls, 2);
}

TEST(EventLoop, HearsABellOnceForWhatWasRungSinceWithoutReadingIt) {
  FakeClock clock;
  EventLoop loop(clock);
  EventDescriptor bell;
  bell.signal();  // before anybody listens
  int calls = 0;
  auto watch = loop.watch_bell(bell.fd, [&] { ++calls; });
  run_all(loop);
  EXPECT_EQ(calls, 1);
  bell.signal();
  bell.signal();
  run_all(loop);
  EXPECT_EQ(calls, 2);
  watch.reset();
  bell.signal();
  run_all(loop);
  EXPECT_EQ(calls, 2);
}

TEST(EventLoop, HearsABellThatIsRungWhileItIsHeard) {
  FakeClock clock;
  EventLoop loop(clock);
  EventDescriptor bell;
  int calls = 0;
  const auto watch = loop.watch_bell(bell.fd, [&] {
    if (++calls < 10) bell.signal();
  });
  bell.signal();
  run_all(loop);
  EXPECT_EQ(calls, 10);
}

TEST(EventLoop, WatchesADescriptorTwice) {
  FakeClock clock;
  EventLoop loop(clock);
  EventDescriptor event;
  std::string order;
  auto first = loop.watch_readable(event.fd, [&] { order += 'a'; });
  const auto second = loop.watch_readable(event.fd, [&] { order += 'b'; });
  event.signal();
  EXPECT_TRUE(loop.run_ready());
  EXPECT_EQ(order, "ab");
  first.reset();
  EXPECT_TRUE(loop.run_ready());
  EXPECT_EQ(order, "abb");
}

TEST(EventLoop, CallsWatchesThatAreReadyInTheOrderOfTheirMaking) {
  FakeClock clock;
  EventLoop loop(clock);
  std::array<EventDescriptor, 5> events;
  std::vector<EventLoop::Handle> watches;
  std::string order;
  for (std::size_t i = 0; i < events.size(); ++i)
    watches.push_back(
        loop.watch_readable(events[i].fd, [&order, i] { order += static_cast<char>('a' + i); }));
  for (std::size_t i = events.size(); i-- > 0;) events[i].signal();
  loop.run_ready();
  EXPECT_EQ(order, "abcde");
}

TEST(EventLoop, LetsATaskRunTheLoop) {
  EventLoop loop;
  EventDescriptor event;
  int calls = 0;
  bool inside = false;
  const auto watch = loop.watch_readable(event.fd, [&] {
    event.take();
    if (++calls > 1) return;
    loop.post([&] { inside = true; });
    EXPECT_TRUE(loop.run_until([&] { return inside; }, loop.now() + seconds(30)));
    event.signal();
  });
  loop.post([&] { event.signal(); });
  EXPECT_TRUE(loop.run_until([&] { return calls == 2; }, loop.now() + seconds(30)));
}

TEST(EventLoop, LetsAWatchEndAnotherThatIsReadyToo) {
  FakeClock clock;
  EventLoop loop(clock);
  EventDescriptor one, two;
  int calls = 0;
  EventLoop::Handle first, second;
  first = loop.watch_readable(one.fd, [&] { ++calls, second.reset(); });
  second = loop.watch_readable(two.fd, [&] { ++calls, first.reset(); });
  one.signal();
  two.signal();
  loop.run_ready();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, RunUntilEndsAtItsDeadline) {
  EventLoop loop;
  const TimePoint start = loop.now();
  EXPECT_FALSE(loop.run_until([] { return false; }, start + milliseconds(20)));
  EXPECT_GE(loop.now() - start, milliseconds(20));
}

TEST(EventLoop, RunUntilLooksAtOnceAtWhatATaskHasChanged) {
  EventLoop loop;
  bool done = false;
  loop.post([&] { done = true; });
  EXPECT_TRUE(loop.run_until([&] { return done; }, loop.now() + seconds(30)));
}

TEST(EventLoop, WakesForATimerWhileItSleeps) {
  EventLoop loop;
  bool done = false;
  const auto timer = loop.call_after(milliseconds(5), [&] { done = true; });
  EXPECT_TRUE(loop.run_until([&] { return done; }, loop.now() + seconds(30)));
}

TEST(EventLoop, WakesForEveryTimerInTurnAndForTheDeadlineBetweenThem) {
  EventLoop loop;
  int ticks = 0;
  EventLoop::Handle timer;
  const EventLoop::Task tick = [&] {
    ++ticks;
    timer = loop.call_after(milliseconds(2), tick);
  };
  timer = loop.call_after(milliseconds(2), tick);
  for (int i = 0; i < 5; ++i) {
    const TimePoint start = loop.now();
    EXPECT_FALSE(loop.run_until([] { return false; }, start + milliseconds(5)));
    EXPECT_GE(loop.now() - start, milliseconds(5));
  }
  EXPECT_GE(ticks, 5);
  EXPECT_TRUE(loop.run_until([&, more = ticks + 20] { return ticks >= more; }, loop.now() + seconds(30)));
}

TEST(EventLoop, RunsUntilItIsStoppedAndCanRunAgain) {
  EventLoop loop;
  int runs = 0;
  for (int i = 0; i < 2; ++i) {
    loop.post([&] {
      ++runs;
      loop.stop();
    });
    loop.run();
  }
  EXPECT_EQ(runs, 2);
}

TEST(EventLoop, KeepsTheOrderOfEachPostingThread) {
  constexpr int kThreads = 4;
  constexpr int kTasks = 2000;
  EventLoop loop;
  std::vector<std::vector<int>> seen(kThreads);
  int total = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        loop.post([&, t, i] {
          seen[static_cast<std::size_t>(t)].push_back(i);
          ++total;
        });
      }
    });
  }
  EXPECT_TRUE(loop.run_until([&] { return total == kThreads * kTasks; }, loop.now() + seconds(60)));
  for (std::thread& thread : threads) thread.join();
  for (const auto& numbers : seen) {
    for (int i = 0; i < kTasks; ++i) ASSERT_EQ(numbers[static_cast<std::size_t>(i)], i);
  }
}

TEST(EventLoop, IsWokenByAPostFromAnotherThread) {
  EventLoop loop;
  EventLoop here;
  std::thread thread([&loop] { loop.run(); });
  for (int i = 0; i < 200; ++i) {
    bool answered = false;
    loop.post([&] { here.post([&] { answered = true; }); });
    ASSERT_TRUE(here.run_until([&] { return answered; }, here.now() + seconds(30))) << i;
  }
  loop.post([&] { loop.stop(); });
  thread.join();
}

TEST(EventLoop, KnowsItsThread) {
  EventLoop loop;
  EXPECT_TRUE(loop.in_loop());
  std::optional<bool> outside;
  loop.post([&] {
    EXPECT_TRUE(loop.in_loop());
    std::thread([&] { outside = loop.in_loop(); }).join();
  });
  loop.run_ready();
  EXPECT_EQ(outside, false);
  EXPECT_TRUE(loop.in_loop());
}

TEST(EventLoop, DestroysTasksUnrunWhenItEnds) {
  const auto held = std::make_shared<int>(1);
  EventLoop::Handle timer;
  {
    FakeClock clock;
    EventLoop loop(clock);
    loop.post([held] { FAIL(); });
    timer = loop.call_after(seconds(1), [held] { FAIL(); });
    EXPECT_EQ(held.use_count(), 3);
  }
  EXPECT_EQ(held.use_count(), 1);
  timer.reset();
}

}  // namespace
}  // namespace bulkhead
