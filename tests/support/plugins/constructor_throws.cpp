// Its constructor throws.
#include <stdexcept>

#include "bulkhead/plugin.h"

struct ConstructorThrows : bulkhead::Plugin {
  ConstructorThrows() { throw std::out_of_range("the moon is too far"); }
};

BULKHEAD_PLUGIN(ConstructorThrows)
