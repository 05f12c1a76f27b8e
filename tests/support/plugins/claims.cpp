// Has a hook for itself: the one that CLAIM names.  Built once for each claim.
#include <array>

#include "bulkhead/plugin.h"

struct Claims : bulkhead::Plugin {
  static constexpr std::array claims{CLAIM};
#ifdef CLAIMS_SHOULD_STOP
  bool should_stop(bulkhead::Context&) override { return false; }
#else
  void CLAIMED_HOOK(bulkhead::Batch&, bulkhead::Context&) override {}
#endif
};

BULKHEAD_PLUGIN(Claims)
