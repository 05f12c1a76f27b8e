// Its constructor ends the process.
#include <cstdlib>

#include "bulkhead/plugin.h"

struct CrashInConstructor : bulkhead::Plugin {
  CrashInConstructor() { std::abort(); }
};

BULKHEAD_PLUGIN(CrashInConstructor)
