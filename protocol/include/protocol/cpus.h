// Which CPUs threads may run on.  Any thread.
#pragma once

#include <string_view>
#include <sys/types.h>
#include <vector>

#include "protocol/result.h"

namespace bulkhead {

// Numbers of CPUs, ascending.
using Cpus = std::vector<int>;

// Those that this thread may use.
Cpus allowed_cpus();

// "0-3,8" as people write them; malformed where it is no such list, empty or
// names a CPU that a process of ours cannot have.
Result<Cpus> cpus_named(std::string_view list);

Cpus without(const Cpus& all, const Cpus& taken);

// From now on this thread, or every thread that the process has, runs there
// alone.  Threads that it starts later follow the one that starts them.  What
// has ended, or is not ours to move, is left alone.
void keep_thread_to(const Cpus& cpus);
void keep_process_to(pid_t process, const Cpus& cpus);

}  // namespace bulkhead
