#include "run_storage.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <unistd.h>
#include <utility>

namespace bulkhead {
namespace {

Error system_error(const std::string& what, const std::filesystem::path& path) {
  return Error{ErrorCode::kUnavailable, what + " " + path.string() + ": " + std::strerror(errno)};
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

Status replace_file(const std::filesystem::path& path, std::string_view text) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const std::filesystem::path aside = folder / ("." + path.filename().string() + ".writing");
  const int fd = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return system_error("cannot write", aside);
  const bool whole = write_all(fd, text) && ::fsync(fd) == 0;
  const Error failed = system_error("cannot write", path);
  ::close(fd);
  if (!whole) {
    ::unlink(aside.c_str());
    return failed;
  }
  if (::rename(aside.c_str(), path.c_str()) != 0) {
    const Error not_renamed = system_error("cannot write", path);
    ::unlink(aside.c_str());
    return not_renamed;
  }
  sync_folder(folder);
  return ok_status();
}

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return system_error("cannot read", path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

Result<LineLog> LineLog::open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return system_error("cannot open", path);
  LineLog log(path, fd, 0);
  auto text = read_file(path);
  if (!text) return text.error();
  const std::size_t last = text->rfind('\n');
  log.size_ = last == std::string::npos ? 0 : static_cast<std::int64_t>(last) + 1;
  const bool torn = log.size_ != static_cast<std::int64_t>(text->size());
  if (torn && ::ftruncate(fd, log.size_) != 0) return system_error("cannot repair", path);
  return log;
}

LineLog::LineLog(LineLog&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

LineLog& LineLog::operator=(LineLog&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

LineLog::~LineLog() {
  if (fd_ >= 0) ::close(fd_);
}

Status LineLog::append(std::string_view line) {
  CHECK(line.find('\n') == std::string_view::npos, "a line of a log holds no line feed");
  std::string whole(line);
  whole += '\n';
  ssize_t written = -1;
  do {
    written = ::write(fd_, whole.data(), whole.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(whole.size())) {
    size_ += written;
    return ok_status();
  }
  if (written >= 0) errno = ENOSPC;
  const Error failed = system_error("cannot write", path_);
  // Half a line would spoil the next one; if this fails too, open() repairs.
  if (written > 0 && ::ftruncate(fd_, size_) != 0) return system_error("cannot repair", path_);
  return failed;
}

Status LineLog::filter(const std::function<bool(std::string_view)>& keep) {
  auto text = read_file(path_);
  if (!text) return text.error();
  std::string kept;
  std::string_view rest = *text;
  for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
    if (keep(rest.substr(0, end))) kept += rest.substr(0, end + 1);
    rest.remove_prefix(end + 1);
  }
  if (kept.size() == text->size()) return ok_status();
  if (auto replaced = replace_file(path_, kept); !replaced) return replaced;
  auto reopened = open(path_);
  if (!reopened) return reopened.error();
  *this = std::move(*reopened);
  return ok_status();
}

}  // namespace bulkhead
