#include "run_session.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <sys/signalfd.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include <spdlog/sinks/basic_file_sink.h>

#include "checkpoint_list.h"
#include "child_process.h"
#include "protocol/log.h"
#include "protocol/sha256.h"
#include "run_changes.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr Duration kRefreshInterval = 200ms;

// 256 bits that other users cannot guess.
Result<std::string> make_secret() {
  std::array<char, 32> bytes{};
  if (::getentropy(bytes.data(), bytes.size()) != 0) {
    return Error{ErrorCode::kUnavailable, std::string("no random numbers: ") + std::strerror(errno)};
  }
  return to_hex(sha256(std::string_view(bytes.data(), bytes.size())));
}

// A full disk must not end a run: the line is lost, the log says so.
void warn_if_failed(const Status& status) {
  if (!status) spdlog::warn("{}", status.error().message);
}

// The terminal belongs to the progress display.
Status log_to(const fs::path& path) {
  try {
    auto logger = std::make_shared<spdlog::logger>(
        "coordinator", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string()));
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l [%n] %v");
    const char* level = std::getenv("BULKHEAD_LOG");
    logger->set_level(level != nullptr ? spdlog::level::from_str(level) : spdlog::level::info);
    logger->flush_on(spdlog::level::info);
    spdlog::set_default_logger(std::move(logger));
    return ok_status();
  } catch (const spdlog::spdlog_ex& error) {
    return Error{ErrorCode::kUnavailable, error.what()};
  }
}

fs::path logs_of(const RunOptions& options, const RunDirectory& directory) {
  return options.log_dir ? fs::absolute(*options.log_dir) : directory.logs();
}

std::int64_t step_of(const std::optional<fs::path>& checkpoint) {
  return checkpoint ? step_of_checkpoint(*checkpoint).value_or(0) : 0;
}

}  // namespace

struct RunSession::Parts {
  RunOptions options;
  RunFile file;
  RunFileContext context;
  ProgramPaths paths;
  int signals;
  std::string secret;
  RunPlace place;
  PrivateDirectory sockets;
  ChildProcessGuard guard;
};

Result<std::unique_ptr<RunSession>> RunSession::open(RunOptions options, RunFile file, RunFileContext context,
                                                     ProgramPaths paths, int signals) {
  if (auto free = check_port_free(options.master_addr, options.master_port); !free) return free.error();
  auto secret = make_secret();
  if (!secret) return secret.error();
  auto place = find_place(options, file.config.name);
  if (!place) return place.error();
  std::error_code error;
  fs::create_directories(logs_of(options, place->directory), error);
  if (auto logging = log_to(logs_of(options, place->directory) / "coordinator.log"); !logging)
    return logging.error();
  auto sockets = PrivateDirectory::make();
  if (!sockets) return sockets.error();
  auto guard = ChildProcessGuard::start(paths.shim, sockets->path());
  if (!guard) return guard.error();
  std::unique_ptr<RunSession> session(
      new RunSession({std::move(options), std::move(file), std::move(context), std::move(paths), signals,
                      std::move(*secret), std::move(*place), std::move(*sockets), std::move(*guard)}));
  RunSession& self = *session;
  auto listener = listen_channel(
      self.loop_, self.sockets_.endpoint("control"), {},
      [&self](std::unique_ptr<Channel> channel) { self.coordinator_->accept(std::move(channel)); });
  if (!listener) return listener.error();
  self.listener_ = std::move(*listener);
  self.processes_ = std::make_unique<ProcessTable>(
      self.loop_, self.launch_plan(), self.guard_,
      [&self](const ProcessKey& key, const ProcessEnd& end) { self.coordinator_->process_ended(key, end); });
  return session;
}

RunSession::RunSession(Parts parts)
    : options_(std::move(parts.options)),
      file_(std::move(parts.file)),
      context_(std::move(parts.context)),
      paths_(std::move(parts.paths)),
      signals_(parts.signals),
      secret_(std::move(parts.secret)),
      place_(std::move(parts.place)),
      sockets_(std::move(parts.sockets)),
      guard_(std::move(parts.guard)),
      console_(STDOUT_FILENO, file_.config, step_of(place_.resume)) {
  CoordinatorOptions coordinator;
  coordinator.config = config_here();
  coordinator.ranks = options_.ranks;
  coordinator.max_restarts = options_.max_restarts;
  coordinator.grace = options_.grace;
  coordinator.secret = secret_;
  coordinator.run_dir = fs::absolute(place_.directory.path()).string();
  coordinator.resume = place_.resume ? fs::absolute(*place_.resume).string() : "";
  coordinator.resumed_from = step_of(place_.resume);
  coordinator_ = std::make_unique<Coordinator>(loop_, std::move(coordinator), hooks());
}

// The run file's, but for what this machine has no room for.
RunConfig RunSession::config_here() const {
  RunConfig config = file_.config;
  if (has_cores_to_spare(launch_plan())) return config;
  for (PluginConfig& plugin : config.plugins) {
    if (std::exchange(plugin.spin_us, 0) == 0) continue;
    spdlog::warn(
        "plugins.{}.spin is not obeyed: compute threads and plugin processes do not have a CPU each here",
        plugin.name);
  }
  return config;
}

LaunchPlan RunSession::launch_plan() const {
  return {.paths = paths_,
          .plugins = file_.config.plugins,
          .ranks = options_.ranks,
          .cores = static_cast<int>(std::max<std::size_t>(1, allowed_cpus().size())),
          .logs = logs_of(options_, place_.directory),
          .run_folder = fs::absolute(options_.run_file).parent_path(),
          .endpoint = listener_ ? listener_->endpoint() : "",
          .secret = secret_,
          .master_addr = options_.master_addr,
          .master_port = options_.master_port,
          .environment = our_environment()};
}

CoordinatorHooks RunSession::hooks() {
  CoordinatorHooks hooks;
  hooks.launch = [this](const ProcessKey& key) { return processes_->launch(key); };
  hooks.end_now = [this](const ProcessKey& key) { processes_->end_now(key); };
  hooks.keep_hosts_to = [this](const Cpus& cpus) { processes_->keep_hosts_to(cpus); };
  hooks.log_tail = [this](const ProcessKey& key) { return processes_->log_tail(key); };
  hooks.endpoint = [this](const std::string& name) { return sockets_.endpoint(name); };
  hooks.place_of = [this](const std::string& key) { return file_.place_of(key); };
  hooks.run_map = [this] { return run_map(file_); };
  hooks.reconfigure = [this](PluginId plugin, const Value& changes) { return reconfigure(plugin, changes); };
  hooks.newest_checkpoint = [this]() -> std::optional<std::string> {
    const auto newest = newest_checkpoint(place_.directory.checkpoints());
    return newest ? std::optional(fs::absolute(*newest).string()) : std::nullopt;
  };
  hooks.cut_back = [this](const std::string& checkpoint) { cut_back(checkpoint); };
  hooks.event = [this](const Event& event) {
    warn_if_failed(place_.directory.append_event(event.to_value()));
    console_.event(event);
  };
  hooks.metrics = [this](const Value& line) {
    warn_if_failed(place_.directory.append_metrics(line));
    console_.metrics(line, loop_.now());
  };
  hooks.ended = [this] { loop_.stop(); };
  return hooks;
}

void RunSession::cut_back(const std::string& checkpoint) {
  warn_if_failed(place_.directory.cut_back(checkpoint.empty() ? 0 : step_of(fs::path(checkpoint))));
}

// run.yaml and the display follow; a refusal leaves everything as it was.
Result<RunConfig> RunSession::reconfigure(PluginId plugin, const Value& changes) {
  auto file = configure_run_file(file_, static_cast<std::size_t>(plugin.value), changes, context_);
  if (!file) return file.error();
  file_ = std::move(*file);
  if (place_.fresh) warn_if_failed(place_.directory.write_run_yaml(file_.resolved_yaml));
  console_.configure(file_.config);
  return config_here();
}

int RunSession::run() {
  if (place_.fresh) {
    if (auto written = place_.directory.write_run_yaml(file_.resolved_yaml); !written) {
      warn_if_failed(written);
    }
  } else {
    cut_back(place_.resume ? place_.resume->string() : "");
  }
  signal_watch_ = loop_.watch_readable(signals_, [this] { signalled(); });
  refresh();
  coordinator_->start();
  loop_.run();
  const RunOutcome& outcome = coordinator_->outcome();
  if (outcome.status == "refused") {
    close_refused();
    return outcome.exit_code;
  }
  const Summary summary = coordinator_->summary();
  warn_if_failed(place_.directory.write_summary(summary));
  const Value result = coordinator_->result();
  const bool has_sample = result.is_object() && result.contains("sample") && result["sample"].is_string();
  console_.finish(summary, place_.directory.path(), has_sample ? result["sample"].get<std::string>() : "");
  return outcome.exit_code;
}

void RunSession::signalled() {
  signalfd_siginfo info{};
  if (::read(signals_, &info, sizeof info) != sizeof info) return;
  coordinator_->request_stop(signal_name(static_cast<int>(info.ssi_signo)));
}

void RunSession::refresh() {
  console_.refresh(coordinator_->phase_name(), coordinator_->plugin_progress(), loop_.now());
  refresh_timer_ = loop_.call_after(kRefreshInterval, [this] { refresh(); });
}

// A refused run leaves its logs and nothing that looks like a run.
void RunSession::close_refused() {
  if (!place_.fresh) return;
  const fs::path& path = place_.directory.path();
  std::error_code ignored;
  for (const char* file : {"run.yaml", "metrics.jsonl", "lock", "rows.safetensors"})
    fs::remove(path / file, ignored);
  fs::rename(path / "events.jsonl", path / "logs" / "events.jsonl", ignored);
  // Removes empty directories only.
  for (const fs::path& folder : {place_.directory.checkpoints(), place_.directory.dead_letters()}) {
    fs::remove(folder, ignored);
  }
}

}  // namespace bulkhead
