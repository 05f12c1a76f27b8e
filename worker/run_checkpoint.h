// Checkpoints of a whole run: all ranks write one together, each reads its
// part back.  What a checkpoint holds is here; how files get to disk safely is
// checkpoint.h.
//
// Collective: every rank calls these at the same place.  Compute thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "batch.h"
#include "checkpoint.h"
#include "communicator.h"
#include "optim/optimizer.h"
#include "plugin_client.h"
#include "training_state.h"

namespace bulkhead {

// One rank's part beside parameters and optimizer, which are the same on all.
struct RankState {
  TrainingState training;
  std::vector<PendingBatch> batches;          // transformed, not yet trained on
  std::map<std::string, Blob> plugin_states;  // by plugin name
  std::map<std::string, std::int64_t> plugin_seqs;
  std::vector<LinkedFile> linked;  // for writing: files that the checkpoint has in common with the run
};

// Writes `checkpoints`/step-NNNNNNNN with all ranks and keeps the newest
// `keep` (0 = all).  Every rank returns the same verdict; after an Error no
// half-written directory is left and older checkpoints are whole.
Status write_run_checkpoint(const std::string& checkpoints, std::int64_t keep, Communicator& communicator,
                            const std::vector<NamedTensor>& parameters, const Optimizer& optimizer,
                            const RankState& rank, const std::string& model_type);

// Reads and verifies this rank's part and copies parameters and optimizer state
// into place; nothing is changed unless everything fits.
Result<RankState> read_run_checkpoint(const std::string& path, std::int64_t rank, std::int64_t world_size,
                                      std::vector<NamedTensor>& parameters, Optimizer& optimizer,
                                      const std::string& model_type);

}  // namespace bulkhead
