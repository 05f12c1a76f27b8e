#include "communicator.h"

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "support/rank_threads.h"

namespace bulkhead {
namespace {

using testing::kMeetTimeout;
using testing::meet;
using testing::run_ranks;
using Clock = std::chrono::steady_clock;

// Every promise of communicator.h, for worlds of one (solo) to four (gloo).
class CommunicatorContract : public ::testing::TestWithParam<std::int64_t> {
 protected:
  void in_every_rank(const std::function<void(Communicator&)>& body) { run_ranks(GetParam(), body); }
};
INSTANTIATE_TEST_SUITE_P(World, CommunicatorContract, ::testing::Values(1, 2, 4));

TEST_P(CommunicatorContract, SumsOverRanks) {
  in_every_rank([&](Communicator& communicator) {
    at::Tensor tensor = at::full({1000}, static_cast<double>(communicator.rank().value + 1), at::kFloat);
    ASSERT_TRUE(communicator.all_reduce_sum(tensor).ok());
    const auto world = static_cast<double>(GetParam());
    EXPECT_TRUE(at::equal(tensor, at::full({1000}, world * (world + 1) / 2, at::kFloat)));
  });
}

TEST_P(CommunicatorContract, BroadcastsFromAnyRank) {
  in_every_rank([&](Communicator& communicator) {
    for (std::int64_t root = 0; root < GetParam(); ++root) {
      at::Tensor tensor = at::full({3}, static_cast<double>(communicator.rank().value * 10), at::kDouble);
      ASSERT_TRUE(communicator.broadcast(tensor, WorkerId(root)).ok());
      EXPECT_TRUE(at::equal(tensor, at::full({3}, static_cast<double>(root * 10), at::kDouble)));
    }
  });
}

TEST_P(CommunicatorContract, GathersBytesOfAnyLengthInRankOrder) {
  in_every_rank([&](Communicator& communicator) {
    for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{1020}, std::size_t{1021},
                                     std::size_t{5000}, kMaxGatherBytes}) {
      const auto bytes_of = [&](std::int64_t rank) {
        // Only rank 0 has the long text: the others must follow it.
        return std::string(rank == 0 ? length : 3, static_cast<char>('a' + rank));
      };
      const auto gathered = communicator.all_gather(bytes_of(communicator.rank().value));
      ASSERT_TRUE(gathered.ok()) << gathered.error().message;
      ASSERT_EQ(gathered->size(), static_cast<std::size_t>(GetParam()));
      for (std::int64_t rank = 0; rank < GetParam(); ++rank) {
        EXPECT_EQ((*gathered)[static_cast<std::size_t>(rank)], bytes_of(rank)) << "length " << length;
      }
    }
  });
}

TEST_P(CommunicatorContract, GathersBehindOtherCollectives) {
  in_every_rank([&](Communicator& communicator) {
    auto first = communicator.start_all_gather(std::string(2000, 'x'));
    auto second = communicator.start_all_gather("y");
    at::Tensor tensor = at::ones({10});
    ASSERT_TRUE(communicator.all_reduce_sum(tensor).ok());
    EXPECT_EQ(first.wait()->back(), std::string(2000, 'x'));
    EXPECT_EQ(second.wait()->back(), "y");
  });
}

TEST_P(CommunicatorContract, ReportsItsPlaceAndPassesBarriers) {
  in_every_rank([&](Communicator& communicator) {
    EXPECT_EQ(communicator.world_size(), GetParam());
    EXPECT_LT(communicator.rank(), WorkerId(GetParam()));
    EXPECT_EQ(communicator.is_solo(), GetParam() == 1);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(communicator.barrier().ok());
  });
}

TEST(GlooCommunicator, AbortEndsAWaitFromAnotherThread) {
  const auto hosted = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
  ASSERT_TRUE(hosted.ok());
  std::promise<Communicator*> waiting;
  std::promise<void> aborted;
  std::promise<void> over;
  std::jthread silent([&] {
    const auto communicator = meet(WorkerId(1), 2, *hosted);
    over.get_future().wait();
  });
  Clock::time_point aborted_at;
  std::jthread stuck([&] {
    const auto communicator = meet(WorkerId(0), 2, *hosted);
    waiting.set_value(communicator.get());
    at::Tensor tensor = at::ones({10});
    const auto sum = communicator->all_reduce_sum(tensor);
    EXPECT_FALSE(sum.ok());
    EXPECT_LT(Clock::now() - aborted_at, std::chrono::seconds(5));
    EXPECT_FALSE(communicator->all_gather("later").ok());
    EXPECT_FALSE(communicator->barrier().ok());
    communicator->abort();
    // Nobody may delete what another thread is still aborting.
    aborted.get_future().wait();
    over.set_value();
  });
  Communicator* communicator = waiting.get_future().get();
  aborted_at = Clock::now();
  communicator->abort();
  aborted.set_value();
}

TEST(GlooCommunicator, GivesUpAtItsTimeout) {
  const auto hosted = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
  ASSERT_TRUE(hosted.ok());
  CommunicatorOptions options;
  options.rank = WorkerId(0);
  options.world_size = 2;
  options.timeout = std::chrono::milliseconds(300);
  const auto alone = make_gloo_communicator(*hosted, options);
  ASSERT_FALSE(alone.ok());
  EXPECT_EQ(alone.error().code, ErrorCode::kTimeout) << alone.error().message;
}

TEST(GlooCommunicator, KeepsGenerationsApart) {
  const auto hosted = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
  ASSERT_TRUE(hosted.ok());
  for (std::int64_t generation = 1; generation <= 2; ++generation) {
    std::vector<std::jthread> ranks;
    for (std::int64_t rank = 0; rank < 2; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto communicator = meet(WorkerId(rank), 2, *hosted, Generation(generation));
        ASSERT_NE(communicator, nullptr);
        EXPECT_EQ(communicator->all_gather(std::to_string(generation))->front(), std::to_string(generation));
      });
    }
  }
}

TEST(Rendezvous, SaysWhenThePortIsInUse) {
  const auto first = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
  ASSERT_TRUE(first.ok());
  const auto second = Rendezvous::host("127.0.0.1", first->port(), kMeetTimeout);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().message,
            "cannot listen on 127.0.0.1:" + std::to_string(first->port()) + ": the port is in use");
}

TEST(Rendezvous, GivesUpWhereNobodyListens) {
  std::uint16_t free_port = 0;
  {
    const auto gone = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
    ASSERT_TRUE(gone.ok());
    free_port = gone->port();
  }
  EXPECT_FALSE(Rendezvous::connect("127.0.0.1", free_port, std::chrono::milliseconds(500)).ok());
}

// ----- A rank that is killed, as a process of its own -----

constexpr const char* kPortVariable = "BULKHEAD_TEST_RENDEZVOUS_PORT";

// The victim: runs only when KilledRank starts it.
TEST(GlooCommunicatorVictim, DISABLED_IsKilledInsideTheRun) {
  const char* port = std::getenv(kPortVariable);
  ASSERT_NE(port, nullptr);
  const auto rendezvous =
      Rendezvous::connect("127.0.0.1", static_cast<std::uint16_t>(std::atoi(port)), kMeetTimeout);
  ASSERT_TRUE(rendezvous.ok());
  CommunicatorOptions options;
  options.rank = WorkerId(1);
  options.world_size = 2;
  options.generation = Generation(1);
  options.timeout = kMeetTimeout;
  const auto communicator = make_gloo_communicator(*rendezvous, options);
  ASSERT_TRUE(communicator.ok());
  ASSERT_TRUE((*communicator)->barrier().ok());
  raise(SIGKILL);
}

pid_t start_victim(std::uint16_t port) {
  setenv(kPortVariable, std::to_string(port).c_str(), 1);
  const char* arguments[] = {"victim", "--gtest_also_run_disabled_tests",
                             "--gtest_filter=GlooCommunicatorVictim.*", nullptr};
  pid_t pid = -1;
  const int code =
      posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, const_cast<char**>(arguments), environ);
  return code == 0 ? pid : -1;
}

TEST(GlooCommunicator, FailsAtOnceWhenARankIsKilled) {
  std::signal(SIGPIPE, SIG_IGN);  // as the worker does
  const auto hosted = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
  ASSERT_TRUE(hosted.ok());
  const pid_t victim = start_victim(hosted->port());
  ASSERT_GT(victim, 0);
  const auto communicator = meet(WorkerId(0), 2, *hosted);
  ASSERT_NE(communicator, nullptr);
  ASSERT_TRUE(communicator->barrier().ok());
  int status = 0;
  ASSERT_EQ(waitpid(victim, &status, 0), victim);
  ASSERT_TRUE(WIFSIGNALED(status));

  const auto dead_at = Clock::now();
  at::Tensor tensor = at::ones({10});
  const auto sum = communicator->all_reduce_sum(tensor);
  ASSERT_FALSE(sum.ok());
  EXPECT_EQ(sum.error().code, ErrorCode::kUnavailable) << sum.error().message;
  EXPECT_FALSE(communicator->all_gather("anybody?").ok());
  EXPECT_LT(Clock::now() - dead_at, std::chrono::seconds(5));
}

TEST(NcclCommunicator, SaysWhenThisBuildOrMachineHasNone) {
  CommunicatorOptions options;
  options.local_rank = 4096;
  const auto refused = make_nccl_communicator(Rendezvous(), options);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace bulkhead
