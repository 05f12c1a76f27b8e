// Strong ids: a rank cannot be passed where a generation is meant.
//
// Values only: ordered, printable, hashable by their number.  No arithmetic
// except next(), which is all that counters need.
#pragma once

#include <compare>
#include <cstdint>
#include <ostream>

namespace bulkhead {

template <class Tag>
struct Id {
  std::int64_t value = 0;

  constexpr Id() = default;
  constexpr explicit Id(std::int64_t number) : value(number) {}
  constexpr Id next() const { return Id(value + 1); }
  friend constexpr auto operator<=>(Id, Id) = default;
  friend std::ostream& operator<<(std::ostream& out, Id id) { return out << id.value; }
};

// A rank: 0 … world_size − 1.
using WorkerId = Id<struct WorkerTag>;

// One incarnation of a process.  Bumped by the coordinator at every start; a
// frame that carries an older one is dropped.
using Generation = Id<struct GenerationTag>;

// The place of a plugin in the run file's list, from 0.
using PluginId = Id<struct PluginTag>;

// The place of a call in the stream of one plugin process, from 1.  A retry
// keeps its number.
using Seq = Id<struct SeqTag>;

}  // namespace bulkhead
