// What happened in a run: one line of events.jsonl.
//
// Values only; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "protocol/run_config.h"

namespace bulkhead {

// The fields of DESIGN §5; absent ones are left out of the line.
struct Event {
  double time = 0;      // seconds since the Unix epoch; 0: when it is recorded
  std::string event{};  // start, ready, crash, hang, restart, disable, abort, stop, …
  std::optional<std::string> plugin{};
  std::optional<std::int64_t> rank{};
  std::optional<std::int64_t> generation{};
  std::optional<std::string> hook{};
  std::optional<std::int64_t> step{};
  std::optional<double> seconds{};  // how long it took or has lasted
  std::optional<std::string> reason{};
  Value more = Value::object();  // what only some events have, e.g. batch

  // A flat object.
  Value to_value() const;
  // Of a worker's event_line; fields of another type than theirs stay in `more`.
  static Event of(const std::string& name, const Value& fields);
};

}  // namespace bulkhead
