// What a hook is told and may ask for: the fields are those of `ctx` in a
// Python plugin, by the same names.
//
// A Context is valid inside its hook only, on the thread that called it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/rng.h"

namespace bulkhead {
inline namespace sdk_v1 {

// What stays the same as long as the plugin's process lives.
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

// Requests to the training loop, OR-merged over plugins and ranks.  They take
// effect at a fixed step, the same on every rank, however late the reply is.
class Control {
 public:
  // Ends the training in order; the reason goes into summary.json.
  void stop(std::string_view reason = {}) {
    if (!(flags_ & abi::kStop)) reason_ = reason;  // the first one counts
    flags_ |= abi::kStop;
  }
  void stop_epoch() { flags_ |= abi::kStopEpoch; }  // ends this epoch
  void save() { flags_ |= abi::kSave; }             // writes a checkpoint
  void validate() { flags_ |= abi::kValidate; }     // runs a validation
  void log() { flags_ |= abi::kLog; }               // logs this step's metrics

  std::uint32_t flags() const { return flags_; }
  const std::string& reason() const { return reason_; }

 private:
  std::uint32_t flags_ = 0;
  std::string reason_;
};

struct Context : Facts {
  std::int64_t epoch = 0;
  // In step hooks and batches the 0-based step they belong to; in epoch,
  // validation, save and train hooks the number of steps completed.
  std::int64_t global_step = 0;
  std::int64_t step_in_epoch = 0;
  std::int64_t epoch_length = 0;  // steps
  std::int64_t max_steps = 0;     // 0 = by epochs alone
  std::int64_t max_epochs = 0;    // 0 = by steps alone
  std::int64_t micro_batch = 0;   // within the step; transforms only
  double lr = 0;
  double grad_norm = 0;
  std::map<std::string, double> metrics;  // "loss", …
  std::optional<double> best_metric;      // lowest validation loss so far
  std::string call_id;                    // the same when this call is sent again
  bool replaying = false;                 // control, logs and outputs will be dropped
  // Seeded from (run seed, plugin, rank, hook, step, micro-batch) before each
  // call, so that a retry draws the same numbers.  The only generator that is
  // seeded: std::rand and std::random_device are not reproducible.
  Philox rng;
  Control control;

  // A line for the run's log.
  void log(std::string_view text) const { host_->note(host_->self, abi::text(text), nullptr, 0); }

  // Values for metrics.jsonl, under the plugin's name.
  void log_metrics(const std::map<std::string, double>& values) const {
    const auto list = list_of(values);
    host_->note(host_->self, {}, list.data(), list.size());
  }

  // The call is alive: its deadline begins anew.
  void progress(const std::map<std::string, double>& detail = {}) const {
    const auto list = list_of(detail);
    host_->progress(host_->self, list.data(), list.size());
  }

  // Made by the host; `host` must outlive it.
  Context(const abi::Facts& facts, const abi::Call& call, const abi::Host& host)
      : Facts(facts),
        epoch(call.epoch),
        global_step(call.global_step),
        step_in_epoch(call.step_in_epoch),
        epoch_length(call.epoch_length),
        max_steps(call.max_steps),
        max_epochs(call.max_epochs),
        micro_batch(call.micro_batch),
        lr(call.lr),
        grad_norm(call.grad_norm),
        call_id(abi::view(call.call_id)),
        replaying(call.replaying != 0),
        rng({call.rng_key[0], call.rng_key[1]}),
        host_(&host) {
    for (std::size_t i = 0; i < call.metric_count; ++i) {
      metrics.emplace(abi::view(call.metrics[i].name), call.metrics[i].value);
    }
    if (call.has_best_metric != 0) best_metric = call.best_metric;
  }

 private:
  static std::vector<abi::Metric> list_of(const std::map<std::string, double>& values) {
    std::vector<abi::Metric> list;
    list.reserve(values.size());
    for (const auto& [name, value] : values) list.push_back({abi::text(name), value});
    return list;
  }

  const abi::Host* host_;
};

}  // namespace sdk_v1
}  // namespace bulkhead
