// A CSV file (RFC 4180: header row, quoted fields, CRLF or LF) as standardised
// numeric features and class labels.
//
// Refuses what it would have to guess: missing, non-numeric or non-finite
// cells, rows of another length.  Immutable once loaded; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/split.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

// The records of a CSV text as written, quotes removed.
struct CsvRecord {
  std::int64_t line = 0;  // where it begins, from 1
  std::vector<std::string> fields;
};

// Splits text into records; wholly empty lines are skipped, a UTF-8 byte order
// mark too.  `name` is the file, for errors.
Result<std::vector<CsvRecord>> parse_csv(std::string_view text, const std::string& name);

struct TableData {
  std::vector<std::string> columns;  // the features' names, in the file's order
  std::vector<std::string> classes;  // distinct labels: by number if all are integers, else by bytes
  std::int64_t rows = 0;
  SplitSizes sizes;                  // of the rows, in the file's order
  std::vector<float> features;       // rows × columns, standardised
  std::vector<std::int64_t> labels;  // index into classes
};

// Reads config.path with config.target as the label column.  Each feature is
// standardised to (x − mean) / std with the mean and population standard
// deviation of the training rows; a column that is constant there is only
// centred.  Fails naming file:line and column, and for an unknown target the
// nearest column.
Result<TableData> load_csv(const DataConfig& config);

}  // namespace bulkhead
