// Overrides one hook, takes no arguments, keeps no state; declares what can be
// declared.
#include "bulkhead/plugin.h"

struct NoArguments : bulkhead::Plugin {
  static constexpr bool steers = false;
  static constexpr bool seeded = false;
  void on_step_end(bulkhead::Context&) override {}
};

BULKHEAD_PLUGIN(NoArguments)
