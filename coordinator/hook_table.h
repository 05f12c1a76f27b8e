// The hooks as a person reads them: what `bulkhead hooks` prints, and the table
// of README.md, from protocol's one table.
//
// Pure; any thread.
#pragma once

#include <string>

namespace bulkhead {

// The table of README.md, between its two marker lines.
std::string hooks_markdown();

// The same for a terminal: a line per hook, "NAME  KIND  WHEN".
std::string hooks_text();

}  // namespace bulkhead
