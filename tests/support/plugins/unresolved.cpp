// Needs a symbol that no library has.
#include "bulkhead/plugin.h"

extern "C" int symbol_that_nobody_defines();

struct Unresolved : bulkhead::Plugin {
  bool should_stop(bulkhead::Context&) override { return symbol_that_nobody_defines() != 0; }
};

BULKHEAD_PLUGIN(Unresolved)
