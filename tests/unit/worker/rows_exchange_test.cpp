// The data set on its way from rank 0: patience while it is made, then the
// verdict and the bytes.
#include "rows_exchange.h"

#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/rank_threads.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;
using testing::run_ranks;

// What each rank but 0 receives of `sent`.
std::vector<RowsVerdict> received(std::int64_t world_size, const RowsVerdict& sent) {
  std::mutex mutex;
  std::vector<RowsVerdict> all;
  run_ranks(world_size, [&](Communicator& communicator) {
    if (communicator.rank() == WorkerId{0}) {
      EventLoop loop;
      StillWorking still(loop, communicator, 1ms);
      int turns = 0;
      EventLoop::Handle timer;
      std::function<void()> turn = [&] {
        ++turns;
        timer = loop.call_after(1ms, turn);
      };
      turn();
      loop.run_until([&] { return turns == 20; });  // several times said
      EXPECT_TRUE(still.status().ok());
      EXPECT_TRUE(send_rows(communicator, at::kCPU, sent).ok());
      return;
    }
    Result<RowsVerdict> verdict = receive_rows(communicator, at::kCPU);
    ASSERT_TRUE(verdict.ok()) << verdict.error().message;
    const std::lock_guard lock(mutex);
    all.push_back(std::move(*verdict));
  });
  return all;
}

TEST(RowsExchange, BringsTheBytesToEveryRank) {
  std::string bytes(3'000'000, 'x');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  const auto verdicts = received(3, {"done", "", "", Blob::of(bytes)});
  ASSERT_EQ(verdicts.size(), 2U);
  for (const RowsVerdict& verdict : verdicts) {
    EXPECT_EQ(verdict.status, "done");
    EXPECT_EQ(verdict.bytes.text(), bytes);
  }
}

TEST(RowsExchange, BringsARefusalToEveryRankWhateverItsText) {
  const std::string reason = std::string(16 * 1024 - 1, 'x') + "\xc3\xa4 and more";
  const auto verdicts = received(2, {"refused", reason, "plugins.1", {}});
  ASSERT_EQ(verdicts.size(), 1U);
  EXPECT_EQ(verdicts[0].status, "refused");
  EXPECT_EQ(verdicts[0].key, "plugins.1");
  EXPECT_TRUE(verdicts[0].reason.starts_with(std::string(16 * 1024 - 1, 'x'))) << "cut within a character";
  EXPECT_EQ(verdicts[0].bytes.size, 0U);
}

TEST(RowsExchange, OfOneRankAsksNobody) {
  const auto solo = make_solo_communicator();
  EXPECT_TRUE(send_rows(*solo, at::kCPU, {"done", "", "", Blob::of(std::string("bytes"))}).ok());
}

}  // namespace
}  // namespace bulkhead
