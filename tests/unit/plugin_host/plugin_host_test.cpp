// The host's state machine over memory channels and a clock that the test
// moves.

#include "plugin_host.h"

#include <functional>
#include <map>

#include <gtest/gtest.h>

#include "support/fake_clock.h"

namespace bulkhead {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Generation kHost{5};
constexpr Generation kCoordinator{1};
constexpr Generation kWorker{2};

// The other end of one connection.
struct Peer {
  std::unique_ptr<Channel> channel;
  std::vector<Message> got;
  bool closed = false;
  // What happens when the host asks there; the host waits meanwhile.
  std::function<void(const Ask&)> on_ask;
};

class PluginHostTest : public testing::Test {
 protected:
  PluginHostTest() {
    PluginHostOptions options;
    options.endpoint = "control";
    options.secret = "s3cret";
    options.generation = kHost;
    options.plugin = PluginId{4};
    options.rank = 1;
    host_.emplace(loop_, options, [this](const std::string& endpoint) { return connect(endpoint); });
    host_->start();
    settle();
  }

  Result<std::unique_ptr<Channel>> connect(const std::string& endpoint) {
    if (endpoint == "nowhere") return Error{ErrorCode::kUnavailable, "nobody listens at nowhere"};
    auto [near, far] = memory_channels(loop_, loop_);
    Peer& peer = peers_[endpoint];
    peer = {std::move(far), {}, false, {}};
    peer.channel->start({[&peer](Message message) {
                           peer.got.push_back(std::move(message));
                           const auto* ask = std::get_if<Ask>(&peer.got.back());
                           if (ask != nullptr && peer.on_ask) peer.on_ask(Ask(*ask));
                         },
                         [&peer](const Error&) { peer.closed = true; }});
    return std::move(near);
  }

  void settle() {
    while (loop_.run_ready()) {
    }
  }
  void advance(Duration duration) {
    clock_.advance(duration);
    settle();
  }
  void say(const std::string& endpoint, const Message& message) {
    peers_.at(endpoint).channel->send(message);
    settle();
  }
  // All messages of one type that the host has said there.
  template <class T>
  std::vector<T> said(const std::string& endpoint) {
    std::vector<T> found;
    for (const Message& message : peers_.at(endpoint).got) {
      if (const T* body = std::get_if<T>(&message)) found.push_back(*body);
    }
    return found;
  }

  void welcome() { say("control", Welcome{kCoordinator}); }
  void load(const std::string& name = "echo") {
    Load load;
    load.generation = kCoordinator;
    load.config.file = BULKHEAD_BUILD_DIR "/tests/plugins/" + name + ".so";
    load.facts.plugin = "mine";
    load.facts.map_loc = {{"cuda:0", "cpu"}};
    say("control", load);
  }
  void attach(const std::string& endpoint, Generation worker = kWorker) {
    say("control", Attach{kCoordinator, endpoint, worker});
    say(endpoint, Welcome{worker});
  }
  void serve() {
    welcome();
    load();
    attach("data");
  }
  static Call call_of(std::int64_t seq, const std::string& hook, Generation worker = kWorker) {
    Call call;
    call.generation = worker;
    call.seq = Seq{seq};
    call.hook = hook;
    return call;
  }
  int status() const { return host_->exit_status().value_or(-1); }

  FakeClock clock_;
  EventLoop loop_{clock_};
  std::map<std::string, Peer> peers_;
  std::optional<PluginHost> host_;
};

TEST_F(PluginHostTest, GreetsWithWhatItWasGiven) {
  const auto hellos = said<Hello>("control");
  ASSERT_EQ(hellos.size(), 1u);
  EXPECT_EQ(hellos[0].generation, kHost);
  EXPECT_EQ(hellos[0].role, "host");
  EXPECT_EQ(hellos[0].rank, 1);
  EXPECT_EQ(hellos[0].plugin, PluginId{4});
  EXPECT_EQ(refusal(hellos[0], "s3cret"), "");
  EXPECT_EQ(status(), -1);
}

TEST_F(PluginHostTest, GivesUpWithoutAWelcome) {
  advance(seconds(29));
  EXPECT_EQ(status(), -1);
  advance(seconds(2));
  EXPECT_EQ(status(), 2);
}

TEST_F(PluginHostTest, EndsWith2WhenRefused) {
  say("control", Refuse{kCoordinator, "too old"});
  EXPECT_EQ(status(), 2);
}

TEST_F(PluginHostTest, LoadsAttachesAndAnswersInOrder) {
  serve();
  ASSERT_EQ(said<Loaded>("control").size(), 1u);
  EXPECT_EQ(said<Loaded>("control")[0].traits.class_name, "Echo");
  EXPECT_EQ(said<Hello>("data").size(), 1u);
  for (std::int64_t seq = 1; seq <= 16; ++seq) peers_.at("data").channel->send(call_of(seq, "on_step_end"));
  settle();
  const auto replies = said<Reply>("data");
  ASSERT_EQ(replies.size(), 16u);
  for (std::size_t i = 0; i < replies.size(); ++i) {
    EXPECT_EQ(replies[i].seq, Seq{static_cast<std::int64_t>(i) + 1});
    EXPECT_EQ(replies[i].generation, kHost);
  }
}

TEST_F(PluginHostTest, SendsNotesOfACallBeforeItsReply) {
  serve();
  Call call = call_of(1, "on_epoch_start");
  call.context.metrics = {{"loss", 1.0}};
  say("data", call);
  const auto& got = peers_.at("data").got;
  ASSERT_EQ(got.size(), 5u);  // hello, two notes, progress, reply
  EXPECT_TRUE(std::holds_alternative<Note>(got[1]));
  EXPECT_TRUE(std::holds_alternative<Progress>(got[3]));
  EXPECT_TRUE(std::holds_alternative<Reply>(got[4]));
}

TEST_F(PluginHostTest, AsksForChangesOfTheRunBeforeItServes) {
  welcome();
  load("configurer");
  Configure configure;
  configure.generation = kCoordinator;
  configure.config = {{"optimizer", {{"lr", 0.5}}}, {"plugins", Value::array()}};
  say("control", configure);
  const auto configured = said<Configured>("control");
  ASSERT_EQ(configured.size(), 1u);
  EXPECT_EQ(configured[0].generation, kHost);
  EXPECT_EQ(configured[0].changes["optimizer.lr"], 1.0);
  EXPECT_EQ(configured[0].changes["checkpoint.keep"], 0);
  configure.config = Value::object();
  say("control", configure);
  EXPECT_TRUE(said<Configured>("control").at(1).failure);
  attach("data");
  say("control", configure);  // too late
  EXPECT_EQ(said<Configured>("control").size(), 2u);
  EXPECT_EQ(status(), -1);
}

// ----- Asking -----

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

// ----- Between calls -----

TEST_F(PluginHostTest, ListensToTheCoordinatorBetweenTwoCalls) {
  serve();
  for (std::int64_t seq = 1; seq <= 16; ++seq) peers_.at("data").channel->send(call_of(seq, "on_step_end"));
  peers_.at("control").channel->send(Stop{kCoordinator, "enough"});
  settle();
  EXPECT_EQ(status(), 0);
  EXPECT_LT(said<Reply>("data").size(), 16u);
}

TEST_F(PluginHostTest, DropsCallsOfAnotherGeneration) {
  serve();
  say("data", call_of(1, "on_step_end", Generation{1}));
  say("control", Stop{Generation{99}, "from a coordinator that is gone"});
  EXPECT_TRUE(said<Reply>("data").empty());
  EXPECT_EQ(status(), -1);
}

TEST_F(PluginHostTest, KeepsThePluginWhenItsWorkerIsReplaced) {
  serve();
  say("data", call_of(1, "on_step_end"));
  attach("data2", Generation{8});
  EXPECT_TRUE(peers_.at("data").closed);
  say("data2", call_of(1, "state_dict", Generation{8}));
  const auto replies = said<Reply>("data2");
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_GT(replies[0].state.size, 0u);  // made by the call of the first worker
}

TEST_F(PluginHostTest, WaitsForAnotherWorkerWhenItsWorkerGoes) {
  serve();
  peers_.at("data").channel->close();
  settle();
  EXPECT_EQ(status(), -1);
  attach("data2", Generation{8});
  say("data2", call_of(1, "on_step_end", Generation{8}));
  EXPECT_EQ(said<Reply>("data2").size(), 1u);
}

TEST_F(PluginHostTest, ReportsAPluginThatCannotBeLoadedAndEndsWith2) {
  welcome();
  load("no_note");
  const auto failed = said<LoadFailed>("control");
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].stage, "import");
  EXPECT_EQ(status(), -1);  // the report must leave first
  advance(seconds(2));
  EXPECT_EQ(status(), 2);
}

TEST_F(PluginHostTest, EndsWith2AfterALoadFailureAlsoWhenToldToStop) {
  welcome();
  load("no_note");
  say("control", Stop{kCoordinator, "refused"});
  EXPECT_EQ(status(), 2);
}

TEST_F(PluginHostTest, BeatsEachSecondOnceWelcomed) {
  advance(seconds(1));
  EXPECT_TRUE(said<Heartbeat>("control").empty());
  welcome();
  for (int i = 0; i < 3; ++i) advance(seconds(1));
  EXPECT_EQ(said<Heartbeat>("control").size(), 3u);
  EXPECT_EQ(said<Heartbeat>("control")[0].generation, kHost);
}

TEST_F(PluginHostTest, EndsWith0WhenToldToStopOrLeftAlone) {
  serve();
  peers_.at("control").channel->close();
  settle();
  EXPECT_EQ(status(), 0);
}

TEST_F(PluginHostTest, EndsWith1WhenItCannotConnect) {
  welcome();
  load();
  say("control", Attach{kCoordinator, "nowhere", kWorker});
  EXPECT_EQ(status(), 1);
}

TEST_F(PluginHostTest, IgnoresWhatIsNotExpected) {
  say("control", Stop{Generation{3}, "before the welcome"});
  welcome();
  say("control", Attach{kCoordinator, "early", kWorker});
  EXPECT_FALSE(peers_.contains("early"));
  say("control", StoreReady{kCoordinator, "h", 1});
  load();
  load();
  EXPECT_EQ(said<Loaded>("control").size(), 1u);
  EXPECT_EQ(status(), -1);
}

TEST(PluginHostOptions, NameTheVariableThatIsMissingOrWrong) {
  ::unsetenv("BULKHEAD_ENDPOINT");
  EXPECT_EQ(options_from_environment().error().message,
            "BULKHEAD_ENDPOINT is not set: bulkhead-plugin-host is started by the coordinator, not by hand");
  ::setenv("BULKHEAD_ENDPOINT", "ipc://x", 1);
  ::setenv("BULKHEAD_SECRET", "s", 1);
  ::setenv("BULKHEAD_GENERATION", "7x", 1);
  EXPECT_EQ(options_from_environment().error().message, "BULKHEAD_GENERATION is \"7x\", not a number");
  ::setenv("BULKHEAD_GENERATION", "7", 1);
  ::setenv("BULKHEAD_PLUGIN", "2", 1);
  ::setenv("BULKHEAD_RANK", "1", 1);
  const auto options = options_from_environment();
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->generation, Generation{7});
  EXPECT_EQ(options->plugin, PluginId{2});
  EXPECT_EQ(options->rank, 1);
}

}  // namespace
}  // namespace bulkhead
