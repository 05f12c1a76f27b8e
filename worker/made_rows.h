// The data set of a run whose plugins take part in making it (data.type rows;
// preprocess, keep, encode): made once, by rank 0, and taken up from where it is
// kept ever after, so that a plugin's later state cannot make another one.
//
// All ranks use one of these at the same place; only rank 0's reads or makes
// anything.  Compute thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "checkpoint.h"
#include "communicator.h"
#include "data/token_rows.h"
#include "plugin_client.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"
#include "rows_exchange.h"
#include "rows_file.h"

namespace bulkhead {

class MadeRows {
 public:
  struct Surroundings {
    EventLoop* compute = nullptr;
    Communicator* communicator = nullptr;
    at::Device device = at::kCPU;
    std::function<std::string()> stop_asked;        // as DatasetStage has it
    std::function<void(std::string, Value)> event;  // one line
  };

  // Whether this run has such a data set: plugins have a hook of the stage, or
  // the checkpoint that is resumed holds one.
  static bool are_needed(const StartWorker& start);

  // `start` must outlive it.
  MadeRows(const StartWorker& start, Surroundings around);

  // Of a run that starts afresh, before its plugins are opened: what an earlier
  // incarnation of rank 0 has left in the run's directory, if it was made of the
  // same.  Gives where the plugins stood when it was done; empty where there is
  // none, and on other ranks.
  std::map<std::string, PluginClient::Restored> take_up();

  // Collective: makes it with `plugins` (null for a resumed run, which reads it
  // from its checkpoint), keeps it, and gives it to all ranks.  The same verdict
  // on each; an Error means that a rank was lost.
  Result<RowsVerdict> share(PluginClient* plugins);

  // After the verdict "done".
  TokenRows& rows() { return rows_; }
  // Rank 0: what every checkpoint gets.
  const std::vector<LinkedFile>& kept() const { return kept_; }

 private:
  RowsVerdict make(PluginClient& plugins);
  RowsVerdict resumed() const;
  Status keep(const Blob& bytes);
  std::string run_dir() const { return start_.facts.run_dir; }

  const StartWorker& start_;
  Surroundings around_;
  Blob taken_up_;  // empty: nothing
  TokenRows rows_;
  std::vector<LinkedFile> kept_;
};

}  // namespace bulkhead
