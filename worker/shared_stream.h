// One plugin process that several ranks share, at the rank that is its home:
// puts the calls of all of them into the one stream, in (position, rank) order
// (protocol/README.md, rule 14).
//
// Waits for nobody: a position goes into the stream when every rank has made
// its call.  Owns no process; the loop thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plugin_stream.h"

namespace bulkhead {

// A call as its rank makes it.  Without a hook the rank passes: the position
// is the others' alone.  The home never does.
struct SharedCall {
  std::string hook;
  CallContext context;
  std::optional<Batch> input;
  std::size_t bytes = 0;
  std::function<Batch()> again{};  // PluginStream::submit()
};

class SharedStream {
 public:
  struct Stream {
    std::function<Seq(SharedCall)> submit;
    std::function<void(Seq, Batch)> supply;
    std::function<void(Seq)> want;
  };
  // How a rank's call ended; `number` as in call().
  using Settle = std::function<void(std::int64_t rank, std::int64_t number, Outcome)>;

  // `ranks` ascending; the first is the home.  Node scope merges every hook but
  // state_dict and those of the data set stage, job scope only transforms.  Nothing is settled for an
  // observer.
  SharedStream(std::vector<std::int64_t> ranks, const PluginRoute& route, Stream stream, Settle settle);

  // The next call of a rank; returns its number, from 1.
  std::int64_t call(std::int64_t rank, SharedCall call);
  void supply(std::int64_t rank, std::int64_t number, Batch input);
  void want(std::int64_t rank, std::int64_t number);

  // From the stream.
  void settled(Seq seq, Outcome outcome);

 private:
  using Key = std::pair<std::int64_t, std::int64_t>;  // (rank, number)
  struct Waiting {
    std::int64_t number = 0;
    SharedCall call;
    bool wanted = false;
  };

  bool merges(const std::string& hook) const;
  void advance();
  void submit(std::int64_t rank);
  Waiting* waiting(Key key);

  std::vector<std::int64_t> ranks_;
  bool node_;
  bool observer_;
  Stream stream_;
  Settle settle_;
  std::map<std::int64_t, std::int64_t> numbers_;  // by rank: the last given
  std::map<std::int64_t, std::deque<Waiting>> queues_;
  std::map<Key, Seq> submitted_;
  std::map<std::int64_t, Key> keys_;  // by seq
};

}  // namespace bulkhead
