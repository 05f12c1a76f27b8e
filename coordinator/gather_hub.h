// The meeting place of ctx.all_gather: takes each rank's part of a gather and
// says when all that can come have come.
//
// A gather is named by plugin, call and number (protocol/README.md, "Asking").
// Nobody waits for a rank that has left the call (it returned, the call is
// poison) or that has lost the plugin, so that no order of arrival can end in
// a deadlock.  What is kept of a call is dropped when every rank has left it;
// ranks meet in each step's Control exchange, so these are the calls of about
// two steps.  Decides only: who sends is the coordinator's.  No I/O, no clock;
// any thread, one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "protocol/messages.h"

namespace bulkhead {

class GatherHub {
 public:
  explicit GatherHub(std::int64_t ranks) : ranks_(static_cast<std::size_t>(ranks)) {}

  // What `rank` says of a gather: part, over or gone.  Returned is what every
  // rank is to hear now, the parts named by rank and in rank order.
  // REQUIRES: 0 ≤ rank < ranks; a part has one tensor.
  std::vector<GatherDone> take(std::int64_t rank, GatherPart part);

  // The plugin will not be started again on that rank: it is absent from every
  // gather to which it has not given its part yet, and later words are dropped.
  std::vector<GatherDone> give_up(PluginId plugin, std::int64_t rank);

  // The ranks start again: nothing is known of them.
  void clear();

  // Calls of which something is kept.
  std::size_t calls_kept() const { return calls_.size(); }

 private:
  // Why a rank gives no further part to a call.
  struct Leave {
    bool returned = false;   // else the plugin, or this call of it, is given up there
    std::int64_t asked = 0;  // the gathers that it made before
  };
  struct OpenCall {
    std::vector<std::optional<Leave>> leaves;                          // by rank
    std::map<std::int64_t, std::vector<std::optional<Tensor>>> parts;  // by number, then rank
    std::int64_t done = -1;                                            // the last number that is complete
  };
  using Key = std::pair<PluginId, std::string>;
  using Calls = std::map<Key, OpenCall>;

  Calls::iterator find(const Key& key);
  bool is_gone(PluginId plugin, std::size_t rank) const;
  std::vector<GatherDone> settle(Calls::iterator at);
  GatherDone finished(const Key& key, const OpenCall& call, std::int64_t number) const;
  std::string missing(const Key& key, const OpenCall& call, std::int64_t number) const;

  std::size_t ranks_;
  Calls calls_;
  std::set<std::pair<PluginId, std::size_t>> gone_;
};

}  // namespace bulkhead
