// A whole run without sockets, processes or time: the real coordinator and the
// real streams of calls, and around them ranks, plugin hosts and connections
// that a seed makes slow and lets fail at any moment.
//
// What a plugin answers is a function of all it was called with, in order, so a
// run in which no call was lost, repeated or out of its place gives the numbers
// of the undisturbed one.  One thread, the test's.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator.h"
#include "plugin_stream.h"
#include "support/fake_clock.h"
#include "support/fake_process.h"

namespace bulkhead::simulation {

using namespace std::chrono_literals;

struct Options {
  std::uint64_t seed = 0;
  bool faults = true;  // false: slow, but whole
  std::int64_t ranks = 2;
  std::int64_t steps = 24;
};

// What came out of a run; `broken`: the first rule that did not hold.
struct Result {
  std::vector<std::vector<std::uint64_t>> trained;  // by rank: what each batch came back as
  std::map<std::pair<std::size_t, std::int64_t>, std::uint64_t> states;  // at the end, by plugin and rank
  int deaths = 0;
  std::string status;
  std::string broken;
};

inline constexpr const char* kSecret = "the run's secret";
inline constexpr std::int64_t kPlugins = 2;  // the first transforms batches, both keep a state
inline constexpr std::int64_t kPrefetch = 2;
inline constexpr std::int64_t kSnapshotEvery = 7;  // steps

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9E3779B97F4A7C15U + b + 0x632BE59BD9B4E019U;
  x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9U;
  return x ^ (x >> 32);
}
inline std::string text_of(std::uint64_t number) {
  std::string bytes(sizeof number, '\0');
  std::memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}
inline std::uint64_t number_of(const Blob& bytes) {
  std::uint64_t number = 0;
  CHECK(bytes.size == sizeof number);
  std::memcpy(&number, bytes.data, sizeof number);
  return number;
}
inline Batch batch_of(std::uint64_t number) { return {{"x", DType::kInt64, {1}, Blob::of(text_of(number))}}; }

class World;

// A plugin process.  It answers one call after the other; the world decides
// which of them are its last.
class Host : public FakeProcess {
 public:
  Host(World& world, ProcessKey key, std::unique_ptr<Channel> channel)
      : FakeProcess(key, std::move(channel)), world_(world) {}

  void greet();
  void call(Call call);
  // A new worker's or a new host's: whatever was under way runs for nobody.
  void drop_calls() { calls_.clear(); }
  std::optional<Seq> begun() const { return begun_; }
  bool is_stuck() const { return stuck_; }

 private:
  friend class World;
  void react(const Message& message);
  void begin();
  void finish(const Call& call);
  Reply answer(const Call& call);

  World& world_;
  std::deque<Call> calls_;
  bool busy_ = false;
  bool stuck_ = false;  // it hangs
  std::uint64_t state_ = 0;
  std::optional<Seq> begun_;
  EventLoop::Handle work_;
};

// A rank: for each step it takes the batch that the first plugin has made of a
// raw one, then tells both that the step has ended.
class Rank : public FakeProcess {
 public:
  Rank(World& world, ProcessKey key, std::unique_ptr<Channel> channel)
      : FakeProcess(key, std::move(channel)), world_(world) {}

  void greet();
  void from_host(std::size_t plugin, Generation host, const Reply& reply);

 private:
  friend class World;
  // The rank's end of its connection to a host.
  struct Link {
    std::unique_ptr<PluginStream> stream;
    Generation host;  // whom it is attached to; 0: nobody
    EventLoop::Handle deadline;
  };

  void react(const Message& message);
  void start(const StartWorker& start);
  PluginStream::Effects effects(std::size_t plugin);
  void attach(const AttachHost& attach);
  void lost(const HostLost& lost);
  void arm(std::size_t plugin);
  void beat();
  void transform(std::int64_t step);
  void take(std::int64_t step);
  void settled(std::size_t plugin, Seq seq, const Outcome& outcome);
  void end_step();
  void ask_all(const char* hook);
  void finish();
  CallContext context(std::int64_t step) const;

  World& world_;
  std::vector<Link> links_;
  std::set<std::pair<std::size_t, std::int64_t>> settled_;  // (plugin, seq)
  std::map<std::int64_t, Seq> transforms_;                  // by step
  std::int64_t step_ = 0;
  int awaited_ = 0;  // answers to the step's end
  EventLoop::Handle beat_;
  EventLoop::Handle think_;
};

class World {
 public:
  explicit World(Options options);
  Result run();

 private:
  friend class Host;
  friend class Rank;

  CoordinatorHooks hooks();
  bulkhead::Result<std::int64_t> launch(const ProcessKey& key);
  void end(const ProcessKey& key, ProcessEnd how);
  // A moment from now, in order of the calls with the same `line`.
  void later(const std::string& line, Duration most, std::function<void()> task);
  void plan_faults();
  void strike();
  bool may_kill(const Host& host);
  void rule(bool holds, const std::string& sentence);
  std::uint64_t draw(std::uint64_t below) { return random_() % below; }
  Duration moment(Duration most) {
    return Duration(static_cast<std::int64_t>(draw(static_cast<std::uint64_t>(most.count()))));
  }
  Host* serving(std::int64_t plugin, std::int64_t rank, Generation generation);

  Options options_;
  std::mt19937_64 random_;
  Result result_;
  FakeClock clock_;
  EventLoop loop_{clock_};
  std::map<ProcessKey, std::unique_ptr<Host>> hosts_;
  std::map<ProcessKey, std::unique_ptr<Rank>> ranks_;
  std::map<std::string, TimePoint> lines_;
  // By plugin, rank and generation of those that have died: the call they began last.
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, std::optional<Seq>> marks_;
  std::set<std::tuple<std::int64_t, std::int64_t, std::int64_t>>
      charged_;  // (plugin, rank, seq) a death may be blamed on
  std::vector<EventLoop::Handle> timers_;
  std::vector<EventLoop::Handle> faults_;
  bool ended_ = false;
  std::unique_ptr<Coordinator> coordinator_;
};

}  // namespace bulkhead::simulation
