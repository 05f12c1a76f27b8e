#include "protocol/log.h"

#include <cstdlib>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

class Log : public testing::Test {
 protected:
  void SetUp() override { ::unsetenv("BULKHEAD_LOG"); }
  void TearDown() override { ::unsetenv("BULKHEAD_LOG"); }
};

TEST_F(Log, NamesTheProcessAndTheLevelInEachLine) {
  testing::internal::CaptureStderr();
  start_log("worker-3");
  spdlog::warn("the sea is rough");
  spdlog::debug("not by default");
  const std::string written = testing::internal::GetCapturedStderr();
  EXPECT_NE(written.find(" warning [worker-3] the sea is rough\n"), std::string::npos) << written;
  EXPECT_EQ(written.find("not by default"), std::string::npos) << written;
}

TEST_F(Log, TakesItsLevelFromTheEnvironment) {
  ::setenv("BULKHEAD_LOG", "debug", 1);
  start_log("worker-3");
  EXPECT_EQ(spdlog::default_logger()->level(), spdlog::level::debug);
  ::setenv("BULKHEAD_LOG", "off", 1);
  start_log("worker-3");
  EXPECT_EQ(spdlog::default_logger()->level(), spdlog::level::off);
}

TEST_F(Log, DoesNotFallSilentOverALevelThatDoesNotExist) {
  ::setenv("BULKHEAD_LOG", "chatty", 1);
  testing::internal::CaptureStderr();
  start_log("worker-3");
  EXPECT_EQ(spdlog::default_logger()->level(), spdlog::level::info);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("BULKHEAD_LOG=chatty"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead
