// Trains: batches, plugins' hooks, forward, backward, agreement of the ranks,
// optimizer, validation, checkpoints, in the order that protocol/README.md
// fixes.  The order is what equal weights depend on.
//
// No networking inside: other ranks are behind Communicator, plugins behind
// PluginClient.  The compute thread only.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint.h"
#include "communicator.h"
#include "data/dataset.h"
#include "data/sampler.h"
#include "device_numbers.h"
#include "epoch_plan.h"
#include "gradient_reducer.h"
#include "models/model.h"
#include "optim/optimizer.h"
#include "plugin_client.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"
#include "rank_report.h"
#include "step_graph.h"
#include "step_times.h"
#include "training_state.h"

namespace bulkhead {

// How training ended on this rank.
struct TrainingEnd {
  std::string status;  // completed | stopped | interrupted | aborted | failed
  std::string reason;
  Value result = Value::object();  // WorkerDone.result
};

class TrainingLoop {
 public:
  struct Parts {
    RunConfig config;
    Facts facts;
    std::shared_ptr<const Dataset> dataset;
    DatasetFacts data_facts;
    Model model;
    at::Device device;
    Optimizer optimizer;
    std::unique_ptr<Communicator> communicator;
    GradientReducer reducer;  // before its communicator it must go
    bool resumed = false;
    std::vector<LinkedFile> kept;  // rank 0: what every checkpoint gets besides
    QuietBlocks quiet = {};

    SamplerOptions sampler_options(std::int64_t samples) const {
      return {samples, config.data.batch_size, facts.rank, facts.world_size, config.train.seed};
    }
  };
  struct Outlets {
    std::function<void(Value)> metrics;             // rank 0: one line
    std::function<void(std::string, Value)> event;  // one line
    std::function<void(std::int64_t)> step;         // for the heartbeat
  };

  TrainingLoop(Parts parts, TrainingState state, PluginClient& plugins, EventLoop& compute, Outlets outlets);
  ~TrainingLoop();

  // From the first hook to the final checkpoint.  An Error means that this
  // rank cannot go on: the world failed.
  // `batches` are those that a checkpoint kept on their way.
  Result<TrainingEnd> run(std::vector<PendingBatch> batches);

  // The coordinator wants an end: save at the next boundary that all ranks
  // agree on.  Compute thread.
  void interrupt(std::string reason);

 private:
  enum class Ending { kNone, kEpoch, kStop, kInterrupt, kAbort, kFatal };

  // Phases.
  Result<TrainingEnd> run_all(std::vector<PendingBatch> batches);
  Status run_epoch();
  Status train_step();
  Result<Agreement> step_optimizer(RankReport& report, double weight, bool replayed);
  Status boundary(const Agreement& agreement);
  bool decide_end(const Agreement& agreement);
  Status finish();
  Status validate();
  Status test();
  Status save();
  Result<TrainingEnd> report_end();
  Status add_totals(Value& result, double seconds);
  bool more_epochs() const;

  // Parts of a step.
  void submit_transforms(std::size_t stage, std::int64_t step);
  void want_batches(std::int64_t step);
  void prime_transforms();
  bool take_up(std::vector<PendingBatch> batches);
  struct Taken {
    TensorBatch batch;
    bool skip = false;
  };
  Result<Taken> take_batch(std::int64_t step, std::int64_t micro, RankReport& report);
  Status run_micro_batch(std::int64_t micro, const Taken& taken);
  // The step's forward and backward passes; `replayed`: from a recording.
  Result<double> run_micro_batches(RankReport& report, bool& replayed);

  // Steps that are recorded and replayed (training_loop_recorded.cpp).
  std::string why_not_recorded() const;
  bool may_replay();
  Result<bool> replay(const std::vector<Taken>& taken);
  Status record(const std::vector<Taken>& taken);
  bool is_recorded(const std::vector<Taken>& taken) const;
  Status launch(std::int64_t step, const std::vector<Taken>& taken);
  void count_replayed();
  Result<at::Tensor> replay_update(double lr, double max_norm);
  bool may_go_ahead(const RankReport& report) const;
  Result<bool> all_may_go_ahead(bool replayed, const RankReport& report);
  Status go_ahead();
  void tell_micro_batch(std::int64_t micro, const Losses& losses);
  std::vector<double> add_losses(RankReport& report);
  TensorBatch raw_batch(std::int64_t step, std::int64_t micro);
  RawBatch raw_input(std::int64_t step, std::int64_t micro);
  RawBatch raw_input(Phase phase, Split split, std::vector<std::int64_t> indices);
  // What came out of the chain that ends in `hook`, or `raw()`, skipped, where it cannot be used.
  Result<TensorBatch> usable(TakenBatch taken, std::string_view hook, const std::function<TensorBatch()>& raw,
                             bool& skip, RankReport& report);

  // Validation and test.
  struct Evaluation;
  Evaluation evaluation(Phase phase) const;
  Result<Agreement> evaluate(const Evaluation& evaluation);
  Status evaluate_batch(const Evaluation& evaluation, std::int64_t index, RankReport& sums);
  void submit_evaluated(const Evaluation& evaluation, std::size_t stage, std::int64_t index);
  Result<TensorBatch> next_batch(std::int64_t step, std::int64_t micro, bool& skip, RankReport& report);
  void settle_pending();

  // Agreement.
  Result<Agreement> exchange(const RankReport& report);
  Result<Agreement> agreed(PendingGather gather);
  Result<std::vector<std::string>> all_texts(const std::string& own);
  Status waited(std::string_view hook);
  Status apply(const Agreement& agreement, std::string_view hook);
  void take_over(Collected collected, RankReport& report);
  void set(const std::vector<Setting>& settings, std::int64_t accumulate_from);
  std::string objection_to(const Batch& weights) const;
  Status load_weights(std::int64_t root);

  void tell(std::string_view hook, const HookContext& context, std::int64_t due,
            PluginClient::When when = PluginClient::When::kNow);
  HookContext context(std::int64_t step) const;
  void fill(HookContext& context, std::int64_t step, const StepFacts& facts) const;
  const HookContext& context_of(const StepFacts& facts, std::int64_t step);
  HookContext context_with(const std::map<std::string, double>& metrics) const;
  CallContext transform_context(std::size_t stage, std::int64_t step, std::int64_t micro) const;
  std::int64_t epoch_end_step() const;
  bool is_last_step() const;
  Status update(double grad_norm, double lr);
  std::int64_t log_every() const { return state_.settings.log_every.value_or(parts_.config.train.log_every); }
  std::int64_t validate_every() const {
    return state_.settings.validate_every.value_or(parts_.config.train.validate_every);
  }
  std::int64_t save_every() const {
    return state_.settings.save_every.value_or(parts_.config.checkpoint.every);
  }
  double lr(std::int64_t step) const;
  bool scales_loss() const { return parts_.config.train.precision == "fp16"; }
  bool log_step(const StepFacts& facts, bool forced);
  void time_step(std::int64_t step);

  Parts parts_;
  TrainingState state_;
  PluginClient& plugins_;
  EventLoop& compute_;
  Outlets outlets_;
  Sampler sampler_;
  EpochPlan plan_;
  std::int64_t most_steps_ = 0;      // the run has no more than that
  std::int64_t schedule_steps_ = 0;  // its length as it was at the start
  std::vector<std::int64_t> prefetch_;

  Ending ending_ = Ending::kNone;
  std::string reason_;
  std::string interrupt_;  // not empty: an end was asked for, and why
  Batch weights_;          // ctx.load_weights of this rank, until the ranks have agreed
  RankReport carried_;     // replies collected before their step's exchange
  struct MicroBatch {
    double weight = 0;
    std::int64_t labels = 0;
    bool skipped = false;
  };
  std::vector<MicroBatch> micros_;  // of this step; their loss and correct labels are in numbers_
  DeviceNumbers numbers_;
  struct Recorded {
    StepGraph passes, update;            // apart: what plugins say comes between them
    std::vector<TensorBatch> inputs;     // on the device: what the passes read
    std::vector<TensorBatch> staged[2];  // pinned, by turns: what the inputs are copied from
    std::vector<MicroBatch> micros;
    at::Tensor losses, norm;  // what they compute of numbers_
  };
  std::optional<Recorded> recorded_;
  bool launched_ahead_ = false;          // the next step's passes are queued already
  std::vector<Taken> taken_ahead_;       // or only its batches have been taken
  std::int64_t queued_steps_ = 0;        // one by one, since the start or the last change
  std::optional<std::string> told_why_;  // the reason last logged for that; empty: steps are recorded
  std::int64_t validated_at_ = -1;
  std::int64_t saved_at_ = -1;
  std::int64_t logged_due_ = 0;
  std::int64_t first_step_ = 0;  // of this incarnation
  std::int64_t first_due_ = 0;
  bool primed_ = false;  // the chain of transforms holds this epoch's next steps
  TimePoint started_{};
  TimePoint ended_{};
  TimePoint logged_{};
  TimePoint step_began_{};
  BatchMemory batch_memory_{default_arena_bytes() / 2};
  StepTimes times_;
  StepTimes quiet_times_;
  HookContext told_;  // of the step under way; kept, since it asks for memory
  double waited_before_ = 0;
  std::map<std::string, double> plugin_metrics_;      // ctx.log_metrics since the last line
  std::map<std::string, double> validation_metrics_;  // while on_validate_end is called
  std::optional<Value> validation_;
  std::optional<Value> test_;
  std::size_t raw_bytes_ = 0;  // of a micro-batch before its transforms
};

}  // namespace bulkhead
