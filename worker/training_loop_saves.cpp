// The training loop's checkpoints: what a rank puts into one, and when.
#include <utility>

#include "protocol/log.h"
#include "run_checkpoint.h"
#include "training_loop.h"

namespace bulkhead {

Status TrainingLoop::save() {
  if (Status done = waited("on_save_start"); !done) return done;
  RankState rank;
  Collected collected;
  rank.plugin_states = plugins_.snapshot(context_with({}), collected);
  take_over(collected, carried_);
  rank.batches = plugins_.pending_batches();
  rank.plugin_seqs = plugins_.last_seqs();
  rank.linked = parts_.kept;
  rank.training = state_;
  rank.training.plan = plan_.to_json();
  rank.training.carried = carried_;
  const Status written = write_run_checkpoint(
      parts_.facts.run_dir + "/checkpoints", parts_.config.checkpoint.keep, *parts_.communicator,
      named_parameters(parts_.model), parts_.optimizer, rank, parts_.config.model.type);
  if (!written) {
    // A full disk must not end a run; a lost rank shows at the next collective.
    if (written.error().code == ErrorCode::kUnavailable) return written;
    outlets_.event("save", {{"step", state_.step}, {"reason", written.error().message}, {"failed", true}});
    spdlog::error("no checkpoint at step {}: {}", state_.step, written.error().message);
  } else if (parts_.facts.is_main) {
    outlets_.event("save", {{"step", state_.step}});
  }
  saved_at_ = state_.step;
  return waited("on_save_end");
}

}  // namespace bulkhead
