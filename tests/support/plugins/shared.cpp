// Says whose call it is.
#include "bulkhead/plugin.h"

struct Shared : bulkhead::Plugin {
  static constexpr bool steers = false;
  void on_step_end(bulkhead::Context& ctx) override {
    ctx.log(std::to_string(ctx.rank) + " " + std::to_string(ctx.local_rank) + " " + ctx.device + " " +
            ctx.map_loc.at("cuda:0") + (ctx.is_main ? " main" : ""));
  }
  void on_epoch_end(bulkhead::Context& ctx) override { ctx.all_gather("x"); }
  void on_train_end(bulkhead::Context& ctx) override { ctx.load_weights({}); }
};

BULKHEAD_PLUGIN(Shared)
