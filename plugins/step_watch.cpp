// Looks at every step and does nothing about it: what a callback costs
// (scripts/bench/hooks), and the smallest plugin there is to copy.
#include "bulkhead/plugin.h"

struct StepWatch : bulkhead::Plugin {
  static constexpr bool stateless = true;

  void on_step_start(bulkhead::Context& ctx) override { step_ = ctx.global_step; }
  void on_step_end(bulkhead::Context& ctx) override { loss_ = ctx.metrics.at("loss"); }
  bool should_stop(bulkhead::Context&) override { return false; }

 private:
  std::int64_t step_ = 0;
  double loss_ = 0;
};

BULKHEAD_PLUGIN(StepWatch)
