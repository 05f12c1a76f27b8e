// Throws what ends the run, what derives from it, and what does not; sets what
// may be set and what may not.
#include <exception>
#include <limits>

#include "bulkhead/plugin.h"

namespace tests {

struct Diverged : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct Exploded : Diverged {
  using Diverged::Diverged;
};

struct Raiser : bulkhead::Plugin {
  using raises = bulkhead::Raises<Diverged, std::string>;

  void setup(bulkhead::Context&) override { throw Diverged("in setup"); }
  void on_step_start(bulkhead::Context&) override { throw Diverged("the loss is too high"); }
  void on_step_end(bulkhead::Context&) override { throw Exploded("it is infinite"); }
  bool should_stop(bulkhead::Context&) override { throw std::string("a text"); }
  void on_epoch_start(bulkhead::Context&) override { throw std::logic_error("an ordinary mistake"); }
  void on_epoch_end(bulkhead::Context&) override { std::terminate(); }
  void transform_train_batch(bulkhead::Batch&, bulkhead::Context&) override { throw Exploded("in a batch"); }

  void on_log(bulkhead::Context& ctx) override {
    ctx.set("grad_accum", 2);
    ctx.set("lr", 0.5);
    ctx.set("grad_accum", 4);
    ctx.set("validate_every", 0);
    ctx.set("lr", std::nullopt);
    ctx.control.log();
  }
  void on_optimizer_step_end(bulkhead::Context& ctx) override {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const std::pair<const char*, std::optional<double>> wrong[] = {{"seed", 2},
                                                                   {"grad_acum", 2},
                                                                   {"grad_accum", 0},
                                                                   {"grad_accum", 1.5},
                                                                   {"grad_accum", std::nullopt},
                                                                   {"save_every", -1},
                                                                   {"lr", -0.1},
                                                                   {"lr", kInfinity},
                                                                   {"log_every", std::nullopt}};
    for (const auto& [name, value] : wrong) {
      try {
        ctx.set(name, value);
        ctx.log("it was set");
      } catch (const std::invalid_argument& error) {
        ctx.log(error.what());
      }
    }
  }
};

}  // namespace tests

BULKHEAD_PLUGIN(tests::Raiser)
