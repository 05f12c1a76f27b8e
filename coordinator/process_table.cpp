#include "process_table.h"

#include <fstream>
#include <poll.h>
#include <utility>

#include "protocol/log.h"

namespace bulkhead {
namespace {

constexpr std::size_t kTailBytes = 2000;
constexpr std::size_t kTailLines = 3;
constexpr std::chrono::seconds kSweepInterval{1};

}  // namespace

ProcessTable::ProcessTable(EventLoop& loop, LaunchPlan plan, ChildProcessGuard& guard,
                           std::function<void(const ProcessKey&, const ProcessEnd&)> on_end)
    : loop_(loop), plan_(std::move(plan)), guard_(guard), on_end_(std::move(on_end)) {
  sweep();
}

ProcessTable::~ProcessTable() {
  zygotes_.clear();
  children_.clear();
  // Killed strays need a moment; they are ours only as long as we live.
  for (int tries = 0; tries < 100 && end_strays_now() > 0; ++tries) ::poll(nullptr, 0, 10);
}

Result<std::int64_t> ProcessTable::launch(const ProcessKey& key) {
  Zygote* zygote = key.role == Role::kHost ? zygote_of(key.plugin) : nullptr;
  if (zygote == nullptr) return start(key);
  unborn_.emplace(key, false);
  zygote->fork(child_options(plan_, key), [this, key](const Result<pid_t>& pid) { born(key, pid); });
  return 0;
}

// Null for what has none, or none any more.
Zygote* ProcessTable::zygote_of(PluginId plugin) {
  if (plan_.plugins.at(static_cast<std::size_t>(plugin.value)).language != "python") return nullptr;
  auto found = zygotes_.find(plugin);
  if (found == zygotes_.end()) {
    auto started = Zygote::start(loop_, zygote_options(plan_, plugin));
    if (!started) spdlog::warn("{}", started.error().message);
    found = zygotes_.emplace(plugin, started ? std::move(*started) : nullptr).first;
    if (found->second) guard_.add(found->second->pid());
  }
  Zygote* zygote = found->second.get();
  return zygote == nullptr || zygote->is_gone() ? nullptr : zygote;
}

void ProcessTable::born(const ProcessKey& key, const Result<pid_t>& pid) {
  const bool unwanted = unborn_.extract(key).mapped();
  if (pid) {
    auto child = ChildProcess::adopt(loop_, *pid, [this, key](const ProcessEnd& end) { ended(key, end); });
    if (child) {
      keep(key, std::move(*child));
      if (unwanted) end_now(key);
      return;
    }
  } else if (!unwanted) {
    spdlog::info("{} is started without its zygote: {}", process_name(plan_, key), pid.error().message);
    if (start(key)) return;
  }
  on_end_(key, {.exit_code = 127, .signal = {}});
}

Result<std::int64_t> ProcessTable::start(const ProcessKey& key) {
  auto child = ChildProcess::spawn(loop_, child_options(plan_, key),
                                   [this, key](const ProcessEnd& end) { ended(key, end); });
  if (!child) return child.error();
  return keep(key, std::move(*child));
}

std::int64_t ProcessTable::keep(const ProcessKey& key, ChildProcess child) {
  spdlog::info("{} generation {}: started, pid {}", process_name(plan_, key), key.generation.value,
               child.pid());
  guard_.add(child.pid());
  place(key, child);
  return children_.emplace(key, std::move(child)).first->second.pid();
}

void ProcessTable::ended(const ProcessKey& key, const ProcessEnd& end) {
  const auto child = children_.find(key);
  guard_.remove(child->second.pid());
  children_.erase(child);
  end_strays_now();
  on_end_(key, end);
}

void ProcessTable::end_now(const ProcessKey& key) {
  if (const auto child = children_.find(key); child != children_.end()) child->second.kill_group();
  if (const auto child = unborn_.find(key); child != unborn_.end()) child->second = true;
}

void ProcessTable::keep_hosts_to(const Cpus& cpus) {
  host_cpus_ = cpus;
  for (const auto& [key, child] : children_) place(key, child);
}

void ProcessTable::place(const ProcessKey& key, const ChildProcess& child) const {
  if (key.role != Role::kHost) return;
  const PluginConfig& plugin = plan_.plugins.at(static_cast<std::size_t>(key.plugin.value));
  if (plugin.affinity == "none" || (plugin.affinity == "auto" && plugin.limits.cpu > 0)) return;
  const Result<Cpus> named = cpus_named(plugin.affinity);
  const Cpus& cpus = named ? *named : host_cpus_;
  if (!cpus.empty()) keep_process_to(child.pid(), cpus);
}

int ProcessTable::end_strays_now() const {
  std::vector<pid_t> known{guard_.pid()};
  for (const auto& [plugin, zygote] : zygotes_) {
    if (zygote == nullptr) continue;
    if (zygote->is_busy()) return 0;  // what it has forked looks like one
    known.push_back(zygote->pid());
  }
  for (const auto& [key, child] : children_) known.push_back(child.pid());
  return end_strays(known);
}

void ProcessTable::sweep() {
  end_strays_now();
  sweep_timer_ = loop_.call_after(kSweepInterval, [this] { sweep(); });
}

std::string ProcessTable::log_tail(const ProcessKey& key) const {
  std::ifstream log(log_path(plan_, key), std::ios::binary | std::ios::ate);
  if (!log) return {};
  const auto size = static_cast<std::size_t>(log.tellg());
  const std::size_t length = std::min(size, kTailBytes);
  std::string text(length, '\0');
  log.seekg(static_cast<std::streamoff>(size - length));
  log.read(text.data(), static_cast<std::streamsize>(length));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::size_t begin = text.size();
  for (std::size_t lines = 0; lines < kTailLines && begin != std::string::npos && begin > 0; ++lines) {
    begin = text.rfind('\n', begin - 1);
  }
  std::string tail = begin == std::string::npos ? text : text.substr(std::min(begin + 1, text.size()));
  for (char& character : tail) {
    if (character == '\n') character = ' ';
  }
  return tail;
}

}  // namespace bulkhead
