// Changes the run, and remembers that it was asked.
#include "bulkhead/plugin.h"

struct Configurer : bulkhead::Plugin {
  bulkhead::Changes configure(const bulkhead::Config& run, bulkhead::Context& ctx) override {
    ctx.log("configuring " + run.get("name", "a nameless run"));
    seen_ = run.require<double>("optimizer.lr");
    if (run.has("plugins.1.name"))
      throw std::runtime_error("I am " + run.require<std::string>("plugins.1.name"));
    bulkhead::Changes changes{{"optimizer.lr", 2 * seen_}, {"checkpoint.keep", 5}};
    changes.set("checkpoint.keep", static_cast<std::int64_t>(run.size("plugins")));
    changes.set("draw", ctx.rng.next() % 1000);
    changes.set("all", std::vector<std::string>(run.keys("optimizer")));
    changes.set("on", true).set("nothing", nullptr).set("text", std::string("x"));
    return changes;
  }
  std::string state_dict() override { return std::to_string(seen_); }
  void load_state_dict(std::string_view) override {}

  double seen_ = 0;
};

BULKHEAD_PLUGIN(Configurer)
