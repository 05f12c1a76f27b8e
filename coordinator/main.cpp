// bulkhead: the launcher and coordinator of a run.  DESIGN §5 has the exit
// statuses; every refusal is one sentence on standard error.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sched.h>
#include <string>
#include <sys/signalfd.h>
#include <unistd.h>
#include <vector>

#include "child_process.h"
#include "command_line.h"
#include "plugin_tools.h"
#include "program_paths.h"
#include "run_file.h"
#include "run_session.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr int kRefused = 2;

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "bulkhead: %s\n", sentence.c_str());
  return kRefused;
}

int count_gpus() {
  int count = 0;
  while (fs::exists("/dev/nvidia" + std::to_string(count))) ++count;
  return count;
}

// Those this process may use, not those of the machine.
int count_cores() {
  cpu_set_t allowed;
  return ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

// Delivered through a descriptor from here on, in every thread started later.
int take_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t stops;
  sigemptyset(&stops);
  for (const int stop : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&stops, stop);
  ::sigprocmask(SIG_BLOCK, &stops, nullptr);
  return ::signalfd(-1, &stops, SFD_CLOEXEC | SFD_NONBLOCK);
}

RunFileContext context_of(const ProgramPaths& paths, int gpus) {
  const char* trust = std::getenv("BULKHEAD_TRUST_REMOTE_CODE");
  RunFileContext context;
  context.plugins = {paths.source_plugins, paths.build_plugins, trust == nullptr ? "" : trust};
  context.python = paths.python;
  context.current_directory = fs::current_path();
  context.has_cuda = BULKHEAD_WORKER_HAS_CUDA && gpus > 0;
  return context;
}

int run(const RunOptions& options, const ProgramPaths& paths, int gpus, int signals) {
  const RunFileContext context = context_of(paths, gpus);
  auto file = read_run_file(options.run_file, options.overrides, context);
  if (!file) return refuse(file.error().message);
  become_subreaper();
  auto session = RunSession::open(options, std::move(*file), context, paths, signals);
  if (!session) return refuse(session.error().message);
  const int status = (*session)->run();
  return status == kRefused ? refuse((*session)->outcome().reason) : status;
}

// The program takes this one's place: its output and exit status are its own.
int become(const Result<ToolProgram>& tool) {
  if (!tool) return refuse(tool.error().message);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGPIPE, SIG_DFL);
  become_program(tool->argv, tool->environment);
  return refuse(tool->argv.front() + " cannot be started: " + std::strerror(errno));
}

int main_of(const std::vector<std::string>& arguments) {
  const int signals = take_signals();
  const int gpus = count_gpus();
  auto line = parse_command_line(arguments,
                                 {gpus, count_cores(), [](const char* name) { return std::getenv(name); }});
  if (!line) return refuse(line.error().message);
  if (line->action == CommandLine::Action::kPrint) {
    std::printf("%s\n", line->text.c_str());
    return 0;
  }
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (line->action == CommandLine::Action::kListPlugins) {
    std::printf("%s", describe(shipped_plugins(program_paths(self))).c_str());
    return 0;
  }
  if (line->action == CommandLine::Action::kPluginTool) {
    return become(plugin_tool(program_paths(self), line->tool, line->tool_arguments, our_environment()));
  }
  const auto paths = find_programs(self);
  if (!paths) return refuse(paths.error().message);
  return run(line->run, *paths, gpus, signals);
}

}  // namespace
}  // namespace bulkhead

int main(int count, char** arguments) { return bulkhead::main_of({arguments + 1, arguments + count}); }
