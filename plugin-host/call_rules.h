// What a call may ask of its rank and of the run, by protocol/README.md
// ("Asking", "Loading weights", rule 12).  Pure functions; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bulkhead {

// Why this call may not do `what` (all_gather | weights | load_weights), one
// sentence; empty when it may.  `scope` and `steers` are the plugin's.
std::string objection_to(std::string_view what, std::string_view hook, std::string_view scope, bool steers);

// Why ctx.set(name, value) is refused, one sentence; empty when it is fine.
std::string setting_objection(std::string_view name, std::optional<double> value);

}  // namespace bulkhead
