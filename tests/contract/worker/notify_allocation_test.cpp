// How often memory is asked for when a step tells its plugins, on the thread
// that trains.
#include <gtest/gtest.h>

#include "support/counting_new.h"
#include "support/observed_client.h"

namespace bulkhead {
namespace {

TEST(NotifyAllocation, AsksForNothingOnTheSteadyPath) {
  ObservedClient client;
  std::int64_t step = 0;
  for (const auto when : {PluginClient::When::kNow, PluginClient::When::kWithNext}) {
    for (int i = 0; i < 3000; ++i, ++step) {  // the observer's queue fills up meanwhile
      client.notify(step, when);
      client.collect(step);
    }
    long asked = 0;
    for (int i = 0; i < 1000; ++i, ++step) {
      asked += allocations_of([&] { client.notify(step, when); });
      client.collect(step);
    }
    EXPECT_EQ(asked, 0);
  }
}

}  // namespace
}  // namespace bulkhead
