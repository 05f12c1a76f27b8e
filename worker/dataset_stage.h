// The data set stage: preprocess, keep and encode of the run's plugins over the
// rows of a data set, on rank 0, before training (protocol/README.md, rule 16).
//
// The order of the calls and what they hold are functions of the rows alone, so
// every run of it gives the same data set.  A plugin that fails fails the run: a
// data set cannot be half made.  Compute thread.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "data/rows.h"
#include "data/token_rows.h"
#include "plugin_client.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

// Rows in one call.
inline constexpr std::size_t kRowsPerCall = 1000;

class DatasetStage {
 public:
  // `stop_asked`: not empty once the run shall end, and why; looked at between
  // calls.  Both must outlive it.
  DatasetStage(PluginClient& plugins, const RunConfig& config, std::function<std::string()> stop_asked);

  // Waits for the plugins.  Every failure is one sentence; status() says how the
  // run ends then.
  Result<TokenRows> run(Rows rows);

  // refused | aborted | interrupted
  const std::string& status() const { return status_; }
  // The run file's key that the sentence is about: "data", "plugins.2".
  const std::string& key() const { return key_; }
  // As on_train_start has it, but for the length of an epoch, which nobody knows.
  HookContext context() const;

 private:
  Status preprocess(std::size_t place, Rows& rows);
  Status keep(std::size_t place, Rows& rows);
  Result<TokenRows> encode(std::size_t place, const Rows& rows);
  // One call: rows `first` up to `last` of `rows`, as chunk `number`.
  Result<Batch> call(std::size_t place, const char* hook, const Rows& rows, std::size_t first,
                     std::size_t last, std::size_t number);
  // A sentence about that call.
  Error failed(std::size_t place, const char* hook, std::size_t number, const std::string& what);

  PluginClient& plugins_;
  const RunConfig& config_;
  std::function<std::string()> stop_asked_;
  std::string status_ = "refused";
  std::string key_ = "data";
};

}  // namespace bulkhead
