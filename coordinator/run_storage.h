// Files that are whole at every moment, whatever is killed: a text replaced at
// once, and a log of lines each written by one write(2).
//
// Not for data: texts are small and writes are synchronous.  A LineLog belongs
// to one thread and is the only writer of its file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "protocol/result.h"

namespace bulkhead {

// Replaces `path` by `text`: a file beside it whose name begins with a dot,
// synced, then renamed.  On failure the old file is as it was.
Status replace_file(const std::filesystem::path& path, std::string_view text);

// The whole file.
Result<std::string> read_file(const std::filesystem::path& path);

class LineLog {
 public:
  // Opens or makes `path`; half a line at its end, left by a full disk or a
  // power cut, is cut off.
  static Result<LineLog> open(const std::filesystem::path& path);
  LineLog(LineLog&& other) noexcept;
  LineLog& operator=(LineLog&& other) noexcept;
  ~LineLog();

  // `line` must hold no line feed.  After a failed write the file ends with
  // the line before.
  Status append(std::string_view line);

  // Rewrites the file with only the lines for which `keep` says so.
  Status filter(const std::function<bool(std::string_view)>& keep);

 private:
  LineLog(std::filesystem::path path, int fd, std::int64_t size)
      : path_(std::move(path)), fd_(fd), size_(size) {}

  std::filesystem::path path_;
  int fd_ = -1;
  std::int64_t size_ = 0;
};

}  // namespace bulkhead
