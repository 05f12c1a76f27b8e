// A shared library that is no plugin; loading it would end the process.
#include <cstdlib>

namespace {
const int kNever = (std::abort(), 0);
}
extern "C" const int* not_a_plugin() { return &kNever; }
