#include "relay.h"

#include <chrono>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

// A home and another rank on one loop, over a real socket.
class Relay : public testing::Test {
 protected:
  void open(const std::string& secret = "s") {
    endpoint_ = "ipc://" + (directory_.path() / "relay").string();
    RelayHub::Handlers handlers;
    handlers.call = [this](std::int64_t rank, PluginId plugin, SharedCall call) {
      heard_.push_back("call " + std::to_string(rank) + " " + std::to_string(plugin.value) + " " + call.hook +
                       (call.input ? " with " + describe(*call.input) : ""));
    };
    handlers.supply = [this](std::int64_t, PluginId, std::int64_t number, Batch batch) {
      heard_.push_back("supply " + std::to_string(number) + " " + describe(batch));
    };
    handlers.want = [this](std::int64_t, PluginId, std::int64_t number) {
      heard_.push_back("want " + std::to_string(number));
    };
    auto hub = RelayHub::open({&loop_, Generation{4}, 0, "s"}, {"", endpoint_}, std::move(handlers));
    ASSERT_TRUE(hub.ok());
    hub_ = std::move(*hub);
    auto link = RelayLink::open({&loop_, Generation{4}, 1, secret}, endpoint_,
                                [this](PluginId plugin, std::int64_t number, Outcome outcome) {
                                  settled_.push_back({plugin.value, number});
                                  outcome_ = std::move(outcome);
                                });
    ASSERT_TRUE(link.ok());
    link_ = std::move(*link);
  }
  bool wait(const std::function<bool()>& done) { return loop_.run_until(done, loop_.now() + 10s); }

  TemporaryDirectory directory_;
  std::string endpoint_;
  EventLoop loop_;
  std::vector<std::string> heard_;
  std::vector<std::pair<std::int64_t, std::int64_t>> settled_;
  Outcome outcome_;
  std::unique_ptr<RelayHub> hub_;
  std::unique_ptr<RelayLink> link_;
};

Batch one_float() { return {{"x", DType::kFloat32, {1}, Blob::of(std::string(4, '\1'))}}; }

TEST_F(Relay, CarriesCallsInTheirOrder) {
  open();
  EXPECT_EQ(link_->call(PluginId{2}, {"on_step_end", {}, {}, 0}), 1);
  EXPECT_EQ(link_->call(PluginId{2}, {"transform_train_batch", {}, one_float(), 4}), 2);
  EXPECT_EQ(link_->call(PluginId{5}, {"on_step_end", {}, {}, 0}), 1) << "numbers are each plugin's own";
  link_->supply(PluginId{2}, 3, one_float());
  link_->want(PluginId{2}, 1);
  ASSERT_TRUE(wait([this] { return heard_.size() == 5; }));
  EXPECT_EQ(heard_, (std::vector<std::string>{"call 1 2 on_step_end",
                                              "call 1 2 transform_train_batch with x float32[1]",
                                              "call 1 5 on_step_end", "supply 3 x float32[1]", "want 1"}));
}

TEST_F(Relay, BringsTheWholeOutcomeBack) {
  open();
  link_->call(PluginId{2}, {"on_step_end", {}, {}, 0});
  ASSERT_TRUE(wait([this] { return !heard_.empty(); }));
  Outcome outcome;
  outcome.kind = Outcome::Kind::kError;
  outcome.control.stop = true;
  outcome.control.settings = {{"lr", 0.5, 2, 1}};
  outcome.batch = one_float();
  outcome.weights = one_float();
  outcome.skip = outcome.abort = outcome.fatal = true;
  outcome.reason = "why";
  outcome.notes.emplace_back().text = "a line";
  outcome.notes.emplace_back().metrics = {{"m", 2.0}};
  hub_->settle(1, PluginId{2}, 1, std::move(outcome));
  ASSERT_TRUE(wait([this] { return !settled_.empty(); }));
  EXPECT_EQ(settled_.front(), (std::pair<std::int64_t, std::int64_t>{2, 1}));
  EXPECT_EQ(outcome_.kind, Outcome::Kind::kError);
  EXPECT_TRUE(outcome_.control.stop);
  EXPECT_EQ(outcome_.control.settings.at(0).value, 0.5);
  EXPECT_EQ(describe(outcome_.batch), "x float32[1]");
  EXPECT_EQ(describe(outcome_.weights), "x float32[1]");
  EXPECT_TRUE(outcome_.skip && outcome_.abort && outcome_.fatal);
  EXPECT_EQ(outcome_.reason, "why");
  ASSERT_EQ(outcome_.notes.size(), 2u);
  EXPECT_EQ(outcome_.notes[0].text, "a line");
  EXPECT_EQ(outcome_.notes[1].metrics.at("m"), 2.0);
}

TEST_F(Relay, ListensToNobodyWithoutTheSecret) {
  open("another");
  link_->call(PluginId{2}, {"on_step_end", {}, {}, 0});
  EXPECT_FALSE(loop_.run_until([this] { return !heard_.empty(); }, loop_.now() + 200ms));
}

TEST_F(Relay, AnOutcomeForARankThatIsNotThereIsDropped) {
  open();
  hub_->settle(7, PluginId{2}, 1, {});
  EXPECT_TRUE(settled_.empty());
}

}  // namespace
}  // namespace bulkhead
