// What a person sees: the block at any width, redrawing in place, and plain
// lines.
#include "progress_display.h"

#include <unistd.h>

#include <gtest/gtest.h>

#include "protocol/result.h"

namespace bulkhead {
namespace {

using Lines = std::vector<std::string>;

ProgressState halfway() {
  ProgressState state;
  state.run = "shakespeare";
  state.step = 120;
  state.first_step = 20;
  state.max_steps = 500;
  state.loss = 2.34119;
  state.tokens_per_second = 12345;
  state.seconds = 20;
  state.plugins = {{"early", "ready", 0}, {"token_noise/1", "restarting", 2}, {"log", "disabled", 1}};
  return state;
}

TEST(Progress, ShowsTheStepTheLossTheRateAndTheTimeLeft) {
  EXPECT_EQ(render(halfway(), 100),
            (Lines{"shakespeare  step 120/500  loss 2.3412  12.3k tokens/s  ETA 1:16  epoch 1",
                   "  early          ready", "  token_noise/1  restarting  2 restarts",
                   "  log            disabled  1 restart"}));
}

TEST(Progress, NamesThePhaseAndLeavesOutWhatIsNotKnown) {
  ProgressState state;
  state.run = "r";
  state.phase = "starting";
  EXPECT_EQ(render(state, 100), Lines{"r  starting  step 0  epoch 1"});
}

TEST(Progress, ShowsHowManyEpochsThereWillBe) {
  ProgressState state;
  state.run = "r";
  state.step = 7;
  state.epoch = 1;
  state.max_epochs = 3;
  EXPECT_EQ(plain_line(state), "r  step 7  epoch 2/3");
}

TEST(Progress, FitsAnyWidth) {
  ProgressState state = halfway();
  state.plugins.push_back({"größe", "an\x1b[2Jd\nmore", 0});
  for (std::size_t width = 0; width < 100; ++width) {
    for (const std::string& line : render(state, width)) {
      std::size_t columns = 0;
      for (const char c : line) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1 : 0;
      EXPECT_LE(columns, width) << line;
      EXPECT_EQ(line.find_first_of("\x1b\n"), std::string::npos);
    }
  }
  EXPECT_EQ(render(state, 30)[0], "shakespeare  step 120/500");
  EXPECT_EQ(render(state, 6)[0], "shake…");
}

TEST(Progress, EstimatesFromTheStepsOfThisProcessOnly) {
  ProgressState state = halfway();
  EXPECT_DOUBLE_EQ(eta_seconds(state).value(), 76);
  state.step = 500;
  EXPECT_DOUBLE_EQ(eta_seconds(state).value(), 0);
  state.step = 20;
  EXPECT_EQ(eta_seconds(state), std::nullopt);
  state.step = 30;
  state.max_steps = 0;
  EXPECT_EQ(eta_seconds(state), std::nullopt);
}

TEST(Progress, WritesTimesAsClocksDo) {
  EXPECT_EQ(clock_time(0), "0:00");
  EXPECT_EQ(clock_time(65), "1:05");
  EXPECT_EQ(clock_time(3599.6), "1:00:00");
  EXPECT_EQ(clock_time(7384), "2:03:04");
  EXPECT_EQ(clock_time(-1), "–");
}

// What a display writes, read from a pipe.
class Display : public ::testing::Test {
 protected:
  Display() { CHECK(::pipe(ends_) == 0); }
  ~Display() override {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  int output() const { return ends_[1]; }
  // All that was written since the last call.
  std::string written() const {
    const char end = '\0';
    CHECK(::write(ends_[1], &end, 1) == 1);
    std::string text;
    for (char c = 1; ::read(ends_[0], &c, 1) == 1 && c != end;) text += c;
    return text;
  }
  static TimePoint at(int milliseconds) { return TimePoint(std::chrono::milliseconds(milliseconds)); }

 private:
  int ends_[2] = {-1, -1};
};

TEST_F(Display, OffATerminalWritesLinesForLogStepsAndEvents) {
  ProgressDisplay display(output());
  const ProgressState state = halfway();
  display.update(state, at(0));
  EXPECT_EQ(written(), "");
  display.log_step(state, at(1));
  EXPECT_EQ(written(), "shakespeare  step 120/500  loss 2.3412  12.3k tokens/s  ETA 1:16  epoch 1\n");
  display.event("plugin early crashed\nSIGSEGV");
  display.finish();
  EXPECT_EQ(written(), "plugin early crashed SIGSEGV\n");
}

TEST_F(Display, OnATerminalIsRedrawnInPlaceTenTimesASecondAtMost) {
  ProgressDisplay display(output(), true, 31, 24);
  ProgressState state = halfway();
  state.plugins.resize(1);
  display.update(state, at(0));
  EXPECT_EQ(written(), "shakespeare  step 120/500\n  early  ready\n");
  state.step = 121;
  display.update(state, at(99));
  EXPECT_EQ(written(), "");
  display.log_step(state, at(100));
  EXPECT_EQ(written(), "\x1b[2A\r\x1b[Jshakespeare  step 121/500\n  early  ready\n");
}

TEST_F(Display, OnATerminalPutsEventsAboveTheBlockAndEndsWithTheLastState) {
  ProgressDisplay display(output(), true, 31, 24);
  ProgressState state = halfway();
  state.plugins.clear();
  display.event("begin");
  display.update(state, at(0));
  display.event("crash");
  EXPECT_EQ(written(), "begin\nshakespeare  step 120/500\n\x1b[1A\r\x1b[Jcrash\nshakespeare  step 120/500\n");
  state.step = 500;
  display.update(state, at(1));
  display.finish();
  EXPECT_EQ(written(), "\x1b[1A\r\x1b[Jshakespeare  step 500/500\n");
  display.event("end");
  EXPECT_EQ(written(), "end\n");
}

TEST_F(Display, IsNeverHigherThanTheTerminal) {
  ProgressDisplay display(output(), true, 31, 3);
  display.update(halfway(), at(0));
  EXPECT_EQ(written(), "shakespeare  step 120/500\n  … 3 more\n");
}

}  // namespace
}  // namespace bulkhead
