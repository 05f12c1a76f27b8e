#include "private_directory.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace bulkhead {
namespace {

// sockaddr_un holds 107 bytes; the longest name we put below is about 40.
constexpr std::size_t kLongestParent = 40;

bool is_ours(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode) && facts.st_uid == ::geteuid() &&
         ::access(path.c_str(), W_OK | X_OK) == 0;
}

}  // namespace

Result<PrivateDirectory> PrivateDirectory::make() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && std::strlen(runtime) <= kLongestParent && is_ours(runtime))
    return make_under(runtime);
  return make_under("/tmp");
}

Result<PrivateDirectory> PrivateDirectory::make_under(const std::filesystem::path& parent) {
  std::string name = (parent / "bulkhead-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {  // makes it with mode 0700
    return Error{ErrorCode::kUnavailable,
                 "cannot make a private directory under " + parent.string() + ": " + std::strerror(errno)};
  }
  return PrivateDirectory(std::move(name));
}

PrivateDirectory::PrivateDirectory(PrivateDirectory&& other) noexcept
    : path_(std::exchange(other.path_, {})) {}

PrivateDirectory::~PrivateDirectory() {
  if (path_.empty()) return;
  std::error_code ignored;  // a left-over socket file is worth no more than that
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace bulkhead
