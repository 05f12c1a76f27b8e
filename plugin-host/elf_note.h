// Reads the bulkhead note of a shared library from its bytes, without loading
// it: loading runs its constructors, and a truncated file kills the process.
//
// Trusts no offset and no size in the file.  Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "protocol/result.h"

namespace bulkhead {

struct ElfNote {
  std::uint32_t version = 0;  // of the plugin ABI
  std::string compiler;       // "gcc 12.2.0 libstdc++ 20220819"
};

// `path` is for the sentence.  kMalformed: no shared library of this machine,
// truncated, or without a note.
Result<ElfNote> read_elf_note(std::string_view file, const std::string& path);

}  // namespace bulkhead
