// Rows of a data set: JSON objects, one a line of a file, kept as texts until
// they are encoded (row_tokens.h), since plugins may change, drop and encode
// them before.
//
// Reads and checks; knows nothing of tokens.  Values and pure functions but for
// reading the file; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

// Deepest nesting of a row's lists and maps, the row itself included.
inline constexpr std::size_t kDeepestRow = 20;

struct Rows {
  std::string path;
  std::vector<std::string> texts;   // each a JSON object
  std::vector<std::int64_t> lines;  // of the file, from 1; empty once plugins have changed the rows

  // Where a row comes from, for sentences: "data.path: FILE line 12", or its
  // number where there is no line.
  std::string place_of(std::size_t row) const;
};

// The rows of config.path, in order; lines of white space alone are passed over.
// Fails at the first line that is no JSON object in UTF-8, is nested too deeply,
// and where there is no row, naming file and line.
Result<Rows> read_rows(const DataConfig& config);

// Empty, or what keeps `text` from being a row: "is not JSON at byte 7".
std::string row_objection(const std::string& text);

}  // namespace bulkhead
