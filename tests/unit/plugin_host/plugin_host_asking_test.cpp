// The host's state machine while a hook waits for what it has asked its rank.
#include "plugin_host_fixture.h"

namespace bulkhead {
namespace {

// An all-gather's answer, with one part.
Answer answer_to(const Ask& ask, const std::string& part, Generation worker = kWorker) {
  Answer answer;
  answer.generation = worker;
  answer.seq = ask.seq;
  answer.number = ask.number;
  answer.batch = {{"0", DType::kUInt8, {static_cast<std::int64_t>(part.size())}, Blob::of(part)}};
  return answer;
}

class AskingHost : public PluginHostTest {
 protected:
  AskingHost() {
    welcome();
    load("asker");
    attach("data");
  }
  Peer& rank() { return peers_.at("data"); }
  std::string logged(const std::string& endpoint) {
    std::string lines;
    for (const Note& note : said<Note>(endpoint)) lines += note.text + "\n";
    return lines;
  }
};

TEST_F(AskingHost, GoesOnWithTheAnswerAndTakesLaterCallsInOrder) {
  rank().on_ask = [&](const Ask& ask) {
    if (ask.seq == Seq{1} && ask.number == 0) rank().channel->send(call_of(2, "on_step_end"));
    rank().channel->send(answer_to(ask, std::to_string(ask.seq.value)));
  };
  say("data", call_of(1, "on_epoch_start"));
  EXPECT_EQ(logged("data"), "1;\n1;\n2;\n");
  const auto replies = said<Reply>("data");
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].seq, Seq{1});
  EXPECT_EQ(replies[1].seq, Seq{2});
  EXPECT_FALSE(replies[0].failure || replies[1].failure);
}

TEST_F(AskingHost, TakesNoAnswerButItsOwn) {
  rank().on_ask = [&](const Ask& ask) {
    Ask other = ask;
    other.number = ask.number + 7;
    rank().channel->send(answer_to(other, "another number"));
    other = ask;
    other.seq = Seq{77};
    rank().channel->send(answer_to(other, "another call"));
    rank().channel->send(answer_to(ask, "another worker", Generation{99}));
    rank().channel->send(answer_to(ask, "its own"));
  };
  say("data", call_of(1, "on_step_end"));
  EXPECT_EQ(logged("data"), "its own;\n");
  rank().channel->send(answer_to(Ask{}, "nobody asked"));
  settle();
  say("data", call_of(2, "on_step_end"));
  EXPECT_EQ(said<Reply>("data").size(), 2u);
}

TEST_F(AskingHost, ShowsSignsOfLifeWhileItWaits) {
  int seconds_waited = 0;
  rank().on_ask = [&](const Ask& ask) {
    for (; seconds_waited < 3; ++seconds_waited) {
      clock_.advance(seconds(1));
      settle();
    }
    rank().channel->send(answer_to(ask, "late"));
  };
  const auto before = said<Heartbeat>("control").size();
  say("data", call_of(1, "on_step_end"));
  EXPECT_EQ(said<Heartbeat>("control").size(), before + 3);
  EXPECT_EQ(said<Reply>("data").size(), 1u);
}

TEST_F(AskingHost, EndsWhenToldToStopWhileItWaits) {
  rank().on_ask = [&](const Ask&) { peers_.at("control").channel->send(Stop{kCoordinator, "enough"}); };
  say("data", call_of(1, "on_log"));  // it would catch any std::exception
  EXPECT_EQ(status(), 0);
  EXPECT_TRUE(said<Reply>("data").empty());
  EXPECT_TRUE(said<Note>("data").empty());
}

TEST_F(AskingHost, EndsWhenTheCoordinatorGoesWhileItWaits) {
  rank().on_ask = [&](const Ask&) { peers_.at("control").channel->close(); };
  say("data", call_of(1, "on_step_end"));
  EXPECT_EQ(status(), 0);
}

TEST_F(AskingHost, ServesAnotherWorkerThatComesWhileItWaits) {
  rank().on_ask = [&](const Ask&) {
    peers_.at("control").channel->send(Attach{kCoordinator, "data2", Generation{8}});
  };
  say("data", call_of(1, "on_step_end"));
  EXPECT_TRUE(rank().closed);
  EXPECT_TRUE(said<Reply>("data").empty());
  say("data2", Welcome{Generation{8}});
  peers_.at("data2").on_ask = [&](const Ask& ask) {
    peers_.at("data2").channel->send(answer_to(ask, "again", Generation{8}));
  };
  say("data2", call_of(1, "on_step_end", Generation{8}));
  EXPECT_EQ(logged("data2"), "again;\n");
  EXPECT_EQ(said<Reply>("data2").size(), 1u);
  EXPECT_EQ(status(), -1);
}

TEST_F(AskingHost, WaitsForAnotherWorkerWhenItsWorkerGoesWhileItWaits) {
  rank().on_ask = [&](const Ask&) { rank().channel->close(); };
  say("data", call_of(1, "on_step_end"));
  EXPECT_EQ(status(), -1);
  attach("data2", Generation{8});
  EXPECT_TRUE(said<Reply>("data2").empty());
}

}  // namespace
}  // namespace bulkhead
