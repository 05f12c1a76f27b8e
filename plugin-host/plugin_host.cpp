#include "plugin_host.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <unistd.h>
#include <utility>

#include "protocol/hooks.h"
#include "protocol/local_socket.h"
#include "protocol/log.h"
#include "protocol/ring_channel.h"

namespace bulkhead {
namespace {

constexpr std::string_view kIpc = "ipc://";

constexpr int kExitTold = 0;
constexpr int kExitOwnError = 1;
constexpr int kExitRefused = 2;

Result<std::string> variable(const char* name) {
  if (const char* value = std::getenv(name)) return std::string(value);
  return Error{
      ErrorCode::kUnavailable,
      std::string(name) + " is not set: bulkhead-plugin-host is started by the coordinator, not by hand"};
}

Result<std::int64_t> number(const char* name) {
  const Result<std::string> text = variable(name);
  if (!text) return text.error();
  std::int64_t value = 0;
  const char* end = text->data() + text->size();
  const auto [stopped, error] = std::from_chars(text->data(), end, value);
  if (error == std::errc{} && stopped == end) return value;
  return Error{ErrorCode::kMalformed, std::string(name) + " is \"" + *text + "\", not a number"};
}

}  // namespace

Result<PluginHostOptions> options_from_environment() {
  Result<std::string> endpoint = variable("BULKHEAD_ENDPOINT");
  if (!endpoint) return endpoint.error();
  Result<std::string> secret = variable("BULKHEAD_SECRET");
  if (!secret) return secret.error();
  const Result<std::int64_t> generation = number("BULKHEAD_GENERATION");
  if (!generation) return generation.error();
  const Result<std::int64_t> plugin = number("BULKHEAD_PLUGIN");
  if (!plugin) return plugin.error();
  const Result<std::int64_t> rank = number("BULKHEAD_RANK");
  if (!rank) return rank.error();
  PluginHostOptions options;
  options.endpoint = std::move(*endpoint);
  options.secret = std::move(*secret);
  options.generation = Generation(*generation);
  options.plugin = PluginId(*plugin);
  options.rank = *rank;
  return options;
}

PluginHost::PluginHost(EventLoop& loop, PluginHostOptions options, Connect connect)
    : loop_(loop), options_(std::move(options)), connect_(std::move(connect)), parent_(::getppid()) {
  line_.send = [this](const Message& message) {
    if (data_ && !aborted_) data_->send(message);
  };
  line_.ask = [this](const Ask& question) { return ask(question); };
  line_.allocate = [this](std::size_t bytes) -> std::optional<Slot> {
    if (line_.device >= 0) return gpu_->allocate(bytes);
    Result<Slot> slot = places_ ? arena_.allocate(bytes) : Error{};
    return slot ? std::optional(*std::move(slot)) : std::nullopt;
  };
}

PluginHost::~PluginHost() = default;

void PluginHost::start() {
  CHECK(loop_.in_loop());
  Result<std::unique_ptr<Channel>> control = connect_(options_.endpoint);
  if (!control) return finish(kExitOwnError, control.error().message);
  control_ = std::move(*control);
  control_->start({[this](Message message) { on_control(std::move(message)); },
                   [this](const Error& why) { on_control_closed(why); }});
  greet(*control_, {});
  beat();
}

void PluginHost::greet(Channel& channel, std::vector<std::string> capabilities) {
  Hello hello;
  hello.generation = options_.generation;
  hello.role = "host";
  hello.rank = options_.rank;
  hello.plugin = options_.plugin;
  hello.pid = ::getpid();
  hello.secret = options_.secret;
  hello.capabilities = std::move(capabilities);
  channel.send(hello);
  greeting_timer_ = loop_.call_after(
      options_.greeting, [this] { finish(kExitRefused, "nobody answered this host's hello in time"); });
}

// ----- The coordinator -----

void PluginHost::on_control(Message message) {
  if (exit_status_) return;
  const bool greeted = state_ != State::kGreeting;
  if (greeted && generation_of(message) != coordinator_) {
    ++stale_;
    return;
  }
  // One line for each row of the table in protocol/README.md.
  if (const auto* told = std::get_if<Stop>(&message); told && greeted) return on(*told);
  if (const auto* refused = std::get_if<Refuse>(&message)) return on(*refused);
  if (const auto* welcome = std::get_if<Welcome>(&message); welcome && !greeted) return on(*welcome);
  if (const auto* load = std::get_if<Load>(&message); load && state_ == State::kWaiting) return on(*load);
  const bool loaded = state_ == State::kLoaded || state_ == State::kServing;
  if (const auto* configure = std::get_if<Configure>(&message); configure && state_ == State::kLoaded) {
    return on(*configure);
  }
  if (const auto* attach = std::get_if<Attach>(&message); attach && loaded) return on(*attach);
  unexpected(message, "the coordinator");
}

void PluginHost::on_control_closed(const Error& why) {
  const bool talks_garbage = why.code == ErrorCode::kMalformed || why.code == ErrorCode::kMismatch;
  finish(state_ == State::kEnding ? kExitRefused
         : talks_garbage          ? kExitOwnError
                                  : kExitTold,
         "the coordinator's connection has closed: " + why.message);
}

void PluginHost::on(const Welcome& welcome) {
  coordinator_ = welcome.generation;
  state_ = State::kWaiting;
  greeting_timer_.reset();
}

void PluginHost::on(const Refuse& refuse) {
  finish(kExitRefused, "the coordinator refuses this host: " + refuse.reason);
}

void PluginHost::on(const Load& load) {
  HookRunner::Loading loading = this->load(load);
  if (auto* failed = std::get_if<LoadFailed>(&loading)) {
    spdlog::error("{}", failed->failure.message);
    control_->send(*failed);
    // Not at once: what is queued would be lost with the process.
    state_ = State::kEnding;
    greeting_timer_ =
        loop_.call_after(options_.farewell, [this] { finish(kExitRefused, "the plugin was not loaded"); });
    return;
  }
  runner_ = std::move(std::get<std::unique_ptr<HookRunner>>(loading));
  spin_ = std::chrono::microseconds(load.config.spin_us);
  state_ = State::kLoaded;
  spdlog::info("loaded {} ({}) from {}", runner_->traits().class_name, runner_->traits().language,
               load.config.file);
  control_->send(Loaded{options_.generation, runner_->traits()});
}

HookRunner::Loading PluginHost::load(const Load& load) {
  if (load.config.device == "cuda") {
    auto gpu = DeviceGuest::open(load.facts.device);
    if (!gpu) {
      const std::string sentence = load.config.name + " has device: cuda, but " + gpu.error().message;
      return LoadFailed{options_.generation, "import", "device", {"RuntimeError", sentence, {}}};
    }
    gpu_ = std::move(*gpu);
  }
  return HookRunner::load(load, options_.generation, loop_.clock());
}

void PluginHost::on(const Configure& configure) { control_->send(runner_->configure(configure.config)); }

void PluginHost::on(const Attach& attach) {
  drop_worker();
  welcomed_ = false;
  worker_ = attach.worker_generation;
  state_ = State::kServing;
  mark_.be_beside(attach.endpoint);
  worker_path_ = attach.endpoint.starts_with(kIpc) ? attach.endpoint.substr(kIpc.size()) : "";
  Result<std::unique_ptr<Channel>> data = connect_(attach.endpoint);
  if (!data) return finish(kExitOwnError, data.error().message);
  data_ = std::move(*data);
  listen_to_worker();
  std::vector<std::string> capabilities{std::string(kRing), std::string(kSharedMemory)};
  if (gpu_) capabilities.push_back(gpu_->capability());
  greet(*data_, std::move(capabilities));
}

void PluginHost::on(const Stop& stop) {
  finish(state_ == State::kEnding ? kExitRefused : kExitTold, "told to stop: " + stop.reason);
}

// ----- The worker -----

void PluginHost::on_data(Message message) {
  if (exit_status_) return;
  if (generation_of(message) != worker_) {
    ++stale_;
    return;
  }
  if (const auto* refused = std::get_if<Refuse>(&message)) {
    return finish(kExitRefused, "the worker refuses this host: " + refused->reason);
  }
  if (const auto* welcome = std::get_if<Welcome>(&message); welcome && !welcomed_) {
    welcomed_ = true;
    greeting_timer_.reset();
    return use(std::vector(welcome->capabilities));
  }
  if (const auto* news = std::get_if<MemoryNews>(&message); news && places_) {
    places_->begin();
    places_->gone(news->gone);
    if (Status known = places_->given_back(news->unused); !known) spdlog::error("{}", known.error().message);
    return;
  }
  if (auto* call = std::get_if<Call>(&message); call && welcomed_) {
    calls_.push_back(std::move(*call));
    if (!in_call_ && calls_.size() == 1) run_next_call();
    return;
  }
  if (auto* answer = std::get_if<Answer>(&message); answer && question_ != nullptr) {
    if (answer->seq == question_->seq && answer->number == question_->number) answer_ = std::move(*answer);
    return;
  }
  unexpected(message, "the worker");
}

void PluginHost::on_data_closed(const Error& why) {
  // Not gone: it waits for an answer to what this host cannot read.
  if (why.code == ErrorCode::kMalformed) {
    return finish(kExitOwnError, "what the worker sent cannot be read: " + why.message);
  }
  spdlog::warn("the worker's connection has closed: {}", why.message);
  drop_worker();
  greeting_timer_.reset();
  state_ = State::kLoaded;
}

void PluginHost::listen_to_worker() {
  data_->start({[this](Message message) { on_data(std::move(message)); },
                [this](const Error& why) { on_data_closed(why); }});
}

// What hello and welcome have agreed on.
void PluginHost::use(const std::vector<std::string>& agreed) {
  if (std::ranges::count(agreed, kSharedMemory) > 0) {
    Result<UniqueFd> socket = connect_local(worker_path_ + ".memory");
    if (!socket) return finish(kExitOwnError, socket.error().message);
    places_.emplace(*std::move(socket));
  }
  if (std::ranges::count(agreed, kRing) > 0) {
    Result<std::unique_ptr<Channel>> ring = ring_connect(loop_, worker_path_ + ".ring");
    if (!ring) return finish(kExitOwnError, ring.error().message);
    data_ = std::move(*ring);
    loop_.spin_for(spin_);
    listen_to_worker();
  }
  if (places_) data_->share(&*places_);
}

// Whatever runs for it runs for nobody.
void PluginHost::drop_worker() {
  calls_.clear();
  data_.reset();
  places_.reset();
  if (gpu_) gpu_->forget();
  aborted_ = in_call_;
}

// One call a turn: between two of them the coordinator is heard.  By a timer,
// behind everything posted: what is posted waits while a call asks its rank.
void PluginHost::run_next_call() {
  next_call_timer_ = loop_.call_after(Duration::zero(), [this] {
    if (exit_status_ || calls_.empty()) return;
    Call call = std::move(calls_.front());
    calls_.pop_front();
    run(std::move(call));
    if (!exit_status_ && !calls_.empty()) run_next_call();
  });
}

void PluginHost::run(Call call) {
  in_call_ = true;
  mark_.begin(call.seq);
  const HookInfo* hook = find_hook(call.hook);
  Reply reply;
  if (gpu_ && hook != nullptr && hook->kind == HookKind::kTransform) {
    if (Status works = run_on_device(call, reply); !works)
      return finish(kExitOwnError, works.error().message);
  } else {
    reply = runner_->run(call, line_);
  }
  if (places_) {
    share(arena_, reply.batch);
    const MemoryNews news{options_.generation, {}, places_->take_gone()};
    if (news.any()) line_.send(news);
    places_->take_unused();  // the reply says so
    places_->take_named();
  }
  line_.send(reply);
  in_call_ = aborted_ = false;
}

// An error of the GPU's is left for every later call: this process cannot go on.
Status PluginHost::run_on_device(Call& call, Reply& reply) {
  if (Status begun = gpu_->begin(call); !begun) return begun;
  line_.device = gpu_->ordinal();
  reply = runner_->run(call, line_);
  line_.device = -1;
  return gpu_->end(reply);
}

// The loop runs on meanwhile, so that a stop, the parent's death and another
// worker are seen, and signs of life go out.
std::optional<Answer> PluginHost::ask(const Ask& question) {
  line_.send(question);
  question_ = &question;
  answer_.reset();
  loop_.run_until([this] { return answer_ || aborted_ || exit_status_; });
  question_ = nullptr;
  aborted_ |= exit_status_.has_value();
  return aborted_ ? std::nullopt : std::exchange(answer_, std::nullopt);
}

// ----- Life and end -----

void PluginHost::beat() {
  // The launcher has asked the kernel to end this process with its parent; this
  // is for a parent that went before it could.
  if (::getppid() != parent_) return finish(kExitTold, "the parent process has ended");
  if (state_ != State::kGreeting) control_->send(Heartbeat{options_.generation, 0});
  heartbeat_timer_ = loop_.call_after(options_.heartbeat, [this] { beat(); });
}

void PluginHost::finish(int status, const std::string& why) {
  if (exit_status_) return;
  exit_status_ = status;
  greeting_timer_.reset();
  heartbeat_timer_.reset();
  if (stale_ > 0) spdlog::info("dropped {} messages of earlier generations", stale_);
  spdlog::log(status == kExitTold ? spdlog::level::info : spdlog::level::err, "{}", why);
  loop_.stop();
}

void PluginHost::unexpected(const Message& message, const char* from) {
  spdlog::warn("\"{}\" from {} was not expected now; it is ignored", type_of(message), from);
}

}  // namespace bulkhead
