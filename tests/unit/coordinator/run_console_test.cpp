// What a person reads off a terminal: lines for metrics and events, each kind
// of error once, the closing lines.
#include "run_console.h"

#include <unistd.h>

#include <gtest/gtest.h>

#include "protocol/result.h"

namespace bulkhead {
namespace {

class Console : public ::testing::Test {
 protected:
  Console() {
    CHECK(::pipe(ends_) == 0);
    config_.name = "r";
    config_.train.max_epochs = 3;
  }
  ~Console() override {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  int output() const { return ends_[1]; }
  std::string written() const {
    const char end = '\0';
    CHECK(::write(ends_[1], &end, 1) == 1);
    std::string text;
    for (char c = 1; ::read(ends_[0], &c, 1) == 1 && c != end;) text += c;
    return text;
  }

  RunConfig config_;

 private:
  int ends_[2] = {-1, -1};
};

TEST_F(Console, DoesNotSayStartingInALineOfTraining) {
  RunConsole console(output(), config_, 0);
  console.refresh("starting", {}, TimePoint());
  console.metrics({{"step", 1}, {"epoch", 0}, {"loss", 2.5}}, TimePoint());
  EXPECT_EQ(written(), "r  step 1  loss 2.5000  epoch 1/3\n");
}

TEST_F(Console, KnowsTheEndThatAPluginConfigured) {
  RunConsole console(output(), config_, 0);
  config_.train.max_steps = 50;
  console.configure(config_);
  console.metrics({{"step", 1}, {"epoch", 0}, {"loss", 2.5}}, TimePoint());
  EXPECT_EQ(written(), "r  step 1/50  loss 2.5000  epoch 1/3\n");
}

TEST_F(Console, ShowsValidationsAndTheTestAsLinesOfTheirOwn) {
  RunConsole console(output(), config_, 0);
  console.metrics({{"step", 4}, {"validation", {{"loss", 1.5}}}}, TimePoint());
  console.metrics({{"step", 9}, {"test", {{"loss", 1.25}, {"accuracy", 0.5}}}}, TimePoint());
  EXPECT_EQ(written(), "step 4: validation loss 1.5\nstep 9: test accuracy 0.5, loss 1.25\n");
}

TEST_F(Console, TellsOfEachKindOfErrorOnce) {
  RunConsole console(output(), config_, 0);
  Event error{.event = "error", .plugin = "early", .rank = 0};
  error.reason = "ValueError: no";
  for (std::int64_t step = 0; step < 3; ++step) {
    error.step = step;
    console.event(error);
  }
  error.rank = 1;
  console.event(error);
  EXPECT_EQ(written(),
            "early/0: error: ValueError: no at step 0\nearly/1: error: ValueError: no at step 2\n");
}

TEST(ClosingLines, CountTheErrorsOfEachKind) {
  Summary summary;
  summary.status = "completed";
  summary.test = {{"loss", 1.25}};
  PluginSummary plugin;
  plugin.name = "early";
  plugin.state = "ready";
  plugin.errors = 3;
  plugin.errors_by_kind = {{"KeyError: x", 1}, {"ValueError: no", 2}};
  summary.plugins = {plugin};
  EXPECT_EQ(closing_lines(summary, "runs/r"),
            (std::vector<std::string>{"completed after 0 steps", "  test: loss 1.25",
                                      "  early  ready, 0 calls, 3 errors", "    1 × KeyError: x",
                                      "    2 × ValueError: no", "  runs/r"}));
}

}  // namespace
}  // namespace bulkhead
