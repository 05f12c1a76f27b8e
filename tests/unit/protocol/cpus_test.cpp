#include "protocol/cpus.h"

#include <thread>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(Cpus, AreReadAsPeopleWriteThem) {
  EXPECT_EQ(*cpus_named("3"), Cpus{3});
  EXPECT_EQ(*cpus_named("8,0-3,2"), (Cpus{0, 1, 2, 3, 8}));
  for (const char* wrong : {"", "a", "1-", "-1", "3-1", "1,", ",1", "1 2", "0-99999", "1-2-3"}) {
    const auto cpus = cpus_named(wrong);
    ASSERT_FALSE(cpus.ok()) << wrong;
    EXPECT_EQ(cpus.error().message, "\"" + std::string(wrong) + "\" is no list of CPUs like \"0-3,8\"");
  }
}

TEST(Cpus, AreWhatIsLeftWithoutTheTaken) {
  EXPECT_EQ(without({0, 1, 2, 3}, {1, 7, 3}), (Cpus{0, 2}));
  EXPECT_EQ(without({0}, {0}), Cpus{});
}

TEST(Cpus, KeepAThreadWhereItIsPut) {
  const Cpus all = allowed_cpus();
  ASSERT_FALSE(all.empty());
  std::thread([&] {
    keep_thread_to({all.back()});
    EXPECT_EQ(allowed_cpus(), Cpus{all.back()});
  }).join();
  EXPECT_EQ(allowed_cpus(), all) << "this thread is another";
}

}  // namespace
}  // namespace bulkhead
