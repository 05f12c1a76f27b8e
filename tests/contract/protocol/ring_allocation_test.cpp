// How often memory is asked for on the steady path of a ring channel, counted
// by this program's own operator new.
#include <memory>
#include <utility>

#include <gtest/gtest.h>

#include "protocol/local_socket.h"
#include "protocol/ring_channel.h"
#include "support/counting_new.h"

namespace bulkhead {
namespace {

class RingAllocation : public testing::Test {
 protected:
  void SetUp() override {
    auto sockets = local_pair();
    near_ = *ring_channel(loop_, std::move(sockets->first));
    far_ = *ring_channel(loop_, std::move(sockets->second));
    near_->start({[this](const Message&) { ++got_; }, [](const Error&) { FAIL(); }});
    far_->start({[this](const Message&) { ++got_; }, [](const Error&) { FAIL(); }});
    for (int i = 0; i < 100; ++i) pass(call_);
  }
  void receive() {
    while (loop_.run_ready()) {
    }
  }
  void pass(const Message& message) {
    near_->send(message);
    far_->send(message);
    receive();
  }

  EventLoop loop_;
  std::unique_ptr<Channel> near_, far_;
  int got_ = 0;
  const Message call_ = [] {
    Call call;
    call.seq = Seq(7);
    call.hook = "on_step_end";
    return call;
  }();
};

TEST_F(RingAllocation, SendsWithNothingBeyondTheEncodedFrames) {
  const long encoding = allocations_of([&] { (void)encode(call_); });
  RecordProperty("per_encode", static_cast<int>(encoding));
  EXPECT_LE(encoding, 2) << "the list of frames and the envelope";
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(allocations_of([&] { near_->send(call_); }), encoding) << i;
    receive();
  }
}

TEST_F(RingAllocation, ReceivesWithNothingBeyondTheDecodedMessage) {
  const Frames frames = encode(call_);
  const long decoding = allocations_of([&] { (void)decode(frames); });
  RecordProperty("per_decode", static_cast<int>(decoding));
  for (int i = 0; i < 1000; ++i) {
    near_->send(call_);
    ASSERT_EQ(allocations_of([&] { receive(); }), decoding) << i;
  }
}

TEST_F(RingAllocation, TakesATurnWithNothing) {
  const auto timer = loop_.call_after(std::chrono::hours(1), [] {});
  EXPECT_EQ(allocations_of([&] {
              for (int i = 0; i < 100; ++i) loop_.run_ready();
            }),
            0);
}

TEST_F(RingAllocation, DoesNotGrowWithTheNumberOfMessages) {
  const long first = allocations_of([&] {
    for (int i = 0; i < 1000; ++i) pass(call_);
  });
  const long second = allocations_of([&] {
    for (int i = 0; i < 1000; ++i) pass(call_);
  });
  EXPECT_EQ(first, second);
  EXPECT_EQ(got_, 2 * 2100);
}

}  // namespace
}  // namespace bulkhead
