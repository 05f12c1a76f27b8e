// Its table names a hook nobody knows.
#include "bulkhead/plugin.h"

namespace {
const bulkhead::abi::Text kHooks[] = {bulkhead::abi::text("on_moon_rise")};
const bulkhead::abi::Table kTable{bulkhead::abi::kVersion,
                                  1,
                                  1,
                                  1,
                                  bulkhead::abi::text("WrongTable"),
                                  1,
                                  kHooks,
                                  0,
                                  nullptr,
                                  nullptr,
                                  nullptr,
                                  nullptr};
}  // namespace

extern "C" {
__attribute__((section(".note.bulkhead"), used, aligned(4))) constexpr bulkhead::abi::Note kNote =
    bulkhead::entry::note();
__attribute__((visibility("default"))) const bulkhead::abi::Table* bulkhead_plugin_v5() { return &kTable; }
}
