// bulkhead-shim: what runs between posix_spawn and the program.
//
//   bulkhead-shim exec PARENT OOM MEMORY FILES CPUS PROGRAM [ARGUMENT …]
//     ties this process to its parent's life, sets limits, closes what it
//     inherited and executes PROGRAM (limits: 0 = leave as it is);
//   bulkhead-shim guard DIRECTORY
//     reads "+GROUP" and "-GROUP" lines; when the input ends, which kill -9 of
//     the coordinator does too, kills the groups it still knows and removes
//     DIRECTORY.
//
// A process of its own because a child of a process with threads may not do
// these things between fork and exec.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sched.h>
#include <set>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace {

constexpr int kCannotExecute = 127;  // as a shell says it

// Sockets, logs and pidfds of the coordinator are no business of a child.
void close_inherited() {
  if (::close_range(3, ~0U, 0) == 0) return;
  const long most = ::sysconf(_SC_OPEN_MAX);
  for (int fd = 3; fd < most; ++fd) ::close(fd);
}

bool write_score(int score) {
  char text[16];
  const int size = std::snprintf(text, sizeof text, "%d", score);
  const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool written = ::write(fd, text, static_cast<std::size_t>(size)) == size;
  ::close(fd);
  return written;
}

// Lowering it needs a privilege that most people do not have; raising does not.
void set_oom_score(int score) {
  if (score != 0 && !write_score(score)) write_score(0);
}

void limit(int resource, long long value) {
  if (value <= 0) return;
  rlimit wanted{};
  wanted.rlim_cur = wanted.rlim_max = static_cast<rlim_t>(value);
  if (::setrlimit(static_cast<__rlimit_resource_t>(resource), &wanted) != 0) {
    std::fprintf(stderr, "bulkhead-shim: cannot set a limit of %lld: %s\n", value, std::strerror(errno));
  }
}

// `count` of the cores we may use, beginning at one that depends on the pid, so
// that limited plugins do not crowd on the first.
void limit_cores(int count) {
  cpu_set_t allowed;
  if (count <= 0 || ::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  const int total = CPU_COUNT(&allowed);
  if (count >= total) return;
  cpu_set_t chosen;
  CPU_ZERO(&chosen);
  const int first = static_cast<int>(::getpid()) % total;
  int place = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed)) continue;
    if ((place++ - first + total) % total < count) CPU_SET(core, &chosen);
  }
  ::sched_setaffinity(0, sizeof chosen, &chosen);
}

int execute(char** arguments) {
  const pid_t parent = static_cast<pid_t>(std::atol(arguments[0]));
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) return kCannotExecute;  // it died before the line above
  close_inherited();
  set_oom_score(std::atoi(arguments[1]));
  limit(RLIMIT_NOFILE, std::atoll(arguments[3]));
  limit_cores(std::atoi(arguments[4]));
  limit(RLIMIT_AS, std::atoll(arguments[2]));  // last: the lines above may allocate
  char** command = arguments + 5;
  ::execv(command[0], command);
  std::fprintf(stderr, "bulkhead-shim: cannot execute %s: %s\n", command[0], std::strerror(errno));
  return kCannotExecute;
}

int guard(const char* directory) {
  ::prctl(PR_SET_NAME, "bulkhead-guard");
  close_inherited();
  for (const int ignored : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(ignored, SIG_IGN);
  std::set<pid_t> groups;
  for (char line[32]; std::fgets(line, sizeof line, stdin) != nullptr;) {
    const pid_t group = static_cast<pid_t>(std::atol(line + 1));
    if (group <= 1) continue;
    line[0] == '+' ? void(groups.insert(group)) : void(groups.erase(group));
  }
  for (const pid_t group : groups) ::kill(-group, SIGKILL);
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count >= 8 && std::strcmp(arguments[1], "exec") == 0) return execute(arguments + 2);
  if (count == 3 && std::strcmp(arguments[1], "guard") == 0) return guard(arguments[2]);
  std::fprintf(stderr, "bulkhead-shim is started by the coordinator only\n");
  return 2;
}
