// What the ranks tell each other at every step and after every waited-for
// hook, and how it is merged: the same bytes in, the same decision out, on
// every rank.  Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/messages.h"
#include "protocol/result.h"

namespace bulkhead {

struct RankReport {
  double loss_sum = 0;                 // Σ weight × mean loss over the step's micro-batches
  double weight = 0;                   // Σ weight
  double correct = 0;                  // labels predicted right, weight > 0 only
  double labels = 0;                   // labels seen, weight > 0 only
  Control control;                     // what this rank's plugins asked for
  std::vector<std::int64_t> given_up;  // plugins whose policy gave them up here
  std::string interrupt;               // not empty: this rank was told to end, and why
  std::string abort;                   // a plugin's policy says abort: why
  std::string fatal;                   // a plugin raised one of its `raises`: which
  std::int64_t weights_of = -1;        // the plugin whose ctx.load_weights this rank has; −1: none
};

struct Agreement {
  double loss = 0;                     // mean over the micro-batches that were trained on
  double accuracy = 0;                 // share of labels predicted right
  Control control;                     // one setting of each name
  std::vector<std::int64_t> given_up;  // sorted
  std::string interrupt;
  std::string abort;
  std::string fatal;
  std::int64_t weights_root = -1;  // the rank whose weights all take; −1: none
};

std::string to_bytes(const RankReport& report);
Result<RankReport> report_from(const std::string& bytes);

// In rank order; of several reasons the lowest rank's counts.
Agreement agree(const std::vector<RankReport>& reports);

}  // namespace bulkhead
