// Adds one to every element of "x", in place: what bench_dataplane calls.
#include "bulkhead/plugin.h"

struct AddOne : bulkhead::Plugin {
  void on_step_end(bulkhead::Context&) override {}
  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context&) override {
    const auto x = batch.mutable_view<float>("x").flat();
    for (float& value : x) value += 1;
  }
};
BULKHEAD_PLUGIN(AddOne)
