// Inputs of a stream that a host may change where they lie.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "protocol/arena.h"
#include "support/stream_probe.h"

namespace bulkhead {
namespace {

class GivenAway : public testing::Test {
 protected:
  // One float in memory that a host may write to.
  Batch given(float value) {
    const Slot slot = *arena_.allocate(4096);
    std::memcpy(slot.data, &value, sizeof value);
    last_ = slot.data;
    Blob blob = slot.blob();
    blob.size = sizeof value;
    return {{"x", DType::kFloat32, {1}, std::move(blob)}};
  }
  // As a host does it; answers with the piece.
  void change_in_place(Probe& probe, float value) {
    std::memcpy(last_, &value, sizeof value);
    Reply reply;
    reply.pieces = {{"x", "x", 0, DType::kFloat32, {1}, {1}}};
    probe.answer(std::move(reply));
  }

  Arena arena_{std::size_t{1} << 24, PeerAccess::kWrite};
  std::byte* last_ = nullptr;
  int made_again_ = 0;
  std::function<Batch()> again_ = [this] {
    ++made_again_;
    return batch_of(3);
  };
};

TEST_F(GivenAway, AreTheOutputAsTheyHaveBecome) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer_all();
  const Seq seq = probe.submit("transform_train_batch", 0, given(3), again_);
  EXPECT_EQ(probe.under_way.front().writable, std::vector<std::string>{"x"});
  change_in_place(probe, 7);
  probe.stream.want(seq);
  const Batch& output = probe.settled.at(seq.value).batch;
  EXPECT_EQ(value_of(output), 7);
  EXPECT_EQ(output[0].bytes.data, last_) << "nothing was copied";
  EXPECT_EQ(made_again_, 0);
}

TEST_F(GivenAway, AreMadeAnewForARetryAndNotGivenAwayAgain) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer_all();
  const Seq seq = probe.submit("transform_train_batch", 0, given(3), again_);
  const float half_done = 99;
  std::memcpy(last_, &half_done, sizeof half_done);
  probe.lose();
  probe.attach();
  while (!probe.under_way.empty() && probe.under_way.front().hook != "transform_train_batch") probe.answer();
  ASSERT_FALSE(probe.under_way.empty());
  EXPECT_EQ(value_of(probe.under_way.front().batch), 3);
  EXPECT_TRUE(probe.under_way.front().writable.empty());
  probe.answer_doubled();
  probe.stream.want(seq);
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 6);
}

TEST_F(GivenAway, ComeBackUnharmedWhereThePluginRaised) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer_all();
  const Seq seq = probe.submit("transform_train_batch", 0, given(3), again_);
  const float half_done = 99;
  std::memcpy(last_, &half_done, sizeof half_done);
  Reply reply;
  reply.failure = Failure{"ValueError", "no", ""};
  probe.answer(std::move(reply));
  probe.stream.want(seq);
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 3);
  EXPECT_EQ(probe.dead_letters, 1);
}

TEST_F(GivenAway, AreNotKeptByTheJournalWhichMakesThemAnew) {
  Probe probe(route_with({"transform_train_batch", "state_dict"}, true));
  probe.attach();
  probe.answer_all();
  const Seq seq = probe.submit("transform_train_batch", 0, given(3), again_);
  change_in_place(probe, 7);
  probe.stream.want(seq);
  probe.settled.clear();  // the trainer is done with it
  const Slot reused = *arena_.allocate(4096);
  EXPECT_EQ(reused.data, last_);
  probe.lose();
  probe.attach();
  while (!probe.under_way.empty() && probe.under_way.front().hook != "transform_train_batch") probe.answer();
  ASSERT_FALSE(probe.under_way.empty());
  EXPECT_TRUE(probe.under_way.front().context.replaying);
  EXPECT_EQ(value_of(probe.under_way.front().batch), 3);
}

TEST_F(GivenAway, AreNoPiecesForHooksThatHaveNone) {
  Probe probe(route_with({"transform_image"}, false));
  probe.attach();
  probe.answer_all();
  const Seq seq = probe.submit("transform_image", 0, batch_of(3));
  Reply reply;
  reply.pieces = {{"x", "x", 0, DType::kFloat32, {1}, {1}}};
  probe.answer(std::move(reply));
  probe.stream.want(seq);
  EXPECT_EQ(probe.settled.at(seq.value).kind, Outcome::Kind::kError);
  EXPECT_EQ(probe.settled.at(seq.value).reason, "transform_image has no pieces to give");
}

}  // namespace
}  // namespace bulkhead
