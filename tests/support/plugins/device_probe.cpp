// Does with a batch on a GPU what `how` says.  Only over the stand-in for the
// driver (cuda_stand_in.cpp), whose addresses are this process's too.
#include <stdexcept>
#include <string>

#include "bulkhead/plugin.h"

struct DeviceProbe : bulkhead::Plugin {
  static constexpr bool stateless = true;

  explicit DeviceProbe(const bulkhead::Options& with) : how_(with.get<std::string>("how", "in_place")) {}

  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context& ctx) override {
    if (how_ == "where")
      throw std::runtime_error("on " + std::to_string(batch.device()) + " of " + ctx.device);
    if (how_ == "nothing") return;
    if (how_ == "remove") return batch.remove("x");
    if (how_ == "slice") {
      const auto x = batch.view<float>("x");
      return batch.set("x", x.permuted({1, 0}).sliced(0, 1, 2));
    }
    if (how_ == "new") {
      const auto x = batch.view<float>("x");
      const auto y = batch.add<float>("y", x.shape());
      for (std::int64_t i = 0; i < x.size(); ++i) y.data()[i] += 2 * x.data()[i];  // it began with zeros
      return batch.remove("x");
    }
    if (how_ == "room") return void(batch.add<float>("y", {1 << 20, 1 << 10}));
    if (how_ == "seen") (void)batch.view<float>("x");
    if (how_ == "flat") (void)batch.view<float>("x").flat();
    const auto x = batch.mutable_view<float>("x");
    if (x.device() != batch.device()) throw std::logic_error("a view says where its batch is");
    for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] += 1;
    if (how_ == "crash") __builtin_trap();
  }

  std::string how_;
};

BULKHEAD_PLUGIN(DeviceProbe)
