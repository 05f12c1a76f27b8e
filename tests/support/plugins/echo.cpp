// Says back what it is told, so that tests can see it: every hook of a kind
// once, with errors, notes and random numbers on request.
#include <cstring>
#include <stdexcept>

#include "bulkhead/plugin.h"

namespace tests {

struct Sorry : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Echo : bulkhead::Plugin {
  static constexpr std::array claims{"should_stop"};

  // Three numbers of ctx.rng, as text, are kept as state.
  void on_step_end(bulkhead::Context& ctx) override {
    state_ = std::to_string(ctx.rng.next());
    state_ += " " + std::to_string(ctx.rng.next());
    state_ += " " + std::to_string(ctx.rng.uniform());
    ctx.control.save();
    ctx.control.log();
  }

  // All of ctx, as one note.
  void on_epoch_start(bulkhead::Context& ctx) override {
    ctx.log("rank " + std::to_string(ctx.rank) + " of " + std::to_string(ctx.world_size) + " on " +
            ctx.device + " step " + std::to_string(ctx.global_step) + " loss " +
            std::to_string(ctx.metrics.at("loss")) + " best " +
            (ctx.best_metric ? std::to_string(*ctx.best_metric) : "none") + " map " +
            ctx.map_loc.at("cuda:0") + " generation " + std::to_string(ctx.generation) + " run " +
            ctx.run_dir + " call " + ctx.call_id + (ctx.replaying ? " replaying" : ""));
    ctx.log_metrics({{"seen", 1.5}});
    ctx.progress({{"done", 0.25}});
    ctx.control.stop("first");
    ctx.control.stop("second");
  }

  void on_train_start(bulkhead::Context&) override { throw Sorry("no \xff training"); }
  void on_train_end(bulkhead::Context&) override { throw 7; }

  bool should_stop(bulkhead::Context& ctx) override {
    if (ctx.global_step == 2) ctx.control.stop("my own reason");
    return ctx.global_step >= 1;
  }

  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context& ctx) override {
    if (ctx.global_step == 1) batch.view<float>("input_ids");
    if (ctx.global_step == 2) batch.add<float>("deep", bulkhead::Shape(9, 1));
    const auto ids = batch.mutable_view<std::int64_t>("input_ids");
    for (std::int64_t& id : ids.flat()) id += 1;
    batch.remove("labels");
    batch.add<float>("weight", {2})(1) = 0.5f;
  }

  std::string state_dict() override { return state_; }
  void load_state_dict(std::string_view state) override { state_ = "loaded " + std::string(state); }

  std::string state_;
};

}  // namespace tests

BULKHEAD_PLUGIN(tests::Echo)
