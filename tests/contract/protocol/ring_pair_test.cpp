// Two ring channels, end to end: on two threads, and by way of a listener.
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>

#include <gtest/gtest.h>

#include "protocol/local_socket.h"
#include "protocol/ring_channel.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using std::chrono::seconds;

Message beat(std::int64_t step) { return Heartbeat{.generation = Generation(1), .step = step}; }
std::int64_t step_of(const Message& message) { return std::get<Heartbeat>(message).step; }

Message big(std::size_t bytes) {
  Call call;
  call.state = Blob::of(std::string(bytes, 'b'));
  return call;
}

// ----- Two loops -----

std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> ring_pair(EventLoop& left, EventLoop& right,
                                                                        RingOptions options) {
  auto sockets = local_pair();
  auto a = ring_channel(left, std::move(sockets->first), options);
  auto b = ring_channel(right, std::move(sockets->second), options);
  CHECK(a.ok() && b.ok());
  return {*std::move(a), *std::move(b)};
}

TEST(RingChannel, JoinsLoopsOnTwoThreads) {
  constexpr std::int64_t kCount = 20'000;
  struct Kind {
    RingOptions options;
    Duration spin{0};
  };
  for (const Kind& kind : {Kind{{.bytes = 4096}}, Kind{}, Kind{.options = {}, .spin = EventLoop::kMaxSpin}}) {
    EventLoop here, there;
    here.spin_for(kind.spin);
    there.spin_for(kind.spin);
    auto [near, far] = ring_pair(here, there, kind.options);
    std::thread thread([&there, far = std::move(far)]() mutable {
      far->start({[&](const Message& message) { far->send(message); },
                  [&](const Error&) {
                    far.reset();
                    there.stop();
                  }});
      there.run();
    });
    std::int64_t next = 0;
    std::int64_t sent = 0;
    near->start({[&](const Message& message) {
                   ASSERT_EQ(step_of(message), next++);
                   for (; sent < kCount && sent < next + 100; ++sent) near->send(beat(sent));
                 },
                 [](const Error&) { FAIL(); }});
    near->send(beat(sent++));
    EXPECT_TRUE(here.run_until([&] { return next == kCount; }, here.now() + seconds(60)));
    near.reset();
    thread.join();
  }
}

TEST(RingChannel, PassesMoreThanItHoldsBothWaysAtOnce) {
  static constexpr std::size_t kBytes = 1'000'003;
  static constexpr int kCount = 20;
  EventLoop here, there;
  auto [near, far] = ring_pair(here, there, {.bytes = 16384});
  int far_got = 0;
  std::thread thread([&there, &far_got, far = std::move(far)]() mutable {
    for (int i = 0; i < kCount; ++i) far->send(big(kBytes));
    far->start({[&far, &far_got](const Message& message) {
                  EXPECT_EQ(std::get<Call>(message).state.size, kBytes);
                  if (++far_got == kCount) far->send(beat(1));
                },
                [&](const Error&) {
                  far.reset();
                  there.stop();
                }});
    there.run();
  });
  for (int i = 0; i < kCount; ++i) near->send(big(kBytes));
  int got = 0;
  near->start({[&](const Message&) { ++got; }, [](const Error&) { FAIL(); }});
  EXPECT_TRUE(here.run_until([&] { return got == kCount + 1; }, here.now() + seconds(60)));
  near.reset();
  thread.join();
  EXPECT_EQ(far_got, kCount);
}

// ----- The listener -----

class RingListenerTest : public testing::Test {
 protected:
  TemporaryDirectory directory_;
  std::string path_ = (directory_.path() / "ring").string();
  EventLoop loop_;
};

TEST_F(RingListenerTest, TakesOnePeerAndGoes) {
  int peers = 0;
  std::unique_ptr<Channel> far;
  auto listener = ring_listen(loop_, path_, {}, [&](Result<std::unique_ptr<Channel>> peer) {
    ++peers;
    ASSERT_TRUE(peer.ok());
    far = *std::move(peer);
  });
  ASSERT_TRUE(listener.ok()) << listener.error().message;
  const auto near = ring_connect(loop_, path_);
  ASSERT_TRUE(near.ok());
  const auto second = ring_connect(loop_, path_);  // in the queue that is closed
  ASSERT_TRUE(second.ok());
  std::string why;
  (*second)->start({[](const Message&) { FAIL(); }, [&](const Error& error) { why = error.message; }});
  EXPECT_TRUE(loop_.run_until([&] { return far && !why.empty(); }, loop_.now() + seconds(30)));
  EXPECT_EQ(why, "the peer has gone");
  EXPECT_EQ(peers, 1);
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(ring_connect(loop_, path_).error().code, ErrorCode::kUnavailable);
}

TEST_F(RingListenerTest, MayBeDestroyedInOnPeer) {
  Result<std::unique_ptr<LocalListener>> listener = Error{};
  bool came = false;
  listener = ring_listen(loop_, path_, {}, [&](Result<std::unique_ptr<Channel>>) {
    listener = Error{};
    came = true;
  });
  ASSERT_TRUE(listener.ok());
  const auto near = ring_connect(loop_, path_);
  EXPECT_TRUE(loop_.run_until([&] { return came; }, loop_.now() + seconds(30)));
}

TEST_F(RingListenerTest, UnlinksItsPathWhenNobodyHasCome) {
  {
    const auto listener = ring_listen(loop_, path_, {}, [](Result<std::unique_ptr<Channel>>) { FAIL(); });
    ASSERT_TRUE(listener.ok());
    EXPECT_TRUE(std::filesystem::exists(path_));
    EXPECT_FALSE(ring_listen(loop_, path_, {}, [](Result<std::unique_ptr<Channel>>) {}).ok());
    EXPECT_TRUE(std::filesystem::exists(path_)) << "it is the first one's";
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace bulkhead
