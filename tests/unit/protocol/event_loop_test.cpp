#include "protocol/event_loop.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "support/event_descriptor.h"
#include "support/fake_clock.h"

namespace bulkhead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

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

TEST(EventLoop, RunsWhatWasPostedLazilyInItsPlaceOnceItIsWoken) {
  EventLoop loop;
  std::string order;
  std::thread thread([&] { loop.run(); });
  loop.post_lazily([&] { order += 'a'; });
  loop.post_lazily([&] { order += 'b'; });
  loop.wake();
  loop.post_lazily([&] { order += 'c'; });
  loop.post([&] { loop.stop(); });
  thread.join();
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
