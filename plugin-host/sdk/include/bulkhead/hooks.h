// The base class of every plugin: each hook with when it is called, on which
// ranks, what ctx holds, what a reply does, and what a failure.  One call at a
// time, on one thread.  Plugins include plugin.h, which has this.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "bulkhead/batch.h"
#include "bulkhead/config.h"
#include "bulkhead/context.h"
#include "bulkhead/image.h"
#include "bulkhead/json.h"
#include "bulkhead/rows.h"

namespace bulkhead {
inline namespace sdk_v5 {

// Override what you want; only what is overridden is ever sent.  Write
// `override`: the compiler then refuses a name or arguments that no hook has.
// Without it a method called on_step_edn is a method like any other, and nobody
// calls it; C++ gives a host no way to see that.
//
// What holds for all hooks:
//   * ctx has the facts of the process and the place in the run everywhere, and
//     besides them what each hook names.
//   * Notify hooks (all but transforms and state) ask through ctx.control and
//     ctx.set; every rank does what was asked at the same step.  Where the ranks
//     wait for a hook, it is done directly after it, and ctx.load_weights is
//     possible.  Where they do not, it is done at the end of a later step.
//   * An exception is an answer: it is counted, recorded and otherwise ignored;
//     training and the plugin go on.  One of the class's `raises` ends the run.
//     In the constructor, in configure and in setup any refuses the run.
//   * If the process dies or hangs in a hook (std::terminate, exit, a signal) it
//     is started again, its state comes back, and the call is made again with the
//     same random seeds.
//   * Hooks run on each rank (scope: rank); once for each rank of the node, in one
//     process (scope: node, ctx.rank says whose call it is); once, as rank 0 sees
//     them, with metrics reduced over the ranks (scope: job).
//
// Besides hooks a class may declare:
//   static constexpr bool steers = false;
//       its replies never matter: nothing waits for it, and calls may be lost
//       (notify and state hooks only)
//   static constexpr bool stateless = true;
//       calls leave no trace in it; what node and job scope ask of a transform
//   static constexpr bool seeded = false;
//       takes no part in seeding (ctx.rng always is seeded)
//   static constexpr std::array claims{"should_stop"};
//       hooks that no second plugin may override: train_batch, validate_batch,
//       test_batch, should_stop
//   using raises = bulkhead::Raises<Diverged, …>;
//       exceptions that are meant to end the run (errors.h)
// The constructor takes `const bulkhead::Options&`, or nothing.
class Plugin {
 public:
  Plugin() = default;
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;
  virtual ~Plugin() = default;

  // ----- Start -----

  // Once in the life of each process, before anything is built: the run as
  // configured so far, and the changes to it.  Every process of the plugin is
  // asked, and every later incarnation gets what the first one got, so that
  // attributes set here are the same everywhere; used are the changes that the
  // lowest rank's first one returned.  A change to `plugins` or `name`, an
  // unknown key, a value of the wrong type or an exception refuses the run.
  // ctx.log goes to the process's own log; there is nobody to ask.
  virtual Changes configure(const Config&, Context&) { return {}; }

  // Once in the life of each process, after the constructor and configure and
  // before any state is loaded.  An exception refuses the run at its first start.
  virtual void setup(Context&) {}

  // ----- The run -----

  // Once, before the first epoch of a run that starts fresh; not after a resume.
  // No metrics.  The ranks wait.
  virtual void on_train_start(Context&) {}
  // Once, after the last epoch, before the final save: metrics of the last step.
  // Not after an interrupt, which a resume follows.  The ranks wait.
  virtual void on_train_end(Context&) {}

  // Before the first step of an epoch, and before its first batch is made, so
  // that ctx.set("grad_accum", n) holds from its first step on: metrics of the
  // last step; ctx.global_step is the number of steps completed.  The ranks wait.
  virtual void on_epoch_start(Context&) {}
  // After the last step of an epoch, its validation and its save: metrics of the
  // last step.  The ranks wait.
  virtual void on_epoch_end(Context&) {}

  // When the run fails; ctx.exception says why ("plugin: Type: message", or the
  // rank's own error).  On all ranks after an exception of some plugin's `raises`;
  // on the failing rank alone where training itself failed, so there is no
  // all_gather.  Nothing is saved afterwards.  The rank waits.
  virtual void on_exception(Context&) {}

  // ----- A step -----

  // Before the batches of step ctx.global_step (from 0) are used: metrics of the
  // step before.  Nobody waits; control takes effect at the end of this step.
  virtual void on_step_start(Context&) {}
  // After the backward pass of each micro-batch ctx.micro_batch, with its loss
  // and accuracy in ctx.metrics.  Nobody waits; control takes effect at the end
  // of the next step.
  virtual void on_backward_end(Context&) {}
  // After each micro-batch of a step but its last, directly after
  // on_backward_end and with the same ctx.  Nobody waits; control takes effect at
  // the end of the next step.
  virtual void on_substep_end(Context&) {}
  // Before the optimizer step, after clipping: this step's metrics, lr and
  // grad_norm.  Nobody waits; control takes effect at the end of the next step.
  virtual void on_optimizer_step_start(Context&) {}
  // After the optimizer step, with the same ctx; ctx.weights() are those that it
  // left.  Nobody waits; control takes effect at the end of the next step.
  virtual void on_optimizer_step_end(Context&) {}
  // At the end of a step, before its log line, validation and save:
  // ctx.metrics["loss"], ctx.lr and ctx.grad_norm are its.  Nobody waits; control
  // takes effect at the end of the next step, before that step's validation and
  // save.
  virtual void on_step_end(Context&) {}
  // Polled once per step on every plugin and rank, directly after on_step_end and
  // with the same ctx; true stops the training as ctx.control.stop() does, with
  // the plugin's name as the reason unless it gave one.
  virtual bool should_stop(Context&) { return false; }
  // After a step whose line goes to metrics.jsonl, with the same ctx.  Nobody
  // waits; control takes effect at the end of the next step.
  virtual void on_log(Context&) {}

  // ----- Validation and test -----

  // Before a validation: metrics of the last step.  The ranks wait.
  virtual void on_validate_start(Context&) {}
  // After each batch of a validation, whose number is ctx.micro_batch, with its
  // loss and accuracy.  The ranks wait.
  virtual void on_validate_step_end(Context&) {}
  // After a validation: its metrics, reduced over the ranks, and ctx.best_metric
  // with this one in it.  The ranks wait.
  virtual void on_validate_end(Context&) {}
  // Before the test at the end of training: metrics of the last step.  The ranks
  // wait.
  virtual void on_test_start(Context&) {}
  // After each batch of the test, as on_validate_step_end.  The ranks wait.
  virtual void on_test_step_end(Context&) {}
  // After the test: its metrics, reduced over the ranks.  The ranks wait.
  virtual void on_test_end(Context&) {}

  // ----- Checkpoints -----

  // Before a checkpoint is written and after it is complete: metrics of the last
  // step.  The ranks wait.
  virtual void on_save_start(Context&) {}
  virtual void on_save_end(Context&) {}
  // After a resume, when load_state_dict has run: metrics of the last step.  The
  // ranks wait.
  virtual void on_load(Context&) {}

  // ----- The data set: rows of a JSON lines file (data.type: rows) -----
  //
  // Once, on rank 0, after setup and before on_train_start: all preprocess in
  // list order over the whole data set, then all keep, then encode.  The data set
  // that comes of it is kept with the run: a resume does not make it again.
  // ctx.metrics are empty and control and set do nothing: there is no step yet.  A
  // call whose process dies is made again; an exception, or a second death in the
  // same call, refuses the run: a data set cannot be half made.

  // 1,000 rows at a time, as columns: a map of lists of equal length, one entry a
  // row, null where a row has no such key.  Returned are the columns from here on;
  // their length is the new number of rows.  ctx.micro_batch is the chunk's number,
  // from 0; ctx.rng depends on it alone.
  virtual Json preprocess(Json rows, Context&) { return rows; }
  // Whether the row stays.  ctx.sample is its number among those that this plugin
  // is asked about; ctx.rng depends on it alone.
  virtual bool keep(const Json&, Context&) { return true; }
  // The row's tokens: token ids, and as many labels, the id itself where it is to
  // be learned, −100 where not; no labels means all are.  One plugin of a run may
  // have it.  ctx as in keep.
  virtual Encoded encode(const Json&, Context&) { return {}; }
  // Makes a batch (empty at first; add() to it) of a micro-batch of rows, instead
  // of padding them on the right to the longest: input_ids and labels, int64 [N,
  // T], T at most the model's context, labels −100 where there is none.  In
  // training, validations and the test, `prefetch` ahead; failures go by
  // `on_poison`, which then takes the padded ones.  One plugin of a run may have it.
  virtual void collate(std::span<const TokenSample>, Batch&, Context&) {}

  // ----- Data -----
  //
  // Training data is transformed `prefetch` steps (run file) before it is used,
  // and ctx.metrics, lr and grad_norm are those of the step before that.  What a
  // hook leaves behind is trained on.  An exception, a wrong shape or a death
  // that repeats makes the whole micro-batch poison: `on_poison` says what is
  // trained instead, and the input is kept in dead_letters/.  All transform_image
  // of the run's plugins come first, in list order, then all transform_caption,
  // all transform_sample, collate, all transform_train_batch.

  // Each training image, before it is normalised: image.mutable_view() is the
  // output.  ctx.sample and ctx.path say which; ctx.rng depends on neither rank nor
  // step, so a sample is changed alike wherever and whenever it is handled.
  virtual void transform_image(Image&, Context&) {}
  // Each training caption, before it is tokenised; returned is the new one: UTF-8,
  // at most 64 KiB.  ctx as above.
  virtual std::string transform_caption(std::string caption, Context&) { return caption; }
  // Each training sample, after the two above; image and caption can be changed.
  // ctx as above.
  virtual void transform_sample(Sample&, Context&) {}

  // Each training micro-batch ctx.micro_batch of step ctx.global_step.
  virtual void transform_train_batch(Batch&, Context&) {}
  // Each batch of a validation or of the test, `prefetch` batches ahead;
  // ctx.micro_batch is its number.
  virtual void transform_validate_batch(Batch&, Context&) {}
  virtual void transform_test_batch(Batch&, Context&) {}

  // ----- State -----

  // The plugin's memory, as bytes of its own making.  A plugin that changes
  // from call to call must override both, or it starts afresh after a crash;
  // one that overrides neither counts as stateless.  Asked for at checkpoints
  // and now and then between: keep it cheap.  An exception gives no new state; a
  // restart then repeats more calls.
  virtual std::string state_dict() { return {}; }
  // What state_dict gave, in a fresh process after setup, or at a resume.
  virtual void load_state_dict(std::string_view) {}
};

}  // namespace sdk_v5
}  // namespace bulkhead
