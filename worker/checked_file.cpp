#include "checked_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

// A descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

Error file_error(const char* doing, const fs::path& path, int code) {
  const bool absent = code == ENOENT || code == ENOTDIR;
  const std::string why = code == ELOOP ? "it is a symbolic link" : std::strerror(code);
  return Error{absent ? ErrorCode::kUnavailable : ErrorCode::kFailed,
               std::string("cannot ") + doing + " " + path.string() + ": " + why};
}

std::vector<std::string> components_of(const std::string& name) {
  std::vector<std::string> components;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t end = name.find('/', begin);
    components.push_back(name.substr(begin, end - begin));
    if (end == std::string::npos) return components;
    begin = end + 1;
  }
}

bool harmless(const std::string& component) {
  if (component.empty() || component.size() > 255 || component[0] == '.') return false;
  return std::none_of(component.begin(), component.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == 0x7f; });
}

// Opens `name` below `root` one component at a time, following no symlink.
Result<Fd> open_beneath(const fs::path& root, const std::string& name) {
  if (auto good = check_file_name(name); !good) return good.error();
  Fd at(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!at.ok()) return file_error("open", root, errno);
  const std::vector<std::string> components = components_of(name);
  for (std::size_t i = 0; i < components.size(); ++i) {
    const bool last = i + 1 == components.size();
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (last ? 0 : O_DIRECTORY);
    Fd next(openat(at.get(), components[i].c_str(), flags));
    if (!next.ok()) {
      const int code = errno;
      struct stat status {};
      const bool link = fstatat(at.get(), components[i].c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                        S_ISLNK(status.st_mode);
      return file_error("open", root / name, link ? ELOOP : code);
    }
    at = std::move(next);
  }
  return at;
}

Result<std::uint64_t> regular_size(const Fd& file, const fs::path& path) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return file_error("examine", path, errno);
  if (!S_ISREG(status.st_mode)) return Error{ErrorCode::kMalformed, path.string() + " is not a regular file"};
  return static_cast<std::uint64_t>(status.st_size);
}

Result<Blob> read_all(const Fd& file, const fs::path& path, std::uint64_t size) {
  std::shared_ptr<std::byte[]> bytes(new std::byte[size]);
  std::uint64_t got = 0;
  while (got < size) {
    const ssize_t count = read(file.get(), bytes.get() + got, size - got);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return file_error("read", path, errno);
    if (count == 0) return Error{ErrorCode::kMalformed, path.string() + " became shorter while it was read"};
    got += static_cast<std::uint64_t>(count);
  }
  Blob blob;
  blob.data = bytes.get();
  blob.size = size;
  blob.owner = std::move(bytes);
  return blob;
}

}  // namespace

Status check_file_name(const std::string& name) {
  const std::vector<std::string> components = components_of(name);
  if (std::all_of(components.begin(), components.end(), harmless)) return ok_status();
  return Error{ErrorCode::kMalformed, "'" + name + "' is not a name that a checkpoint may use for a file"};
}

CheckedWriter::CheckedWriter(int fd, fs::path path, std::string name)
    : fd_(fd), path_(std::move(path)), hash_(std::make_unique<Sha256>()) {
  record_.name = std::move(name);
}

CheckedWriter::CheckedWriter(CheckedWriter&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      record_(std::move(other.record_)),
      hash_(std::move(other.hash_)) {}

CheckedWriter::~CheckedWriter() {
  if (fd_ >= 0) close(fd_);
}

Error CheckedWriter::failed(const char* doing) const { return file_error(doing, path_, errno); }

Result<CheckedWriter> CheckedWriter::create(const fs::path& root, const std::string& name) {
  if (auto good = check_file_name(name); !good) return good.error();
  fs::path path = root / name;
  std::error_code code;
  fs::create_directories(path.parent_path(), code);
  if (code) return file_error("create", path.parent_path(), code.value());
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd < 0) return file_error("create", path, errno);
  return CheckedWriter(fd, std::move(path), name);
}

Status CheckedWriter::write(const void* data, std::size_t size_bytes) {
  const auto* bytes = static_cast<const std::byte*>(data);
  std::size_t done = 0;
  while (done < size_bytes) {
    const ssize_t count = ::write(fd_, bytes + done, size_bytes - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed("write");
    done += static_cast<std::size_t>(count);
  }
  hash_->update(data, size_bytes);
  record_.size += size_bytes;
  return ok_status();
}

Result<FileRecord> CheckedWriter::finish() {
  if (fsync(fd_) != 0) return failed("write");
  if (close(std::exchange(fd_, -1)) != 0) return failed("close");
  record_.sha256 = to_hex(hash_->finish());
  return record_;
}

Result<Blob> read_file(const fs::path& root, const std::string& name, std::uint64_t limit_bytes) {
  auto file = open_beneath(root, name);
  if (!file) return file.error();
  const auto size = regular_size(*file, root / name);
  if (!size) return size.error();
  if (*size > limit_bytes) {
    return Error{ErrorCode::kMalformed, (root / name).string() + " has " + std::to_string(*size) +
                                            " bytes, more than the " + std::to_string(limit_bytes) +
                                            " allowed"};
  }
  return read_all(*file, root / name, *size);
}

Result<Blob> read_checked(const fs::path& root, const FileRecord& record) {
  auto file = open_beneath(root, record.name);
  if (!file) return file.error();
  const fs::path path = root / record.name;
  const auto size = regular_size(*file, path);
  if (!size) return size.error();
  if (*size != record.size) {
    return Error{ErrorCode::kMalformed, path.string() + " has " + std::to_string(*size) +
                                            " bytes, but its manifest says " + std::to_string(record.size)};
  }
  auto bytes = read_all(*file, path, *size);
  if (bytes && to_hex(sha256(bytes->text())) != record.sha256) {
    return Error{ErrorCode::kMalformed, path.string() + " is corrupt: its sha256 is not the manifest's"};
  }
  return bytes;
}

Result<std::uint64_t> file_size_of(const fs::path& root, const std::string& name) {
  auto file = open_beneath(root, name);
  if (!file) return file.error();
  return regular_size(*file, root / name);
}

Status sync_directory(const fs::path& directory) {
  const Fd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok() || fsync(fd.get()) != 0) return file_error("write", directory, errno);
  return ok_status();
}

}  // namespace bulkhead
