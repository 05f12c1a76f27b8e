// runs/<name>-<id>/: what a run leaves, and the lock that says that its
// coordinator lives.
//
// Every file is whole at every moment.  Knows nothing of what is in
// checkpoints/.  One owner, on the loop thread; the lock is free once the
// object or the process is gone.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "protocol/result.h"
#include "run_records.h"
#include "run_storage.h"

namespace bulkhead {

class RunDirectory {
 public:
  // A new one under `parent`, which is made if it is not there.  The id is the
  // time in UTC and four random digits: names sort by age, and any number of
  // coordinators may do this at once.
  static Result<RunDirectory> create(const std::filesystem::path& parent, const std::string& name);

  // One that is there already, to go on in it.  Refused while another
  // coordinator holds it.
  static Result<RunDirectory> open(const std::filesystem::path& path);

  RunDirectory(RunDirectory&& other) noexcept;
  RunDirectory& operator=(RunDirectory&&) = delete;
  ~RunDirectory();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path logs() const { return path_ / "logs"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path dead_letters() const { return path_ / "dead_letters"; }

  Status write_run_yaml(const std::string& text);
  Status write_summary(const Summary& summary);
  // One line each; `metrics` is an object with "step".
  Status append_metrics(const Value& metrics);
  Status append_event(const Value& event);

  // For a resume at `step` steps: later lines of metrics.jsonl go, as does an
  // old summary.json.  events.jsonl only ever grows.
  Status cut_back(std::int64_t step);

 private:
  RunDirectory(std::filesystem::path path, int lock, LineLog metrics, LineLog events)
      : path_(std::move(path)), lock_(lock), metrics_(std::move(metrics)), events_(std::move(events)) {}

  std::filesystem::path path_;
  int lock_ = -1;
  LineLog metrics_;
  LineLog events_;
};

// The newest run of that name under `parent` that has a run.yaml and did not
// end as completed or stopped; none when there is no such run.  A run whose
// coordinator still lives is an error.
Result<std::optional<std::filesystem::path>> find_unfinished(const std::filesystem::path& parent,
                                                             const std::string& name);

}  // namespace bulkhead
