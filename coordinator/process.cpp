#include "process.h"

#include <cstring>

namespace bulkhead {

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? "signal " + std::to_string(signal) : std::string("SIG") + name;
}

std::string ProcessEnd::describe() const {
  if (signal) return signal_name(*signal);
  return "exit " + std::to_string(exit_code.value_or(0));
}

}  // namespace bulkhead
