// The exceptions of one plugin process, counted by type and message.
//
// Bounded: a message is cut to its first line, and of very many different ones
// the later ones are counted together.  Values only; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace bulkhead {

class ErrorKinds {
 public:
  // `reason` is "ValueError: message".  True for the first of its kind.
  bool add(const std::string& reason);
  // "ValueError: message" → how many.
  const std::map<std::string, std::int64_t>& counts() const { return counts_; }

 private:
  std::map<std::string, std::int64_t> counts_;
};

}  // namespace bulkhead
