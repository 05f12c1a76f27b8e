// Writes down what ctx says, in RUN/witness/NAME-RANK.jsonl: the C++ side of
// witness.py, whose lines must be the same.
#include "witness_line.h"

namespace tests {

struct ContextProbe : bulkhead::Plugin {
  void on_train_start(bulkhead::Context& ctx) override { see("on_train_start", ctx); }
  void on_epoch_start(bulkhead::Context& ctx) override { see("on_epoch_start", ctx); }
  void on_step_start(bulkhead::Context& ctx) override { see("on_step_start", ctx); }
  void transform_train_batch(bulkhead::Batch&, bulkhead::Context& ctx) override {
    see("transform_train_batch", ctx);
  }
  void on_step_end(bulkhead::Context& ctx) override { see("on_step_end", ctx); }
  void on_validate_end(bulkhead::Context& ctx) override { see("on_validate_end", ctx); }
  void on_train_end(bulkhead::Context& ctx) override { see("on_train_end", ctx); }

  static void see(const char* hook, const bulkhead::Context& ctx) { write_line(ctx, hook, fields_of(ctx)); }
};

}  // namespace tests

BULKHEAD_PLUGIN(tests::ContextProbe)
