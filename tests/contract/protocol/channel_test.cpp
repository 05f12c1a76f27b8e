// What every Channel promises (channel.h), for each kind of it.
#include "protocol/channel.h"

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "support/joined_channels.h"
#include "support/sample_messages.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using std::chrono::seconds;

Message beat(std::int64_t step) { return Heartbeat{.generation = Generation(1), .step = step}; }
std::int64_t step_of(const Message& message) { return std::get<Heartbeat>(message).step; }

// Collects what a channel calls.
struct Inbox {
  std::vector<Message> messages;
  std::vector<Error> ends;
  Channel::Handlers handlers() {
    return {[this](Message message) { messages.push_back(std::move(message)); },
            [this](Error why) { ends.push_back(std::move(why)); }};
  }
};

struct Kind {
  const char* name;
  Join join;
  friend std::ostream& operator<<(std::ostream& out, const Kind& kind) { return out << kind.name; }
};

class ChannelContract : public testing::TestWithParam<Kind> {
 protected:
  Ends join(const Message& first = beat(0)) { return GetParam().join(loop_, directory_, first); }
  testing::AssertionResult reach(const std::function<bool()>& done) {
    for (const TimePoint deadline = loop_.now() + seconds(60); loop_.now() < deadline;) {
      // `done` may look at what wakes no loop.
      if (loop_.run_until(done, loop_.now() + std::chrono::milliseconds(5)))
        return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "not reached within 60 s";
  }
  // Everything that is on its way has come when this has.
  void settle() {
    for (int i = 0; i < 20; ++i) {
      while (loop_.run_ready()) {
      }
      EXPECT_FALSE(loop_.run_until([] { return false; }, loop_.now() + std::chrono::milliseconds(1)));
    }
  }

  EventLoop loop_;
  TemporaryDirectory directory_;
};

TEST_P(ChannelContract, DeliversInOrderBothWays) {
  constexpr std::int64_t kCount = 1000;
  Ends ends = join();
  Inbox left, right;
  ends.left->start(left.handlers());
  ends.right->start(right.handlers());
  for (std::int64_t i = 1; i < kCount; ++i) ends.left->send(beat(i));
  for (std::int64_t i = 0; i < kCount; ++i) ends.right->send(beat(-i));
  ASSERT_TRUE(reach([&] { return left.messages.size() == kCount && right.messages.size() == kCount; }));
  for (std::int64_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(step_of(right.messages[static_cast<std::size_t>(i)]), i);
    ASSERT_EQ(step_of(left.messages[static_cast<std::size_t>(i)]), -i);
  }
}

TEST_P(ChannelContract, CarriesEveryMessageUnchanged) {
  Ends ends = join();
  Inbox right;
  ends.right->start(right.handlers());
  const std::vector<Message> samples = all_samples();
  for (const Message& message : samples) ends.left->send(message);
  ASSERT_TRUE(reach([&] { return right.messages.size() == samples.size() + 1; }));
  for (std::size_t i = 0; i < samples.size(); ++i)
    EXPECT_EQ(text_of(right.messages[i + 1]), text_of(samples[i]));
}

TEST_P(ChannelContract, CarriesBigMessagesBothWays) {
  constexpr std::int64_t kBytes = 40'000'001;
  std::string bytes(kBytes, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 1000);
  Call call;
  call.batch = {{"x", DType::kUInt8, {kBytes}, Blob::of(bytes)}};
  Reply reply;
  reply.batch = call.batch;

  Ends ends = join();
  Inbox left, right;
  ends.left->start(left.handlers());
  ends.right->start(right.handlers());
  ends.left->send(call);
  ends.right->send(reply);
  ASSERT_TRUE(reach([&] { return left.messages.size() == 1 && right.messages.size() == 2; }));
  EXPECT_TRUE(std::get<Call>(right.messages[1]).batch[0].bytes.text() == bytes);
  EXPECT_TRUE(std::get<Reply>(left.messages[0]).batch[0].bytes.text() == bytes);
}

TEST_P(ChannelContract, KeepsTheBytesOfAMessageThatItsSenderForgets) {
  Ends ends = join();
  Inbox right;
  ends.right->start(right.handlers());
  {
    Call call;
    call.state = Blob::of(std::string(3'000'000, 's'));
    ends.left->send(call);
  }
  ASSERT_TRUE(reach([&] { return right.messages.size() == 2; }));
  EXPECT_TRUE(std::get<Call>(right.messages[1]).state.text() == std::string(3'000'000, 's'));
}

TEST_P(ChannelContract, KeepsMessagesThatCameBeforeItWasStarted) {
  Ends ends = join(beat(0));
  for (std::int64_t i = 1; i < 5; ++i) ends.left->send(beat(i));
  settle();
  Inbox right;
  ends.right->start(right.handlers());
  ends.left->send(beat(5));
  ASSERT_TRUE(reach([&] { return right.messages.size() == 6; }));
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(step_of(right.messages[i]), static_cast<std::int64_t>(i));
}

TEST_P(ChannelContract, CallsNothingFromWithinStartSendOrClose) {
  Ends ends = join();
  settle();
  Inbox right;
  ends.right->start(right.handlers());
  EXPECT_TRUE(right.messages.empty());
  ends.right->send(beat(1));
  ends.right->close();
  EXPECT_TRUE(right.messages.empty() && right.ends.empty());
  ASSERT_TRUE(reach([&] { return right.ends.size() == 1; }));
}

TEST_P(ChannelContract, ReportsItsEndExactlyOnce) {
  Ends ends = join();
  Inbox left, right;
  ends.left->start(left.handlers());
  ends.right->start(right.handlers());
  for (const auto& channel : {ends.left.get(), ends.right.get()}) {
    channel->close();
    channel->close();
    channel->send(beat(9));
  }
  settle();
  ends.left->close();
  settle();
  ASSERT_EQ(left.ends.size(), 1u);
  ASSERT_EQ(right.ends.size(), 1u);
  EXPECT_EQ(left.ends[0].code, ErrorCode::kUnavailable);
  EXPECT_EQ(right.ends[0].code, ErrorCode::kUnavailable);
}

TEST_P(ChannelContract, ReportsAnEndThatCameBeforeItWasStarted) {
  Ends ends = join();
  ends.left->close();
  settle();
  Inbox left;
  ends.left->start(left.handlers());
  ASSERT_TRUE(reach([&] { return left.ends.size() == 1; }));
  settle();
  EXPECT_EQ(left.ends.size(), 1u);
}

TEST_P(ChannelContract, IsSilentOnceItWasClosedInAHandler) {
  Ends ends = join();
  for (std::int64_t i = 1; i < 10; ++i) ends.left->send(beat(i));
  settle();
  Inbox right;
  Channel::Handlers handlers = right.handlers();
  handlers.on_message = [&](Message message) {
    right.messages.push_back(std::move(message));
    if (right.messages.size() == 2) ends.right->close();
  };
  ends.right->start(std::move(handlers));
  for (std::int64_t i = 10; i < 20; ++i) ends.left->send(beat(i));
  ASSERT_TRUE(reach([&] { return !right.ends.empty(); }));
  settle();
  EXPECT_EQ(right.messages.size(), 2u);
  EXPECT_EQ(right.ends.size(), 1u);
}

TEST_P(ChannelContract, MayBeDestroyedInOnMessage) {
  for (const bool early : {true, false}) {
    Ends ends = join();
    if (early) settle();
    int messages = 0;
    const auto held = std::make_shared<std::string>("held by the handler");
    ends.right->start({[&, held](Message) {
                         ++messages;
                         ends.right.reset();
                         EXPECT_EQ(*held, "held by the handler");
                       },
                       [](Error) { FAIL() << "destroying calls nothing"; }});
    for (std::int64_t i = 1; i < 10; ++i) ends.left->send(beat(i));
    ASSERT_TRUE(reach([&] { return messages > 0; }));
    settle();
    EXPECT_EQ(messages, 1);
    std::filesystem::remove(directory_.path() / "socket");
  }
}

TEST_P(ChannelContract, MayBeDestroyedInOnClosed) {
  Ends ends = join();
  int calls = 0;
  const auto held = std::make_shared<std::string>("held by the handler");
  ends.left->start({[](Message) {},
                    [&, held](Error) {
                      ++calls;
                      ends.left.reset();
                      EXPECT_EQ(*held, "held by the handler");
                    }});
  ends.left->close();
  ASSERT_TRUE(reach([&] { return calls > 0; }));
  settle();
  EXPECT_EQ(calls, 1);
}

TEST_P(ChannelContract, MayBeDestroyedWhileItsEndIsOnItsWay) {
  Ends ends = join();
  ends.right->start({[](Message) {}, [](Error) { FAIL(); }});
  ends.right->close();
  ends.right.reset();
  settle();
}

TEST_P(ChannelContract, ItsLeftEndNoticesThatTheRightHasGone) {
  Ends ends = join();
  Inbox left;
  ends.left->start(left.handlers());
  ends.right->send(beat(1));
  ASSERT_TRUE(reach([&] { return left.messages.size() == 1; }));
  ends.end_right();
  ASSERT_TRUE(reach([&] { return left.ends.size() == 1; }));
  EXPECT_EQ(left.ends[0].code, ErrorCode::kUnavailable);
  ends.left->send(beat(2));
  settle();
  EXPECT_EQ(left.ends.size(), 1u);
}

TEST_P(ChannelContract, ItsRightEndNoticesAtASendThatTheLeftHasGone) {
  Ends ends = join();
  Inbox right;
  ends.right->start(right.handlers());
  ASSERT_TRUE(reach([&] { return right.messages.size() == 1; }));
  ends.end_left();
  ASSERT_TRUE(reach([&] {
    ends.right->send(beat(1));
    return !right.ends.empty();
  }));
  settle();
  EXPECT_EQ(right.ends.size(), 1u);
  EXPECT_EQ(right.ends[0].code, ErrorCode::kUnavailable);
}

TEST_P(ChannelContract, DeliversWhatAGonePeerHasSent) {
  Ends ends = join();
  Inbox left;
  ends.left->start(left.handlers());
  for (std::int64_t i = 0; i < 100; ++i) ends.right->send(beat(i));
  ASSERT_TRUE(reach([&] { return left.messages.size() == 100; }));
  ends.end_right();
  ASSERT_TRUE(reach([&] { return left.ends.size() == 1; }));
  EXPECT_EQ(left.messages.size(), 100u);
}

TEST_P(ChannelContract, NeverBlocksForWantOfAReader) {
  constexpr std::int64_t kCount = 10'000;
  Ends ends = join();
  const TimePoint start = loop_.now();
  for (std::int64_t i = 1; i <= kCount; ++i) {
    ends.left->send(beat(i));
    ends.right->send(beat(i));
  }
  EXPECT_LT(loop_.now() - start, seconds(30));
  Inbox left, right;
  ends.left->start(left.handlers());
  ends.right->start(right.handlers());
  ASSERT_TRUE(reach([&] { return left.messages.size() == kCount && right.messages.size() == kCount + 1; }));
  EXPECT_EQ(step_of(left.messages.back()), kCount);
  EXPECT_EQ(step_of(right.messages.back()), kCount);
}

TEST_P(ChannelContract, LetsAHandlerSend) {
  Ends ends = join(beat(0));
  Inbox left;
  ends.left->start({[&](Message message) {
                      if (step_of(message) < 500) return ends.left->send(beat(step_of(message) + 1));
                      left.messages.push_back(std::move(message));
                    },
                    [](Error) { FAIL(); }});
  ends.right->start(
      {[&](Message message) { ends.right->send(beat(step_of(message) + 1)); }, [](Error) { FAIL(); }});
  EXPECT_TRUE(reach([&] { return left.messages.size() == 1; }));
}

INSTANTIATE_TEST_SUITE_P(Kinds, ChannelContract,
                         testing::Values(Kind{"Memory", join_memory}, Kind{"Ipc", join_ipc},
                                         Kind{"Tcp", join_tcp}, Kind{"Ring", join_ring},
                                         Kind{"SmallRing", join_small_ring},
                                         Kind{"SpinningRing", join_spinning_ring},
                                         Kind{"RingsThroughAProcess", join_through_a_process}),
                         [](const auto& kind) { return std::string(kind.param.name); });

TEST(MemoryChannel, JoinsLoopsOnTwoThreads) {
  constexpr std::int64_t kCount = 2000;
  EventLoop here, there;
  auto [near, far] = memory_channels(here, there);
  std::thread thread([&there, far = std::move(far)]() mutable {
    far->start({[&](Message message) { far->send(message); },
                [&](Error) {
                  far.reset();
                  there.stop();
                }});
    there.run();
  });
  std::vector<std::int64_t> steps;
  near->start({[&](Message message) { steps.push_back(step_of(message)); }, [](Error) { FAIL(); }});
  for (std::int64_t i = 0; i < kCount; ++i) near->send(beat(i));
  EXPECT_TRUE(here.run_until([&] { return steps.size() == kCount; }, here.now() + seconds(60)));
  near.reset();
  thread.join();
  for (std::int64_t i = 0; i < kCount; ++i) EXPECT_EQ(steps[static_cast<std::size_t>(i)], i);
}

}  // namespace
}  // namespace bulkhead
