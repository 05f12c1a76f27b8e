// Files with a fingerprint: what is written is hashed on the way and is on the
// disk when finish() returns; what is read is compared with its record before
// anybody looks at it.
//
// Names are relative, '/'-separated and harmless (check_file_name); reading
// follows no symlink below the root.  Pure file work; any thread, one object
// per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "protocol/result.h"
#include "protocol/sha256.h"
#include "protocol/tensor.h"

namespace bulkhead {

// What a manifest knows of one file.
struct FileRecord {
  std::string name;  // relative to the checkpoint
  std::uint64_t size = 0;
  std::string sha256;  // hexadecimal

  friend bool operator==(const FileRecord&, const FileRecord&) = default;
};

// Refuses (malformed) what could lead out of a directory or hide in it: an
// empty or absolute name, a component that is empty or begins with a dot,
// control characters, backslashes, more than 255 bytes in a component.
Status check_file_name(const std::string& name);

class CheckedWriter {
 public:
  // Creates the file and the directories of `name` below `root`.  A file that
  // exists, or a symlink, is an Error.
  static Result<CheckedWriter> create(const std::filesystem::path& root, const std::string& name);
  CheckedWriter(CheckedWriter&& other) noexcept;
  CheckedWriter& operator=(CheckedWriter&&) = delete;
  ~CheckedWriter();

  Status write(const void* data, std::size_t size_bytes);

  // Waits for the disk (fsync) and closes.  Without it the file is incomplete
  // and the destructor only closes it.
  Result<FileRecord> finish();

 private:
  CheckedWriter(int fd, std::filesystem::path path, std::string name);
  Error failed(const char* doing) const;

  int fd_ = -1;
  std::filesystem::path path_;
  FileRecord record_;
  std::unique_ptr<Sha256> hash_;
};

// The bytes of `name` below `root`, at most `limit_bytes`.
Result<Blob> read_file(const std::filesystem::path& root, const std::string& name, std::uint64_t limit_bytes);

// The same, of the size and with the hash of its record; else kMalformed.
Result<Blob> read_checked(const std::filesystem::path& root, const FileRecord& record);

// The size of a regular file that is reached without a symlink.
Result<std::uint64_t> file_size_of(const std::filesystem::path& root, const std::string& name);

// Waits until the entries of a directory are on the disk.
Status sync_directory(const std::filesystem::path& directory);

}  // namespace bulkhead
