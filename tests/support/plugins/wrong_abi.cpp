// A plugin of another ABI; loading it would end the process.
#include <cstdlib>

#include "bulkhead/plugin.h"

namespace {
constexpr bulkhead::abi::Note note_of_version(std::uint32_t version) {
  bulkhead::abi::Note note = bulkhead::entry::note();
  note.version = version;
  return note;
}
const int kNever = (std::abort(), 0);
}  // namespace

extern "C" {
__attribute__((section(".note.bulkhead"), used, aligned(4))) constexpr bulkhead::abi::Note kNote =
    note_of_version(999);
__attribute__((visibility("default"))) const int* bulkhead_plugin_v5() { return &kNever; }
}
