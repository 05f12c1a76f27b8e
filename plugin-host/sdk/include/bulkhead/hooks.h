// The base class of every plugin: each hook with when it is called and what a
// plugin may do there.  One call at a time, on one thread.  Plugins include
// plugin.h, which has this.
#pragma once

#include <string>
#include <string_view>

#include "bulkhead/batch.h"
#include "bulkhead/context.h"

namespace bulkhead {
inline namespace sdk_v1 {

// Override what you want (write `override`: it catches wrong names and
// arguments); only what is overridden is ever sent.  Besides hooks a class may
// declare, as static constexpr members:
//   bool steers = false     its replies never matter: nothing waits for it, and
//                           calls may be lost (notify and state hooks only)
//   bool stateless = true   calls leave no trace in it; what node and job scope
//                           ask of a transform
//   bool seeded = false     takes no part in seeding (ctx.rng always is seeded)
//   std::array claims{"should_stop"}
//                           hooks that no second plugin may override:
//                           train_batch, validate_batch, test_batch, should_stop
// The constructor takes `const bulkhead::Options&`, or nothing.
class Plugin {
 public:
  Plugin() = default;
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;
  virtual ~Plugin() = default;

  // Once in the life of each process, after the constructor and before any
  // state is loaded.  An exception refuses the run at its first start.
  virtual void setup(Context&) {}

  // Once, before the first epoch of a run that starts fresh; not after a resume.
  virtual void on_train_start(Context&) {}
  // Once, after the last epoch, before the final save.
  virtual void on_train_end(Context&) {}

  // Before the first and after the last step of an epoch.  The ranks wait for
  // epoch, validation, save and train hooks; what they ask of ctx.control
  // takes effect directly after them.
  virtual void on_epoch_start(Context&) {}
  virtual void on_epoch_end(Context&) {}

  // Before the batches of optimizer step ctx.global_step are used.  The ranks
  // do not wait; control takes effect at the end of this step.
  virtual void on_step_start(Context&) {}
  // After the optimizer step: ctx.metrics["loss"], ctx.lr and ctx.grad_norm are
  // its.  The ranks do not wait; control takes effect at the end of the next
  // step.
  virtual void on_step_end(Context&) {}
  // Polled once per step, directly after on_step_end; true stops the training
  // as ctx.control.stop() does.
  virtual bool should_stop(Context&) { return false; }

  // Around a validation; the end has its metrics.
  virtual void on_validate_start(Context&) {}
  // After each batch of a validation.
  virtual void on_validate_step_end(Context&) {}
  virtual void on_validate_end(Context&) {}

  // Around the writing of a checkpoint.
  virtual void on_save_start(Context&) {}
  virtual void on_save_end(Context&) {}
  // After a resume, when load_state_dict has run.
  virtual void on_load(Context&) {}

  // Each training micro-batch of this rank, some steps ahead of the training
  // (`prefetch` in the run file).  An exception makes it poison: `on_poison`
  // says what is trained instead.
  virtual void transform_train_batch(Batch&, Context&) {}

  // The plugin's memory, as bytes of its own making.  A plugin that changes
  // from call to call must override both, or it starts afresh after a crash;
  // one that overrides neither counts as stateless.  Asked for at checkpoints
  // and now and then between: keep it cheap.
  virtual std::string state_dict() { return {}; }
  // What state_dict gave, in a fresh process after setup, or at a resume.
  virtual void load_state_dict(std::string_view) {}
};

}  // namespace sdk_v1
}  // namespace bulkhead
