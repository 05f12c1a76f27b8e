#include "protocol/cpus.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iterator>
#include <sched.h>
#include <string>

namespace bulkhead {
namespace {

cpu_set_t set_of(const Cpus& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(static_cast<std::size_t>(cpu), &set);
  return set;
}

// Where the number ends; nullptr where there is none.
const char* read_cpu(const char* from, const char* end, int& cpu) {
  const auto [stopped, error] = std::from_chars(from, end, cpu);
  return error == std::errc{} && cpu >= 0 && cpu < CPU_SETSIZE ? stopped : nullptr;
}

}  // namespace

Cpus allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  Cpus cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

Result<Cpus> cpus_named(std::string_view list) {
  const Error malformed{ErrorCode::kMalformed,
                        "\"" + std::string(list) + "\" is no list of CPUs like \"0-3,8\""};
  Cpus cpus;
  const char* at = list.data();
  const char* const end = at + list.size();
  for (;;) {
    int first = 0;
    at = read_cpu(at, end, first);
    int last = first;
    if (at != nullptr && at != end && *at == '-') at = read_cpu(at + 1, end, last);
    if (at == nullptr || last < first) return malformed;
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (at == end) break;
    if (*at++ != ',') return malformed;
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

Cpus without(const Cpus& all, const Cpus& taken) {
  Cpus rest;
  std::ranges::copy_if(all, std::back_inserter(rest),
                       [&](int cpu) { return std::ranges::find(taken, cpu) == taken.end(); });
  return rest;
}

void keep_thread_to(const Cpus& cpus) {
  const cpu_set_t set = set_of(cpus);
  ::sched_setaffinity(0, sizeof set, &set);
}

void keep_process_to(pid_t process, const Cpus& cpus) {
  const cpu_set_t set = set_of(cpus);
  std::error_code error;
  const std::filesystem::path threads = "/proc/" + std::to_string(process) + "/task";
  for (std::filesystem::directory_iterator it(threads, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename();
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    if (thread > 0) ::sched_setaffinity(thread, sizeof set, &set);
  }
}

}  // namespace bulkhead
