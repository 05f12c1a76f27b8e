// Has the note, but not the function.
#include "bulkhead/plugin.h"

extern "C" {
__attribute__((section(".note.bulkhead"), used, aligned(4))) constexpr bulkhead::abi::Note kNote =
    bulkhead::entry::note();
}
