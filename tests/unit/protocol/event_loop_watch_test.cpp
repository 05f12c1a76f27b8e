// Descriptors and bells that an EventLoop watches.
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "protocol/event_loop.h"
#include "support/event_descriptor.h"
#include "support/fake_clock.h"

namespace bulkhead {
namespace {

using std::chrono::seconds;

TEST(EventLoopWatch, LetsACallbackDropItsOwnHandle) {
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

TEST(EventLoopWatch, LetsWhatACancelledTaskHeldCancelOthers) {
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

TEST(EventLoopWatch, CallsAWatchForAsLongAsThereIsSomethingToRead) {
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

TEST(EventLoopWatch, HearsABellOnceForWhatWasRungSinceWithoutReadingIt) {
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

TEST(EventLoopWatch, HearsABellThatIsRungWhileItIsHeard) {
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

TEST(EventLoopWatch, WatchesADescriptorTwice) {
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

TEST(EventLoopWatch, CallsWatchesThatAreReadyInTheOrderOfTheirMaking) {
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

TEST(EventLoopWatch, LetsATaskRunTheLoop) {
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

TEST(EventLoopWatch, LetsAWatchEndAnotherThatIsReadyToo) {
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

}  // namespace
}  // namespace bulkhead
