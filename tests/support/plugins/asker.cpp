// Asks its rank in every hook that may, and in some that may not; what came of
// it is said in notes.
#include "bulkhead/plugin.h"

namespace tests {

struct Asker : bulkhead::Plugin {
  // Twice, so that numbers count; the second time with another value.
  void on_epoch_start(bulkhead::Context& ctx) override {
    gather("first", ctx);
    gather("second", ctx);
  }
  // Lives with what its rank cannot do.
  void on_step_end(bulkhead::Context& ctx) override {
    try {
      gather("mine", ctx);
    } catch (const bulkhead::AskFailed& failed) {
      ctx.log(std::string("failed: ") + failed.what());
    }
    ctx.control.save();
  }
  // Would hold on to a call that nobody waits for.
  void on_log(bulkhead::Context& ctx) override {
    try {
      gather("mine", ctx);
    } catch (const std::exception& error) {
      ctx.log(error.what());
    }
  }
  void on_train_start(bulkhead::Context& ctx) override {
    bulkhead::Batch& weights = ctx.weights();
    const auto bias = weights.mutable_view<float>("bias").flat();
    for (float& value : bias) value += 1;
    ctx.load_weights(weights);
    ctx.log(std::to_string(ctx.weights().view<float>("scale")(0)));  // asked for once only
    ctx.load_weights(weights);                                       // the same again is one parameter
  }
  // Parameters of its own making, by ctx.global_step.
  void on_validate_end(bulkhead::Context& ctx) override {
    if (ctx.global_step > 0) ctx.weights();
    bulkhead::Batch made;
    if (ctx.global_step == 0) made.add<float>("bias", {2})(1) = 5;
    if (ctx.global_step == 1) made.add<float>("bais", {2});
    if (ctx.global_step == 2) made.add<double>("bias", {3});
    ctx.load_weights(made);
  }
  void on_backward_end(bulkhead::Context& ctx) override { ctx.weights(); }
  void on_step_start(bulkhead::Context& ctx) override { ctx.load_weights(ctx.weights()); }
  void on_exception(bulkhead::Context& ctx) override {
    ctx.log(ctx.exception);
    gather("why", ctx);
  }
  void transform_train_batch(bulkhead::Batch&, bulkhead::Context& ctx) override { gather("batch", ctx); }

  static void gather(const std::string& value, bulkhead::Context& ctx) {
    std::string all;
    for (const auto& part : ctx.all_gather(value)) all += (part ? *part : "nobody") + ";";
    ctx.log(all);
  }
};

}  // namespace tests

BULKHEAD_PLUGIN(tests::Asker)
