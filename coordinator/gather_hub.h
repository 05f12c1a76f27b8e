// The meeting place of ctx.all_gather: takes each rank's part of a gather and
// says when all that can come have come.
//
// A gather is named by plugin, call and number (protocol/README.md, "Asking").
// Its first part asks the other ranks; nobody waits for a rank that has left
// the call (it returned, the call is poison) or that has lost the plugin, so
// that no order of arrival can end in a deadlock.  What is kept of a gather is
// dropped when it is done.  Decides only: who sends is the coordinator's.  No
// I/O, no clock; any thread, one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "protocol/messages.h"

namespace bulkhead {

class GatherHub {
 public:
  // What is to be sent now.
  struct Words {
    std::vector<GatherDone> done;                               // to every rank; parts by rank, in rank order
    std::vector<std::pair<std::int64_t, GatherWanted>> wanted;  // to this rank
  };

  explicit GatherHub(std::int64_t ranks) : ranks_(static_cast<std::size_t>(ranks)) {}

  // What `rank` says of a gather: part, over or gone.
  // REQUIRES: 0 ≤ rank < ranks; a part has one tensor.
  Words take(std::int64_t rank, GatherPart part);

  // The plugin will not be started again on that rank: it is absent from every
  // gather to which it has not given its part yet, and later words are dropped.
  Words give_up(PluginId plugin, std::int64_t rank);

  // The ranks start again: nothing is known of them.
  void clear();

  std::size_t open() const { return gathers_.size(); }

 private:
  enum class Said { kNothing, kPart, kOver, kGone };
  struct Word {
    Said said = Said::kNothing;
    Batch part;
  };
  using Gather = std::vector<Word>;                             // by rank
  using Key = std::tuple<PluginId, std::string, std::int64_t>;  // plugin, call, number
  using Gathers = std::map<Key, Gather>;

  Gathers::iterator begin(const Key& key, std::size_t first, Words& words);
  // Erases a gather for which nobody is waited for any more.
  Gathers::iterator settle(Gathers::iterator at, Words& words);

  std::size_t ranks_;
  Gathers gathers_;
  std::set<std::pair<PluginId, std::size_t>> gone_;
};

}  // namespace bulkhead
