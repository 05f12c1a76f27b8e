#include "worker.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <sys/signalfd.h>
#include <unistd.h>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/nn/module.h>

#include "checkpoint.h"
#include "communicator.h"
#include "protocol/log.h"
#include "run_checkpoint.h"
#include "torch_error.h"
#include "training_loop.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

constexpr auto kHeartbeat = 1s;
constexpr auto kGreetingPatience = 30s;
constexpr auto kStorePatience = 60s;
constexpr auto kPartingPatience = 5s;
constexpr auto kDeathPatience = 10s;  // a lost peer means that the coordinator ends this rank too

WorkerDone refused(Error error, std::string key = {}) {
  WorkerDone done;
  done.status = "refused";
  done.reason = std::move(error.message);
  done.key = std::move(key);
  return done;
}

WorkerDone failed(const Error& error) {
  WorkerDone done;
  done.status = "failed";
  done.reason = error.message;
  return done;
}

// What a plugin sees as the weights: it stays as it is while training goes on.
Batch copy_of(const std::vector<NamedTensor>& parameters) {
  TensorBatch copies;
  for (const NamedTensor& parameter : parameters) {
    copies.push_back({parameter.name, parameter.value.detach().to(at::kCPU, /*non_blocking=*/false,
                                                                  /*copy=*/true)});
  }
  return to_wire(copies);
}

// The data must fill one step of all ranks.
Status check_size(const RunConfig& config, const Facts& facts, const Dataset& dataset) {
  const std::int64_t needed = config.data.batch_size * facts.world_size * config.train.accumulate;
  if (dataset.train_size() >= needed) return ok_status();
  return Error{ErrorCode::kMismatch,
               "data.batch_size: one step needs " + std::to_string(needed) + " samples (" +
                   std::to_string(config.data.batch_size) + " × " + std::to_string(facts.world_size) +
                   " ranks × " + std::to_string(config.train.accumulate) + " micro-batches), the data has " +
                   std::to_string(dataset.train_size())};
}

}  // namespace

Worker::Worker(Identity identity) : identity_(std::move(identity)) {}

Worker::~Worker() {
  if (thread_.joinable()) thread_.join();
}

int Worker::run() {
  Result<std::unique_ptr<Channel>> channel = connect_channel(loop_, identity_.endpoint);
  if (!channel) {
    spdlog::error("{}", channel.error().message);
    return 1;
  }
  coordinator_ = std::move(*channel);
  coordinator_->start({[this](Message message) { on_message(std::move(message)); },
                       [this](Error error) { on_closed(error); }});
  Hello hello;
  hello.generation = identity_.generation;
  hello.role = "worker";
  hello.rank = identity_.rank;
  hello.pid = ::getpid();
  hello.secret = identity_.secret;
  tell(hello);
  patience_ = loop_.call_after(kGreetingPatience, [this] {
    spdlog::error("the coordinator has not answered within 30 s");
    finish(2);
  });
  beat();
  watch_signals();
  loop_.run();
  return exit_status_;
}

// ----- Loop thread -----

void Worker::tell(Message message) {
  std::visit([&](auto& body) { body.generation = identity_.generation; }, message);
  coordinator_->send(message);
}

void Worker::beat() {
  tell(Heartbeat{identity_.generation, step_.load(std::memory_order_relaxed)});
  heartbeat_ = loop_.call_after(kHeartbeat, [this] { beat(); });
}

void Worker::finish(int exit_status) {
  exit_status_ = exit_status;
  loop_.stop();
}

void Worker::on_closed(const Error& error) {
  if (state_ == State::kReported) return finish(exit_status_);
  spdlog::error("the coordinator is gone: {}", error.message);
  // The compute thread may sit in a collective: there is nothing to wait for.
  ::_exit(1);
}

void Worker::on_message(Message message) {
  if (std::holds_alternative<Welcome>(message)) {
    patience_.reset();
    if (state_ == State::kGreeting) state_ = State::kWaiting;
  } else if (const Refuse* refuse = std::get_if<Refuse>(&message)) {
    spdlog::error("refused: {}", refuse->reason);
    finish(2);
  } else if (StartWorker* begin = std::get_if<StartWorker>(&message)) {
    if (state_ == State::kWaiting) start(std::move(*begin));
  } else if (const StoreReady* store = std::get_if<StoreReady>(&message)) {
    compute_loop_.post([this, store = *store] { store_ = store; });
  } else if (const AttachHost* attach = std::get_if<AttachHost>(&message)) {
    if (plugins_ != nullptr)
      plugins_->attach_host(*attach);
    else
      early_attaches_.push_back(*attach);
  } else if (const GatherWanted* wanted = std::get_if<GatherWanted>(&message)) {
    if (plugins_ != nullptr)
      plugins_->gather_wanted(*wanted);
    else
      early_wanted_.push_back(*wanted);
  } else if (GatherDone* done = std::get_if<GatherDone>(&message)) {
    if (plugins_ != nullptr) plugins_->gather_done(std::move(*done));
  } else if (const HostLost* lost = std::get_if<HostLost>(&message)) {
    if (plugins_ != nullptr)
      plugins_->host_lost(*lost);
    else
      early_losses_.push_back(*lost);
  } else if (const Stop* stop = std::get_if<Stop>(&message)) {
    if (state_ == State::kReported) return finish(exit_status_);
    if (state_ != State::kTraining) return finish(1);
    interrupt(stop->reason);
  }
}

void Worker::interrupt(std::string reason) {
  compute_loop_.post([this, reason = std::move(reason)] {
    if (training_ != nullptr)
      training_->interrupt(reason);
    else
      stop_asked_ = reason;
  });
}

// SIGTERM to this rank alone is an interrupt of all: the ranks agree on it.
void Worker::watch_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  signals_ = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) return spdlog::warn("SIGTERM will end this rank at once: no signalfd");
  signal_watch_ = loop_.watch_readable(signals_, [this] {
    signalfd_siginfo info{};
    while (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      interrupt("SIGTERM to rank " + std::to_string(identity_.rank));
    }
  });
}

void Worker::start(StartWorker start) {
  state_ = State::kTraining;
  thread_ = std::thread([this, start = std::move(start)]() mutable { compute(std::move(start)); });
}

// ----- Compute thread -----

void Worker::compute(StartWorker start) {
  // The last line of defence: what a library throws past its owner.
  Result<WorkerDone> done =
      catching("training", ErrorCode::kFailed, [&]() -> Result<WorkerDone> { return train(start); });
  report(done ? std::move(*done) : failed(done.error()));
}

void Worker::report(WorkerDone done) {
  if (!done.reason.empty()) spdlog::info("{}: {}", done.status, done.reason);
  loop_.post([this, done = std::move(done)]() mutable {
    exit_status_ = done.status == "failed"    ? 1
                   : done.status == "refused" ? 2
                   : done.status == "aborted" ? 3
                                              : 0;
    state_ = State::kReported;
    tell(std::move(done));
    patience_ = loop_.call_after(kPartingPatience, [this] { finish(exit_status_); });
  });
}

std::optional<std::pair<std::string, std::int64_t>> Worker::await_store() {
  const bool told =
      compute_loop_.run_until([this] { return store_.has_value(); }, compute_loop_.now() + kStorePatience);
  if (!told) return std::nullopt;
  return std::pair{store_->host, store_->port};
}

namespace {

Result<std::unique_ptr<Communicator>> make_communicator(const Rendezvous& rendezvous,
                                                        const StartWorker& start, bool cuda) {
  if (start.facts.world_size == 1 && !cuda) return make_solo_communicator();
  CommunicatorOptions options;
  options.rank = WorkerId(start.facts.rank);
  options.world_size = start.facts.world_size;
  options.local_rank = start.facts.local_rank;
  options.generation = start.generation;
  return cuda ? make_nccl_communicator(rendezvous, options) : make_gloo_communicator(rendezvous, options);
}

}  // namespace

WorkerDone Worker::train(const StartWorker& start) {
  const RunConfig& config = start.config;
  const bool cuda = config.train.device == "cuda";
  // cuBLAS reads it when it starts: without it equal products may differ.
  if (config.train.deterministic && cuda) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  if (config.train.deterministic) at::globalContext().setDeterministicAlgorithms(true, !cuda);

  Result<Dataset> dataset = load_dataset(config.data, config.model.context);
  if (!dataset) return refused(dataset.error(), "data");
  if (Status fits = check_size(config, start.facts, *dataset); !fits)
    return refused(fits.error(), "data.batch_size");
  if (config.train.test && dataset->test_size() == 0) {
    const Error error{ErrorCode::kMismatch, "train.test: there is no test data; give data.test_fraction"};
    return refused(error, "train.test");
  }
  const DatasetFacts data_facts = dataset->facts();
  const at::ScalarType compute_type = config.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  Result<Model> model = make_model(config.model, data_facts, config.train.seed, compute_type);
  if (!model) return refused(model.error(), "model");
  const at::Device device = cuda
                                ? at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(start.facts.local_rank))
                                : at::Device(at::kCPU);
  model->module->to(device);
  model->module->train();

  std::vector<NamedTensor> parameters = named_parameters(*model);
  Optimizer optimizer(parameters, config.optimizer);
  RankState rank;
  if (!start.resume.empty()) {
    Result<RankState> read = read_run_checkpoint(start.resume, start.facts.rank, start.facts.world_size,
                                                 parameters, optimizer, config.model.type);
    if (!read) return refused(read.error(), "resume");
    rank = std::move(*read);
  }

  // The ranks meet.  Rank 0 says where.
  Rendezvous rendezvous;
  if (start.facts.world_size > 1) {
    Result<Rendezvous> met = Error{ErrorCode::kTimeout, "rank 0 has not said where its store is"};
    if (start.facts.rank == 0) {
      met = Rendezvous::host(identity_.master_address, identity_.master_port, kStorePatience);
      if (!met) return refused(met.error());
      loop_.post([this, port = met->port()] { tell(StoreReady{{}, identity_.master_address, port}); });
    } else if (const auto store = await_store()) {
      met = Rendezvous::connect(store->first, static_cast<std::uint16_t>(store->second), kStorePatience);
    }
    if (!met) return failed(met.error());
    rendezvous = std::move(*met);
  }
  Result<std::unique_ptr<Communicator>> communicator = make_communicator(rendezvous, start, cuda);
  if (!communicator) return failed(communicator.error());
  Result<GradientReducer> reducer = GradientReducer::make(parameters, **communicator);
  if (!reducer) return failed(reducer.error());

  PluginClient::Options options;
  options.generation = start.generation;
  options.facts = start.facts;
  options.secret = identity_.secret;
  options.dead_letters = start.facts.run_dir + "/dead_letters";
  options.relays = start.relays;
  options.weights = [&parameters] { return copy_of(parameters); };
  std::map<std::string, PluginClient::Restored> restored;
  for (const auto& [name, seq] : rank.plugin_seqs) restored[name].last_seq = Seq(seq);
  for (const auto& [name, state] : rank.plugin_states) restored[name].state = state;
  const auto data = std::make_shared<const Dataset>(std::move(*dataset));
  if (data->has_samples()) {
    options.collate = [data](const Batch& samples) { return data->collate(samples); };
  }
  PluginClient plugins(compute_loop_, loop_, options, start.routes, std::move(restored),
                       [this](Message message) { tell(std::move(message)); });
  loop_.post([this, &plugins] {
    plugins_ = &plugins;
    for (const AttachHost& attach : std::exchange(early_attaches_, {})) plugins.attach_host(attach);
    for (const HostLost& lost : std::exchange(early_losses_, {})) plugins.host_lost(lost);
    for (const GatherWanted& wanted : std::exchange(early_wanted_, {})) plugins.gather_wanted(wanted);
  });

  TrainingLoop::Outlets outlets;
  outlets.metrics = [this](Value fields) {
    loop_.post([this, fields = std::move(fields)]() mutable { tell(MetricsLine{{}, std::move(fields)}); });
  };
  outlets.event = [this, number = start.facts.rank](std::string event, Value fields) {
    fields["rank"] = number;
    loop_.post([this, event = std::move(event), fields = std::move(fields)]() mutable {
      tell(EventLine{{}, std::move(event), std::move(fields)});
    });
  };
  outlets.step = [this](std::int64_t step) { step_.store(step, std::memory_order_relaxed); };

  TrainingLoop::Parts parts{config,
                            start.facts,
                            data,
                            data_facts,
                            std::move(*model),
                            device,
                            std::move(optimizer),
                            std::move(*communicator),
                            std::move(*reducer),
                            !start.resume.empty()};
  WorkerDone done;
  {
    TrainingLoop training(std::move(parts), std::move(rank.training), plugins, compute_loop_,
                          std::move(outlets));
    training_ = &training;
    if (stop_asked_) training.interrupt(*stop_asked_);
    Result<TrainingEnd> end = training.run(std::move(rank.batches));
    training_ = nullptr;
    if (!end) {
      // Most likely a peer died, and the coordinator, which saw it die, ends
      // this rank too.  Being silent keeps the root cause first.
      spdlog::error("this rank cannot go on: {}", end.error().message);
      compute_loop_.run_until([] { return false; }, compute_loop_.now() + kDeathPatience);
      done = failed(end.error());
    } else {
      done.status = end->status;
      done.reason = end->reason;
      done.result = std::move(end->result);
    }
    done.plugins = plugins.reports();
  }
  // The loop's thread lets go of the client before it is destroyed here.
  bool released = false;
  loop_.post([this, &released] {
    plugins_ = nullptr;
    compute_loop_.post([&released] { released = true; });
  });
  compute_loop_.run_until([&released] { return released; });
  return done;
}

}  // namespace bulkhead
