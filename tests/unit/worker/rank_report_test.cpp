#include "rank_report.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

RankReport back(const RankReport& report) {
  Result<RankReport> read = report_from(to_bytes(report));
  EXPECT_TRUE(read.ok());
  return read.ok() ? *read : RankReport{};
}

TEST(RankReport, ComesBackAsItWasSaid) {
  RankReport report;
  report.loss_sum = 2.5;
  report.weight = 2;
  report.control.stop = true;
  report.control.reason = "enough";
  report.control.settings = {{"lr", 0.25, 3, 1}, {"save_every", 7, 0, 1}};
  report.given_up = {4};
  report.interrupt = "SIGTERM to rank 1";
  report.fatal = "p: E: m";
  report.weights_of = 2;
  const RankReport read = back(report);
  EXPECT_EQ(read.loss_sum, 2.5);
  EXPECT_EQ(read.control, report.control);
  EXPECT_EQ(read.given_up, report.given_up);
  EXPECT_EQ(read.interrupt, report.interrupt);
  EXPECT_EQ(read.fatal, report.fatal);
  EXPECT_EQ(read.weights_of, 2);
}

TEST(RankReport, ARateGivenBackToTheScheduleStaysNone) {
  RankReport report;
  report.control.settings = {{"lr", std::nullopt, 0, 0}};
  EXPECT_FALSE(back(report).control.settings.at(0).value.has_value());
}

TEST(RankReport, RefusesWhatIsNoReport) { EXPECT_FALSE(report_from("no").ok()); }

TEST(RankReport, RanksAgreeOnOneValueOfEachSetting) {
  RankReport first;
  first.control.settings = {{"lr", 0.1, 0, 0}, {"log_every", 5, 2, 0}};
  RankReport second;
  second.control.settings = {{"lr", 0.2, 1, 1}, {"log_every", 6, 2, 1}};
  const Agreement agreement = agree({first, second});
  ASSERT_EQ(agreement.control.settings.size(), 2u);
  EXPECT_EQ(agreement.control.settings[0].value, 5) << "within a plugin the lowest rank";
  EXPECT_EQ(agreement.control.settings[1].value, 0.2) << "the plugin that is last in the list";
}

TEST(RankReport, TheLowestRankSpeaksForAFatalExceptionAndAnInterrupt) {
  RankReport quiet;
  RankReport second;
  second.fatal = "second";
  second.interrupt = "SIGTERM to rank 1";
  RankReport third;
  third.fatal = "third";
  const Agreement agreement = agree({quiet, second, third});
  EXPECT_EQ(agreement.fatal, "second");
  EXPECT_EQ(agreement.interrupt, "SIGTERM to rank 1");
}

TEST(RankReport, WeightsComeFromTheLastPluginsLowestRank) {
  RankReport none;
  RankReport early;
  early.weights_of = 1;
  RankReport late;
  late.weights_of = 2;
  EXPECT_EQ(agree({none, none}).weights_root, -1);
  EXPECT_EQ(agree({early, late, late}).weights_root, 1);
  EXPECT_EQ(agree({late, early}).weights_root, 0);
}

}  // namespace
}  // namespace bulkhead
