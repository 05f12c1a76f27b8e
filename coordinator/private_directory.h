// The directory of a run's ipc sockets: fresh, mode 0700, short enough for a
// socket path, gone when this object is.
//
// After kill -9 of the coordinator the process guard (child_process) removes
// it instead.  Any thread.
#pragma once

#include <filesystem>
#include <string>

#include "protocol/result.h"

namespace bulkhead {

class PrivateDirectory {
 public:
  // Under $XDG_RUNTIME_DIR where that is ours and short, else under /tmp.
  static Result<PrivateDirectory> make();
  // Under `parent`, which exists.
  static Result<PrivateDirectory> make_under(const std::filesystem::path& parent);

  PrivateDirectory(PrivateDirectory&& other) noexcept;
  PrivateDirectory& operator=(PrivateDirectory&&) = delete;
  ~PrivateDirectory();

  const std::filesystem::path& path() const { return path_; }
  // "ipc://DIR/NAME"
  std::string endpoint(const std::string& name) const { return "ipc://" + (path_ / name).string(); }

 private:
  explicit PrivateDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

}  // namespace bulkhead
