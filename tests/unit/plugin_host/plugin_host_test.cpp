// The host's state machine.
#include "plugin_host_fixture.h"

namespace bulkhead {
namespace {

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
