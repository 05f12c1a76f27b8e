// Checkpoints as directories: checkpoints/step-00000100/ with
//   model.safetensors  optimizer.safetensors       written by rank 0
//   rank-<r>.safetensors                           a rank's own tensors
//   plugins/<name>/rank-<r>.bin                    a plugin's state, opaque
//   rows.safetensors                               the data set, where plugins made it (rows_file.h)
//   MANIFEST.json                                  written last (manifest.h)
//
// Pure file work: who calls when, and how file records get from the other
// ranks to rank 0, is the caller's.  A checkpoint is written aside, in a
// directory whose name begins with a dot, and appears whole by one rename; a
// process that dies meanwhile leaves only the aside directory, which the next
// writer removes.  Any thread, one object per thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "batch.h"
#include "checked_file.h"
#include "manifest.h"
#include "protocol/ids.h"
#include "protocol/result.h"
#include "safetensors.h"

namespace bulkhead {

// Names inside a checkpoint.
inline constexpr const char* kModelFile = "model.safetensors";
inline constexpr const char* kOptimizerFile = "optimizer.safetensors";
std::string rank_file(WorkerId rank);
std::string plugin_file(std::string_view plugin, WorkerId rank);

// "step-00000100"
std::string checkpoint_name(std::int64_t step);

// A file elsewhere that a checkpoint has too, under record.name.
struct LinkedFile {
  std::filesystem::path source;
  FileRecord record;
};

class CheckpointWriter {
 public:
  // `is_main` (rank 0) creates the aside directory, and the checkpoints
  // directory where it is missing, and removes what dead writers left there.
  // Other ranks open after that (the caller's barrier) and fail where it is
  // not there.
  static Result<CheckpointWriter> open(const std::filesystem::path& checkpoints, std::int64_t step,
                                       bool is_main);
  CheckpointWriter(CheckpointWriter&& other) noexcept;
  CheckpointWriter& operator=(CheckpointWriter&&) = delete;
  // The main writer removes an aside directory that was not committed.
  ~CheckpointWriter();

  // Writes one file and waits until it is on the disk.  An Error (a full disk,
  // say) ends this checkpoint: the caller lets every rank know and drops its
  // writer.
  Result<FileRecord> write_tensors(const std::string& name, const std::vector<NamedTensor>& tensors,
                                   const TextMap& metadata = {});
  Result<FileRecord> write_bytes(const std::string& name, std::string_view bytes);

  // The file under another name (a hard link), or a copy of it where the file
  // system has no such links.  Nobody may write into it later.
  Result<FileRecord> link(const LinkedFile& file);

  // Main only, once every rank's files are on the disk.  `manifest.files` are
  // the records of all ranks.  Checks that they are there, writes the manifest,
  // renames, and then deletes the oldest checkpoints but `keep` (0 = none is
  // deleted; the new one always stays).  A checkpoint of the same step is
  // replaced.  Returns the checkpoint's path; on failure the directory of
  // before is untouched.
  Result<std::filesystem::path> commit(Manifest manifest, std::int64_t keep);

 private:
  CheckpointWriter(std::filesystem::path checkpoints, std::int64_t step, bool is_main);
  Status write_manifest(const Manifest& manifest) const;

  std::filesystem::path checkpoints_;
  std::filesystem::path aside_;
  std::int64_t step_ = 0;
  bool owns_aside_ = false;
};

// A checkpoint whose manifest is sound and whose files are all there in their
// sizes.  Contents are compared with their sha256 when they are read.
class CheckpointReader {
 public:
  const Manifest& manifest() const { return manifest_; }
  const std::filesystem::path& path() const { return path_; }
  bool has(std::string_view name) const { return manifest_.find(name) != nullptr; }

  // Fails (unavailable) where the checkpoint has no such file, (malformed)
  // where it is corrupt.
  Result<SafeTensors> read_tensors(const std::string& name) const;
  Result<Blob> read_bytes(const std::string& name) const;

  // Reads and compares every file.
  Status verify() const;

 private:
  friend Result<CheckpointReader> open_checkpoint(const std::filesystem::path& path);
  CheckpointReader(std::filesystem::path path, Manifest manifest);
  std::filesystem::path path_;
  Manifest manifest_;
};

// Refuses, with one sentence, what is absent, incomplete, foreign, of a newer
// version, truncated, or tries to lead out of its directory.
Result<CheckpointReader> open_checkpoint(const std::filesystem::path& path);

// The complete checkpoint of the highest step, or nothing.  One that does not
// open is passed over with a warning in the log.
std::optional<std::filesystem::path> newest_complete(const std::filesystem::path& checkpoints);

// sha256 over the raw bytes of all parameters in name order (bytewise), as in
// summary.json.
std::string params_sha256(const std::vector<NamedTensor>& parameters);

}  // namespace bulkhead
