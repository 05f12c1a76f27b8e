#include "run_directory.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <random>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

Error system_error(const std::string& what, const fs::path& path) {
  return Error{ErrorCode::kUnavailable, what + " " + path.string() + ": " + std::strerror(errno)};
}

// 20260131T235959.123Z-3fa9: sorts by age.
std::string new_id() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  ::gmtime_r(&now.tv_sec, &utc);
  char second[32];
  ::strftime(second, sizeof(second), "%Y%m%dT%H%M%S", &utc);
  std::random_device random;
  char id[64];
  std::snprintf(id, sizeof(id), "%s.%03ldZ-%04x", second, now.tv_nsec / 1'000'000, random() & 0xffffU);
  return id;
}

bool is_id(std::string_view text) {
  constexpr std::string_view kForm = "00000000T000000.000Z-xxxx";
  if (text.size() != kForm.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    const bool fits = kForm[i] == '0'   ? digit
                      : kForm[i] == 'x' ? digit || (text[i] >= 'a' && text[i] <= 'f')
                                        : text[i] == kForm[i];
    if (!fits) return false;
  }
  return true;
}

Error held(const fs::path& run, int lock) {
  char pid[32] = {};
  const ssize_t size = ::pread(lock, pid, sizeof(pid) - 1, 0);
  const std::string by = size > 0 ? " by process " + std::string(pid, std::strcspn(pid, "\n")) : "";
  return Error{ErrorCode::kUnavailable,
               "the run " + run.string() + " is being trained" + by + "; wait until it ends, or stop it"};
}

// The lock file, locked; closing it frees the lock.
Result<int> take_lock(const fs::path& run) {
  const fs::path path = run / "lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return system_error("cannot open", path);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  const Error refused = errno == EWOULDBLOCK ? held(run, fd) : system_error("cannot lock", path);
  ::close(fd);
  return refused;
}

Status note_owner(int lock, const fs::path& run) {
  const std::string pid = std::to_string(::getpid()) + "\n";
  const bool written = ::ftruncate(lock, 0) == 0 && ::pwrite(lock, pid.data(), pid.size(), 0) > 0;
  return written ? ok_status() : Status(system_error("cannot write", run / "lock"));
}

// An ended run says so in its summary.
bool is_finished(const fs::path& run) {
  const auto text = read_file(run / "summary.json");
  if (!text) return false;
  const Json summary = Json::parse(*text, nullptr, false);
  if (!summary.is_object() || !summary.contains("status")) return false;
  return summary["status"] == "completed" || summary["status"] == "stopped";
}

}  // namespace

Result<RunDirectory> RunDirectory::create(const fs::path& parent, const std::string& name) {
  std::error_code error;
  fs::create_directories(parent, error);
  if (error) return Error{ErrorCode::kUnavailable, "cannot make " + parent.string() + ": " + error.message()};
  while (true) {
    const fs::path path = fs::absolute(parent).lexically_normal() / (name + "-" + new_id());
    if (::mkdir(path.c_str(), 0755) == 0) return open(path);
    if (errno != EEXIST) return system_error("cannot make", path);
  }
}

Result<RunDirectory> RunDirectory::open(const fs::path& path) {
  auto lock = take_lock(path);
  if (!lock) return lock.error();
  // From here on the lock is the object's; the logs follow when all is made.
  const auto fail = [&](const Error& error) {
    ::close(*lock);
    return error;
  };
  if (auto noted = note_owner(*lock, path); !noted) return fail(noted.error());
  for (const char* folder : {"logs", "checkpoints", "dead_letters"}) {
    if (::mkdir((path / folder).c_str(), 0755) != 0 && errno != EEXIST) {
      return fail(system_error("cannot make", path / folder));
    }
  }
  auto metrics = LineLog::open(path / "metrics.jsonl");
  if (!metrics) return fail(metrics.error());
  auto events = LineLog::open(path / "events.jsonl");
  if (!events) return fail(events.error());
  return RunDirectory(path, *lock, std::move(*metrics), std::move(*events));
}

RunDirectory::RunDirectory(RunDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      lock_(std::exchange(other.lock_, -1)),
      metrics_(std::move(other.metrics_)),
      events_(std::move(other.events_)) {}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);
}

Status RunDirectory::write_run_yaml(const std::string& text) {
  return replace_file(path_ / "run.yaml", text);
}

Status RunDirectory::write_summary(const Summary& summary) {
  const std::string text = to_json(summary).dump(2, ' ', false, Json::error_handler_t::replace);
  return replace_file(path_ / "summary.json", text + "\n");
}

Status RunDirectory::append_metrics(const Value& metrics) {
  return metrics_.append(one_line(in_metrics_order(metrics)));
}

Status RunDirectory::append_event(const Value& event) {
  return events_.append(one_line(in_event_order(event)));
}

Status RunDirectory::cut_back(std::int64_t step) {
  std::error_code error;
  fs::remove(path_ / "summary.json", error);
  if (error) return Error{ErrorCode::kUnavailable, "cannot remove the old summary: " + error.message()};
  return metrics_.filter([step](std::string_view line) {
    const Json metrics = Json::parse(line, nullptr, false);
    return metrics.is_object() && metrics.contains("step") && metrics["step"].is_number() &&
           metrics["step"] <= step;
  });
}

Result<std::optional<fs::path>> find_unfinished(const fs::path& parent, const std::string& name) {
  std::vector<std::string> ids;
  std::error_code error;
  for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error)) {
    const std::string folder = it->path().filename().string();
    if (!folder.starts_with(name + "-") || !is_id(std::string_view(folder).substr(name.size() + 1))) continue;
    if (fs::exists(it->path() / "run.yaml")) ids.push_back(folder.substr(name.size() + 1));
  }
  std::sort(ids.begin(), ids.end(), std::greater<>());
  for (const std::string& id : ids) {
    const fs::path run = fs::absolute(parent).lexically_normal() / (name + "-" + id);
    if (is_finished(run)) continue;
    const auto lock = take_lock(run);
    if (!lock) return lock.error();
    ::close(*lock);
    return std::optional(run);
  }
  return std::optional<fs::path>();
}

}  // namespace bulkhead
