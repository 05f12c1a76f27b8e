#include "run_place.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "checkpoint_list.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

Result<RunPlace> new_place(const RunOptions& options, const std::string& name,
                           std::optional<fs::path> resume) {
  auto directory = RunDirectory::create(options.run_dir, name);
  if (!directory) return directory.error();
  return RunPlace{std::move(*directory), true, std::move(resume)};
}

Result<RunPlace> same_place(const fs::path& run) {
  auto directory = RunDirectory::open(run);
  if (!directory) return directory.error();
  auto resume = newest_checkpoint(directory->checkpoints());
  return RunPlace{std::move(*directory), false, std::move(resume)};
}

}  // namespace

Result<RunPlace> find_place(const RunOptions& options, const std::string& name) {
  if (options.resume == ResumeFrom::kPath) {
    // A run goes on in its directory; a checkpoint may be the beginning of many.
    if (fs::exists(options.resume_path / "MANIFEST.json"))
      return new_place(options, name, options.resume_path);
    if (fs::exists(options.resume_path / "run.yaml")) return same_place(options.resume_path);
    return Error{ErrorCode::kMismatch, "--resume: " + options.resume_path.string() +
                                           " is neither a checkpoint (MANIFEST.json) nor a run (run.yaml)"};
  }
  if (options.resume == ResumeFrom::kNewestUnfinished) {
    auto unfinished = find_unfinished(options.run_dir, name);
    if (!unfinished) return unfinished.error();
    if (*unfinished) return same_place(**unfinished);
  }
  return new_place(options, name, std::nullopt);
}

Status check_port_free(const std::string& address, int port) {
  if (port == 0) return ok_status();
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &wanted, &found);
  if (code != 0) {
    return Error{ErrorCode::kUnavailable, "--master-addr: " + address + ": " + ::gai_strerror(code)};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  const int socket = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;  // connections of an earlier run that are closing do no harm
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const bool bound = ::bind(socket, found->ai_addr, found->ai_addrlen) == 0;
  const int reason = errno;
  ::close(socket);
  if (bound) return ok_status();
  return Error{ErrorCode::kUnavailable, "--master-port: " + std::to_string(port) + " at " + address +
                                            " cannot be used: " + std::strerror(reason) +
                                            "; leave it out to take any free port"};
}

}  // namespace bulkhead
