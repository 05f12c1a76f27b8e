// rows.safetensors: a data set of rows that plugins took part in making, as a
// run keeps it, so that it is made once: in the run's directory, in each
// checkpoint (a link), and on its way to the other ranks, as the same bytes.
//
// Also in it is where the plugins of the stage stood when it was done, for ranks
// that begin again before the first checkpoint.  What is read is believed only
// where it fits together.  Compute thread.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "checkpoint.h"
#include "data/token_rows.h"
#include "plugin_client.h"
#include "protocol/result.h"
#include "protocol/run_config.h"
#include "protocol/tensor.h"

namespace bulkhead {

inline constexpr const char* kRowsFile = "rows.safetensors";

struct RowsFile {
  TokenRows rows;
  std::string data_key;                                  // data_key_of() it was made by
  std::string plugin_key;                                // plugin_key_of() it was made by
  std::map<std::string, PluginClient::Restored> states;  // rank 0's, by plugin
};

// What must be as it was for a resumed run to train on the rows of its
// checkpoint: tokenizer, fractions and the model's context, as a hash.
std::string data_key_of(const RunConfig& config);
// What must be too for a run without a checkpoint to take them up: the file, the
// plugins with hooks of the stage, their arguments and source, the run's seed.
std::string plugin_key_of(const RunConfig& config, const std::vector<PluginRoute>& routes);

// The bytes of the file.
Result<Blob> encode_rows(const RowsFile& file);
// The way back; kMalformed, a sentence that begins with `name`, for anything
// that encode_rows does not write.
Result<RowsFile> decode_rows(const Blob& bytes, const std::string& name);

// Puts the bytes into `directory` as kRowsFile: whole, or not at all, whatever
// is there already.
Result<LinkedFile> write_rows_file(const std::filesystem::path& directory, const Blob& bytes);

}  // namespace bulkhead
