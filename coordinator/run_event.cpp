#include "run_event.h"

#include <utility>

namespace bulkhead {
namespace {

template <class T>
void put(Value& line, const char* key, const std::optional<T>& value) {
  if (value) line[key] = *value;
}

// Moves the field out of `rest` when it has the right type.
template <class T>
std::optional<T> take(Value& rest, const char* key) {
  const auto found = rest.find(key);
  if (found == rest.end()) return std::nullopt;
  if constexpr (std::is_same_v<T, std::string>) {
    if (!found->is_string()) return std::nullopt;
  } else {
    if (!found->is_number()) return std::nullopt;
  }
  T value = found->get<T>();
  rest.erase(found);
  return value;
}

}  // namespace

Value Event::to_value() const {
  Value line = more;
  line["time"] = time;
  line["event"] = event;
  put(line, "plugin", plugin);
  put(line, "rank", rank);
  put(line, "generation", generation);
  put(line, "hook", hook);
  put(line, "step", step);
  put(line, "seconds", seconds);
  put(line, "reason", reason);
  return line;
}

Event Event::of(const std::string& name, const Value& fields) {
  Event event;
  event.event = name;
  if (!fields.is_object()) return event;
  event.more = fields;
  event.time = take<double>(event.more, "time").value_or(0);
  event.plugin = take<std::string>(event.more, "plugin");
  event.rank = take<std::int64_t>(event.more, "rank");
  event.generation = take<std::int64_t>(event.more, "generation");
  event.hook = take<std::string>(event.more, "hook");
  event.step = take<std::int64_t>(event.more, "step");
  event.seconds = take<double>(event.more, "seconds");
  event.reason = take<std::string>(event.more, "reason");
  return event;
}

}  // namespace bulkhead
