// What ring channels promise beyond the contract: a peer that lies, dies or
// does not read.
#include "protocol/ring_channel.h"

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "protocol/local_socket.h"
#include "support/hand_made_ring.h"
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

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

class RingChannelTest : public testing::Test {
 protected:
  void SetUp() override {
    auto sockets = local_pair();
    ASSERT_TRUE(sockets.ok());
    auto channel = ring_channel(loop_, std::move(sockets->first), {.bytes = 4096});
    ASSERT_TRUE(channel.ok()) << channel.error().message;
    channel_ = *std::move(channel);
    channel_->start({[this](Message message) { messages_.push_back(std::move(message)); },
                     [this](Error why) { ends_.push_back(std::move(why)); }});
    peer_ = std::make_unique<HandMadeRing>(std::move(sockets->second));
  }
  void join() {
    peer_->make();
    peer_->seal();
    peer_->show();
    peer_->see();
    settle();
  }
  testing::AssertionResult reach(const std::function<bool()>& done) {
    for (const TimePoint deadline = loop_.now() + seconds(60); loop_.now() < deadline;) {
      if (loop_.run_until(done, loop_.now() + std::chrono::milliseconds(5)))
        return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "not reached within 60 s";
  }
  // Also shows that nothing goes round for ever.
  void settle() {
    int turns = 0;
    while (loop_.run_ready()) ASSERT_LT(++turns, 10'000) << "it never rests";
  }
  // Why the channel closed, once it has; it must stay silent afterwards.
  std::string end(ErrorCode code = ErrorCode::kMalformed) {
    if (!reach([&] { return !ends_.empty(); })) return "it did not end";
    channel_->send(beat(0));
    settle();
    EXPECT_EQ(ends_.size(), 1u);
    EXPECT_EQ(ends_[0].code, code);
    EXPECT_TRUE(messages_.empty());
    return ends_[0].message;
  }

  EventLoop loop_;
  std::unique_ptr<Channel> channel_;
  std::unique_ptr<HandMadeRing> peer_;
  std::vector<Message> messages_;
  std::vector<Error> ends_;
};

TEST_F(RingChannelTest, SpeaksAsTheSpecificationSays) {
  channel_->send(beat(1));
  join();
  EXPECT_EQ(HandMadeRing::get32(peer_->theirs, 136), 1u) << "it sleeps";
  peer_->put(encode(beat(10)));
  peer_->ring();
  ASSERT_TRUE(reach([&] { return messages_.size() == 1; }));
  EXPECT_EQ(step_of(messages_[0]), 10);
  settle();
  EXPECT_EQ(HandMadeRing::get64(peer_->theirs, 128), peer_->head) << "all of it was taken";
  EXPECT_EQ(HandMadeRing::get32(peer_->theirs, 136), 2u) << "it sleeps again";
  const auto early = peer_->take();
  ASSERT_EQ(early.size(), 1u);
  EXPECT_EQ(step_of(*decode(early[0])), 1);
  EXPECT_FALSE(peer_->rung()) << "the peer has never slept";
  peer_->put32(136, 1);
  channel_->send(beat(2));
  EXPECT_TRUE(peer_->rung());
  channel_->send(beat(3));
  EXPECT_FALSE(peer_->rung()) << "once for each sleep";
  EXPECT_EQ(peer_->take().size(), 2u);
}

TEST_F(RingChannelTest, AsksForRoomAndIsRungForIt) {
  join();
  for (int i = 0; i < 200; ++i) channel_->send(beat(i));
  settle();
  EXPECT_GE(HandMadeRing::get32(peer_->theirs, 72), 1u) << "it asks";
  std::size_t got = 0;
  while (got < 200) {
    const std::size_t before = got;
    for (const Frames& frames : peer_->take())
      EXPECT_EQ(step_of(*decode(frames)), static_cast<std::int64_t>(got++));
    if (got == before) break;
    peer_->ring();
    settle();
  }
  EXPECT_EQ(got, 200u);
}

TEST_F(RingChannelTest, RingsForRoomThatItGivesBack) {
  join();
  const Frames message = encode(beat(5));
  while (peer_->head + 64 < peer_->ring_bytes) peer_->put(message);
  peer_->put32(72, 1);
  peer_->ring();
  settle();
  EXPECT_TRUE(peer_->rung());
  peer_->put(message);
  peer_->ring();
  settle();
  EXPECT_FALSE(peer_->rung()) << "it was asked once only";
}

TEST_F(RingChannelTest, RestsWhileItIsRungForNothing) {
  join();
  for (int i = 0; i < 1000; ++i) {
    peer_->ring();
    settle();
  }
  EXPECT_TRUE(ends_.empty());
}

TEST_F(RingChannelTest, OutlivesABellThatNobodyHears) {
  join();
  ASSERT_EQ(::eventfd_write(peer_->bell.get(), UINT64_MAX - 1), 0);  // full: a blocking write would wait here
  ASSERT_EQ(::fcntl(peer_->bell.get(), F_SETFL, O_NONBLOCK), 0);
  peer_->put32(136, 1);
  channel_->send(beat(1));
  peer_->bell.reset();
  peer_->put32(136, 2);
  channel_->send(beat(2));
  settle();
  EXPECT_TRUE(ends_.empty());
  EXPECT_EQ(peer_->take().size(), 2u);
}

TEST_F(RingChannelTest, MakesABlockingBellNonBlocking) {
  peer_->make();
  peer_->bell = UniqueFd(eventfd(0, 0));
  ASSERT_EQ(::eventfd_write(peer_->bell.get(), UINT64_MAX - 1), 0);
  peer_->seal();
  peer_->show();
  peer_->see();
  settle();
  peer_->put32(136, 1);
  channel_->send(beat(1));
  EXPECT_EQ(peer_->take().size(), 1u);
}

// ----- Who is not let in -----

TEST_F(RingChannelTest, RefusesMemoryThatIsNotSealed) {
  peer_->make();
  peer_->seals = HandMadeRing::kAllSeals & ~F_SEAL_SHRINK;
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(), "the peer's ring: its memory is not sealed against shrinking and growing");
}

TEST_F(RingChannelTest, RefusesMemoryThatShrank) {
  peer_->make();
  ASSERT_EQ(::ftruncate(peer_->memory.get(), 4096), 0);
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(), "the peer's ring: its memory of 4096 bytes does not hold a ring of 4096");
}

TEST_F(RingChannelTest, RefusesMemoryThatIsNotAllocated) {
  peer_->make();
  ASSERT_EQ(::fallocate(peer_->memory.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(), "the peer's ring: its memory is not allocated");
}

TEST_F(RingChannelTest, RefusesWhatIsNoRing) {
  peer_->make();
  peer_->segment[0] = 'B';
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(), "the peer's ring: its memory is not a ring");
}

TEST_F(RingChannelTest, RefusesAnImpossibleSize) {
  peer_->make();
  peer_->put64(16, std::uint64_t{1} << 63);
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(), "the peer's ring: its memory of 8192 bytes does not hold a ring of 9223372036854775808");
}

TEST_F(RingChannelTest, RefusesAnotherVersion) {
  peer_->make();
  peer_->put32(8, 2);
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(ErrorCode::kMismatch), "the peer's ring: its ring has version 2, this side speaks 1");
}

TEST_F(RingChannelTest, RefusesAnotherGreeting) {
  peer_->greeting = "bulkring 2";
  peer_->make();
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(ErrorCode::kMismatch), "the peer's ring: its greeting is another's");
}

TEST_F(RingChannelTest, RefusesABellThatIsNone) {
  peer_->make();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  peer_->bell = UniqueFd(ends[1]);
  peer_->seal();
  peer_->show();
  EXPECT_EQ(end(), "the peer's ring: its bell is not an eventfd");
  ::close(ends[0]);
}

TEST_F(RingChannelTest, RefusesMissingDescriptors) {
  ASSERT_TRUE(send_fds(peer_->socket.get(), "bulkring 1", {}).ok());
  EXPECT_EQ(end(), "the peer's ring: 0 descriptors came where there should be 2");
}

TEST_F(RingChannelTest, RefusesASecondPacket) {
  join();
  ASSERT_TRUE(send_fds(peer_->socket.get(), "x", {}).ok());
  EXPECT_EQ(end(), "the peer sent more than its ring over the socket");
}

// ----- Who lies later -----

TEST_F(RingChannelTest, ClosesAtAnImpossibleHead) {
  join();
  peer_->put64(64, 4097);
  peer_->ring();
  EXPECT_EQ(end(), "the peer's ring has an impossible head");
}

TEST_F(RingChannelTest, ClosesAtAHeadThatGoesBackwards) {
  join();
  peer_->put_bytes(std::string("\1\0\0\0\xff\0\0\0", 8));
  peer_->ring();
  settle();
  peer_->put64(64, 4);
  peer_->ring();
  EXPECT_EQ(end(), "the peer's ring has an impossible head");
}

TEST_F(RingChannelTest, ClosesAtAnImpossibleTailInSend) {
  join();
  peer_->put64(128, 1 << 20);
  channel_->send(big(10'000));
  EXPECT_EQ(end(), "the peer says that it has read what nobody sent");
}

TEST_F(RingChannelTest, ClosesAtAnImpossibleTailWhenItIsRung) {
  join();
  channel_->send(big(10'000));
  settle();
  peer_->put64(128, 1 << 20);
  peer_->ring();
  EXPECT_EQ(end(), "the peer says that it has read what nobody sent");
}

TEST_F(RingChannelTest, ClosesAtImpossibleRecords) {
  join();
  peer_->put_bytes(std::string("\0\0\0\0\0\0\0\0", 8));
  peer_->ring();
  EXPECT_EQ(end(), "the peer's ring has a message of 0 frames");
}

TEST_F(RingChannelTest, ClosesAtAMessageThatIsNone) {
  join();
  peer_->put({Blob::of(std::string("garbage"))});
  peer_->ring();
  EXPECT_NE(end(), "it did not end");
}

// ----- Who goes -----

TEST_F(RingChannelTest, EndsWhenThePeerGoesBeforeItsRingHasCome) {
  peer_.reset();
  EXPECT_EQ(end(ErrorCode::kUnavailable), "the peer has gone");
}

TEST_F(RingChannelTest, DeliversWhatAPeerSentThatIsGoneBeforeItWasHeardOf) {
  peer_->make();
  peer_->put(encode(beat(1)));
  peer_->put(encode(beat(2)));
  peer_->seal();
  peer_->show();
  peer_.reset();
  ASSERT_TRUE(reach([&] { return !ends_.empty(); }));
  ASSERT_EQ(messages_.size(), 2u);
  EXPECT_EQ(step_of(messages_[1]), 2);
  EXPECT_EQ(ends_[0].message, "the peer has gone");
}

TEST_F(RingChannelTest, EndsWhenItsPeerIsKilledInTheMiddleOfARecord) {
  const pid_t child = ::fork();
  if (child == 0) {
    peer_->make();
    peer_->seal();
    peer_->show();
    peer_->put(encode(beat(7)));
    peer_->put_bytes(std::string("\1\0\0\0\xff\0\0\0beginning", 17));
    ::raise(SIGKILL);
  }
  peer_.reset();  // the child's copy is the only one
  ASSERT_TRUE(reach([&] { return !ends_.empty(); }));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_EQ(step_of(messages_[0]), 7);
  EXPECT_EQ(ends_[0].code, ErrorCode::kUnavailable);
}

TEST_F(RingChannelTest, LeavesNothingOpen) {
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 3; ++i) {
    auto sockets = local_pair();
    auto left = ring_channel(loop_, std::move(sockets->first));
    auto right = ring_channel(loop_, std::move(sockets->second));
    bool came = false;
    (*right)->start({[&](const Message&) { came = true; }, [](const Error&) {}});
    (*left)->send(beat(1));
    ASSERT_TRUE(reach([&] { return came; }));
  }
  EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
}  // namespace bulkhead
