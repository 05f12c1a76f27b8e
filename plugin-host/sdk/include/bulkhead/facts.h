// The facts of a plugin's process; by the same names as in a Python plugin.
// Values only; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "bulkhead/abi.h"

namespace bulkhead {
inline namespace sdk_v5 {

// What stays the same as long as the plugin's process lives.  In a process that
// the ranks of a node share (scope: node), ctx.rank, local_rank, is_main, device
// and map_loc are those of the rank that the call is for.
struct Facts {
  std::int64_t rank = 0;
  std::int64_t local_rank = 0;
  std::int64_t node_rank = 0;
  std::int64_t world_size = 1;
  std::int64_t local_world_size = 1;
  bool is_distributed = false;
  bool is_main = true;                         // rank 0
  std::string device = "cpu";                  // the rank's: cpu | cuda:N
  std::map<std::string, std::string> map_loc;  // {"cuda:0": device}
  std::int64_t generation = 0;                 // of this process; a restart raises it
  std::int64_t run_seed = 1;
  std::string scope = "rank";  // rank | node | job
  std::string project;         // the run's name
  std::string run_dir;         // absolute
  std::string plugin;          // this plugin's name in the run file

  Facts() = default;
  explicit Facts(const abi::Facts& from)
      : rank(from.rank),
        local_rank(from.local_rank),
        node_rank(from.node_rank),
        world_size(from.world_size),
        local_world_size(from.local_world_size),
        is_distributed(from.is_distributed != 0),
        is_main(from.is_main != 0),
        device(abi::view(from.device)),
        generation(from.generation),
        run_seed(from.run_seed),
        scope(abi::view(from.scope)),
        project(abi::view(from.project)),
        run_dir(abi::view(from.run_dir)),
        plugin(abi::view(from.plugin)) {
    for (std::size_t i = 0; i < from.map_loc_count; ++i) {
      map_loc.emplace(abi::view(from.map_loc_from[i]), abi::view(from.map_loc_to[i]));
    }
  }
};

}  // namespace sdk_v5
}  // namespace bulkhead
