// What a run leaves: names, the lock, whole lines, cutting back, and which run
// is unfinished.
#include "run_directory.h"

#include <fstream>
#include <limits>
#include <set>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

class RunFolder : public ::testing::Test {
 protected:
  RunDirectory make(const std::string& name = "run") {
    auto run = RunDirectory::create(parent(), name);
    CHECK(run.ok(), run ? "" : run.error().message);
    return std::move(*run);
  }
  // A run whose coordinator is gone; with `status`, with a summary.
  fs::path left_behind(const std::string& name, const std::string& status = "") {
    RunDirectory run = make(name);
    CHECK(run.write_run_yaml("name: " + name + "\n").ok());
    Summary summary;
    summary.status = status;
    if (!status.empty()) CHECK(run.write_summary(summary).ok());
    return run.path();
  }
  static std::string text_of(const fs::path& path) { return read_file(path).value(); }
  fs::path parent() const { return directory_.path() / "runs"; }

 private:
  TemporaryDirectory directory_;
};

TEST_F(RunFolder, HasItsPartsFromTheStart) {
  const RunDirectory run = make("shakespeare");
  EXPECT_TRUE(run.path().filename().string().starts_with("shakespeare-2"));
  for (const char* part : {"logs", "checkpoints", "dead_letters"})
    EXPECT_TRUE(fs::is_directory(run.path() / part)) << part;
  for (const char* part : {"metrics.jsonl", "events.jsonl"})
    EXPECT_EQ(text_of(run.path() / part), "") << part;
  EXPECT_FALSE(fs::exists(run.path() / "summary.json"));
}

TEST_F(RunFolder, IsUniqueHoweverManyAreMadeAtOnce) {
  constexpr std::size_t kThreads = 4, kEach = 25;
  std::vector<std::vector<std::string>> made(kThreads);
  {
    std::vector<std::jthread> threads;
    for (auto& names : made) {
      threads.emplace_back([&] {
        for (std::size_t i = 0; i < kEach; ++i)
          names.push_back(RunDirectory::create(parent(), "run").value().path().string());
      });
    }
  }
  std::set<std::string> unique;
  for (const auto& names : made) unique.insert(names.begin(), names.end());
  EXPECT_EQ(unique.size(), kThreads * kEach);
}

TEST_F(RunFolder, HasOneCoordinatorAtATime) {
  std::optional<RunDirectory> first(make());
  const fs::path path = first->path();
  const auto second = RunDirectory::open(path);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().message, "the run " + path.string() + " is being trained by process " +
                                        std::to_string(::getpid()) + "; wait until it ends, or stop it");
  first.reset();
  EXPECT_TRUE(RunDirectory::open(path).ok());
}

TEST_F(RunFolder, IsFreeOnceItsCoordinatorWasKilled) {
  const fs::path path = left_behind("run");
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto run = RunDirectory::open(path);
    const char byte = run.ok() ? 'y' : 'n';
    if (::write(ready[1], &byte, 1) == 1) ::pause();
    ::_exit(0);
  }
  char held = 0;
  ASSERT_EQ(::read(ready[0], &held, 1), 1);
  EXPECT_EQ(held, 'y');
  EXPECT_FALSE(RunDirectory::open(path).ok());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(RunDirectory::open(path).ok());
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(RunFolder, WritesOneFlatLineForEachRecordInTheOrderPeopleRead) {
  RunDirectory run = make();
  ASSERT_TRUE(
      run.append_metrics(
             {{"step", 1}, {"time", 2.5}, {"loss", std::numeric_limits<double>::quiet_NaN()}, {"a", 3}})
          .ok());
  ASSERT_TRUE(
      run.append_event({{"reason", "a\nb\xff"}, {"event", "crash"}, {"time", 1.0}, {"plugin", "p"}}).ok());
  EXPECT_EQ(text_of(run.path() / "metrics.jsonl"), "{\"time\":2.5,\"step\":1,\"loss\":null,\"a\":3}\n");
  EXPECT_EQ(text_of(run.path() / "events.jsonl"),
            "{\"time\":1.0,\"event\":\"crash\",\"plugin\":\"p\",\"reason\":\"a\\nb\xef\xbf\xbd\"}\n");
}

TEST_F(RunFolder, CutsMetricsBackToACheckpointAndKeepsEvents) {
  RunDirectory run = make();
  for (int step = 1; step <= 5; ++step) ASSERT_TRUE(run.append_metrics({{"step", step}, {"loss", 0.5}}).ok());
  ASSERT_TRUE(run.append_event({{"event", "save"}, {"step", 5}}).ok());
  ASSERT_TRUE(run.write_summary({}).ok());
  ASSERT_TRUE(run.cut_back(3).ok());
  ASSERT_TRUE(run.append_metrics({{"step", 4}}).ok());
  EXPECT_EQ(
      text_of(run.path() / "metrics.jsonl"),
      "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.5}\n{\"step\":3,\"loss\":0.5}\n{\"step\":4}\n");
  EXPECT_EQ(text_of(run.path() / "events.jsonl"), "{\"event\":\"save\",\"step\":5}\n");
  EXPECT_FALSE(fs::exists(run.path() / "summary.json"));
  ASSERT_TRUE(run.cut_back(0).ok());
  EXPECT_EQ(text_of(run.path() / "metrics.jsonl"), "");
}

TEST_F(RunFolder, DropsHalfALineThatACrashLeft) {
  const fs::path path = left_behind("run");
  std::ofstream(path / "metrics.jsonl") << "{\"step\":1}\n{\"st";
  auto run = RunDirectory::open(path);
  ASSERT_TRUE(run.ok());
  ASSERT_TRUE(run->append_metrics({{"step", 2}}).ok());
  EXPECT_EQ(text_of(path / "metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
}

// In a child: the limit on file sizes stands for a full disk.
TEST_F(RunFolder, LeavesNoHalfLineOnAFullDisk) {
  RunDirectory run = make();
  ASSERT_TRUE(run.append_metrics({{"step", 1}}).ok());
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{20, 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const bool refused = !run.append_metrics({{"step", 2}, {"text", std::string(100, 'x')}}).ok();
    const bool goes_on = !run.write_run_yaml(std::string(100, 'x')).ok();
    ::_exit(refused && goes_on ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(text_of(run.path() / "metrics.jsonl"), "{\"step\":1}\n");
  EXPECT_FALSE(fs::exists(run.path() / "run.yaml"));
  EXPECT_FALSE(fs::exists(run.path() / ".run.yaml.writing"));
}

TEST_F(RunFolder, IsFoundAgainWhenItDidNotEndAsItShould) {
  for (const char* status : {"", "failed", "aborted", "interrupted"}) {
    const std::string name = std::string("n") + status;
    const fs::path path = left_behind(name, status);
    const auto found = find_unfinished(parent(), name);
    ASSERT_TRUE(found.ok()) << status;
    EXPECT_EQ(*found, std::optional(path)) << status;
  }
  for (const char* status : {"completed", "stopped"}) {
    left_behind(status, status);
    EXPECT_EQ(find_unfinished(parent(), status).value(), std::nullopt) << status;
  }
  EXPECT_EQ(find_unfinished(parent() / "none", "n").value(), std::nullopt);
}

TEST_F(RunFolder, IsTheNewestUnfinishedOfExactlyThatName) {
  const auto put = [&](const std::string& folder) {
    fs::create_directories(parent() / folder);
    std::ofstream(parent() / folder / "run.yaml") << "name: a\n";
    return parent() / folder;
  };
  put("a-20260101T000000.000Z-0001");
  const fs::path newest = put("a-20260102T000000.000Z-0001");
  put("a-b-20270101T000000.000Z-0001");
  put("a-20270101T000000.000Z");
  fs::create_directories(parent() / "a-20280101T000000.000Z-0001");
  EXPECT_EQ(find_unfinished(parent(), "a").value(), std::optional(newest));
}

TEST_F(RunFolder, IsNotContinuedWhileItsCoordinatorLives) {
  RunDirectory live = make("run");
  ASSERT_TRUE(live.write_run_yaml("").ok());
  const auto found = find_unfinished(parent(), "run");
  ASSERT_FALSE(found.ok());
  EXPECT_NE(found.error().message.find("is being trained by process"), std::string::npos);
}

TEST_F(RunFolder, CannotBeMadeWhereAFileIs) {
  std::ofstream(parent().parent_path() / "runs") << "";
  const auto run = RunDirectory::create(parent(), "run");
  ASSERT_FALSE(run.ok());
  EXPECT_TRUE(run.error().message.starts_with("cannot make " + parent().string())) << run.error().message;
}

TEST_F(RunFolder, SumsUpWithEveryFieldInOrder) {
  Summary summary;
  summary.status = "completed";
  summary.steps = 7;
  summary.final_loss = 1.5;
  summary.validation = {{"loss", 2.0}};
  summary.ranks = {{0, 42, 1, 0, 300'000'000}, {1, 43, 1, -9, {}}};
  summary.batches = {14, 0, 0, 1, 1};
  PluginSummary plugin;
  plugin.name = "early";
  plugin.scope = "job";
  CrashSummary crash;
  crash.signal = "SIGSEGV";
  crash.hook = "on_step_end";
  crash.step = 3;
  plugin.crashes = {crash};
  summary.plugins = {plugin};
  RunDirectory run = make();
  ASSERT_TRUE(run.write_summary(summary).ok());
  const Json json = Json::parse(text_of(run.path() / "summary.json"));
  std::vector<std::string> keys;
  for (const auto& [key, item] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"status", "exit_code", "reason", "steps", "epochs", "samples",
                                            "resumed_from", "final_loss", "validation", "test",
                                            "params_sha256", "seconds", "step_ms", "tokens_per_second",
                                            "ranks", "batches", "plugins", "plugin_overhead"}));
  EXPECT_EQ(one_line(json["ranks"][1]),
            R"({"rank":1,"pid":43,"restarts":1,"exit":-9,"peak_memory_bytes":null})");
  EXPECT_EQ(json["ranks"][0]["peak_memory_bytes"], 300'000'000);
  EXPECT_EQ(one_line(json["batches"]),
            R"({"trained":14,"lost":0,"duplicated":0,"skipped":1,"dead_lettered":1})");
  EXPECT_EQ(
      one_line(json["plugins"][0]),
      R"({"name":"early","scope":"job","rank":null,"starts":0,"crashes":[{"time":0.0,"signal":"SIGSEGV",)"
      R"("hook":"on_step_end","step":3}],"calls":0,"errors":0,"errors_by_kind":{},"retries":0,"events_sent":0,"events_dropped":0,)"
      R"("p50_us":0.0,"p99_us":0.0,"state":""})");
}

}  // namespace
}  // namespace bulkhead
