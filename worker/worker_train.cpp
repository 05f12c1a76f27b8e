// A worker's training: what it stands on is built, in an order that finds what
// must be refused before the ranks meet, then it runs.
#include <chrono>
#include <cstdlib>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/nn/module.h>

#include "checkpoint.h"
#include "communicator.h"
#include "data/row_data.h"
#include "made_rows.h"
#include "open_plugins.h"
#include "protocol/log.h"
#include "run_checkpoint.h"
#include "torch_error.h"
#include "training_loop.h"
#include "worker.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

constexpr auto kStorePatience = 60s;
constexpr auto kDeathPatience = 10s;  // a lost peer means that the coordinator ends this rank too

WorkerDone ended(std::string status, std::string reason, std::string key = {}) {
  WorkerDone done;
  done.status = std::move(status);
  done.reason = std::move(reason);
  done.key = std::move(key);
  return done;
}

WorkerDone refused(const Error& error, std::string key = {}) {
  return ended("refused", error.message, std::move(key));
}

WorkerDone failed(const Error& error) { return ended("failed", error.message); }

// What a plugin sees as the weights: it stays as it is while training goes on.
Batch copy_of(const std::vector<NamedTensor>& parameters) {
  TensorBatch copies;
  for (const NamedTensor& parameter : parameters) {
    copies.push_back({parameter.name, parameter.value.detach().to(at::kCPU, /*non_blocking=*/false,
                                                                  /*copy=*/true)});
  }
  return to_wire(copies);
}

// The data must fill one step of all ranks, and a test that is asked for.
std::optional<WorkerDone> objection_to(const Dataset& dataset, const StartWorker& start) {
  const RunConfig& config = start.config;
  const std::int64_t needed = config.data.batch_size * start.facts.world_size * config.train.accumulate;
  if (dataset.train_size() < needed) {
    return ended("refused",
                 "data.batch_size: one step needs " + std::to_string(needed) + " samples (" +
                     std::to_string(config.data.batch_size) + " × " + std::to_string(start.facts.world_size) +
                     " ranks × " + std::to_string(config.train.accumulate) +
                     " micro-batches), the data has " + std::to_string(dataset.train_size()),
                 "data.batch_size");
  }
  if (config.train.test && dataset.test_size() == 0) {
    return ended("refused", "train.test: there is no test data; give data.test_fraction", "train.test");
  }
  return std::nullopt;
}

// For tests on one GPU: a rank without others goes the way of several.
bool meets_alone(const StartWorker& start) {
  return start.facts.world_size == 1 && start.config.train.device == "cuda" &&
         std::getenv("BULKHEAD_NCCL_ALONE") != nullptr;
}

Result<std::unique_ptr<Communicator>> make_communicator(const Rendezvous& rendezvous,
                                                        const StartWorker& start, bool cuda) {
  if (start.facts.world_size == 1 && !cuda) return make_solo_communicator();
  CommunicatorOptions options;
  options.rank = WorkerId(start.facts.rank);
  options.world_size = start.facts.world_size;
  options.local_rank = start.facts.local_rank;
  options.generation = start.generation;
  options.meet_alone = meets_alone(start);
  return cuda ? make_nccl_communicator(rendezvous, options) : make_gloo_communicator(rendezvous, options);
}

void set_determinism(const TrainConfig& train) {
  if (!train.deterministic) return;
  const bool cuda = train.device == "cuda";
  // cuBLAS reads it when it starts: without it equal products may differ.
  if (cuda) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  at::globalContext().setDeterministicAlgorithms(true, !cuda);
}

at::Device device_of(const StartWorker& start) {
  if (start.config.train.device != "cuda") return at::kCPU;
  return {at::kCUDA, static_cast<c10::DeviceIndex>(start.facts.local_rank)};
}

at::ScalarType type_of(const std::string& precision) {
  return precision == "bf16" ? at::kBFloat16 : precision == "fp16" ? at::kHalf : at::kFloat;
}

SampleKind samples_of(const DataConfig& data) {
  return data.type == "captions" ? SampleKind::kCaptions
         : data.type == "rows"   ? SampleKind::kRows
                                 : SampleKind::kNone;
}

}  // namespace

// ----- Plugins -----

Worker::OpenPlugins::~OpenPlugins() {
  if (!client_) return;
  bool released = false;
  worker_.loop_.post([this, &released] {
    worker_.plugins_ = nullptr;
    worker_.compute_loop_.post([&released] { released = true; });
  });
  worker_.compute_loop_.run_until([&released] { return released; });
}

void Worker::OpenPlugins::open(PluginClient::Options options, const std::vector<PluginRoute>& routes,
                               std::map<std::string, PluginClient::Restored> restored) {
  client_ = std::make_unique<PluginClient>(
      worker_.compute_loop_, worker_.loop_, std::move(options), routes, std::move(restored),
      [worker = &worker_](Message message) { worker->tell(std::move(message)); });
  worker_.loop_.post([worker = &worker_, client = client_.get()] {
    worker->plugins_ = client;
    for (const AttachHost& attach : std::exchange(worker->early_attaches_, {})) client->attach_host(attach);
    for (const HostLost& lost : std::exchange(worker->early_losses_, {})) client->host_lost(lost);
    for (const GatherWanted& wanted : std::exchange(worker->early_wanted_, {})) client->gather_wanted(wanted);
  });
}

// ----- Ranks -----

// The way to the other ranks.
struct Worker::Ground {
  at::Device device = at::kCPU;
  Rendezvous rendezvous;  // before the communicator
  std::unique_ptr<Communicator> communicator;
};

// Rank 0 says where.
std::optional<WorkerDone> Worker::meet(const StartWorker& start, Ground& ground) {
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
    ground.rendezvous = std::move(*met);
  } else if (meets_alone(start)) {
    Result<Rendezvous> met = Rendezvous::host("127.0.0.1", 0, kStorePatience);
    if (!met) return refused(met.error());
    ground.rendezvous = std::move(*met);
  }
  Result<std::unique_ptr<Communicator>> communicator =
      make_communicator(ground.rendezvous, start, start.config.train.device == "cuda");
  if (!communicator) return failed(communicator.error());
  ground.communicator = std::move(*communicator);
  return std::nullopt;
}

void Worker::tell_event(std::string event, Value fields) {
  fields["rank"] = identity_.rank;
  loop_.post([this, event = std::move(event), fields = std::move(fields)]() mutable {
    tell(EventLine{{}, std::move(event), std::move(fields)});
  });
}

// ----- Training -----

WorkerDone Worker::train(const StartWorker& start) {
  const RunConfig& config = start.config;
  set_determinism(config.train);
  Ground ground;
  ground.device = device_of(start);
  std::shared_ptr<const Dataset> data;  // these two before the plugins, which reach for them
  std::vector<NamedTensor> parameters;
  OpenPlugins plugins(*this);
  PluginClient::Options options;
  options.generation = start.generation;
  options.facts = start.facts;
  options.secret = identity_.secret;
  options.dead_letters = start.facts.run_dir + "/dead_letters";
  options.relays = start.relays;
  options.stream.lengths_vary = config.data.type == "rows";
  options.samples = samples_of(config.data);
  if (ground.device.is_cuda()) options.gpu = ground.device.index();
  options.collate = [&data](const Batch& samples) { return data->collate(samples); };
  options.weights = [&parameters] { return copy_of(parameters); };
  const auto leave = [&](WorkerDone done) {
    if (plugins.are_open()) done.plugins = plugins.client().reports();
    return done;
  };

  // Plugins that make the data set are there before it, and so are the ranks.
  std::vector<LinkedFile> kept;
  if (MadeRows::are_needed(start)) {
    if (auto done = meet(start, ground)) return *done;
    MadeRows made(start, {&compute_loop_, ground.communicator.get(), ground.device,
                          [this] { return stop_asked_.value_or(""); },
                          [this](std::string event, Value fields) {
                            tell_event(std::move(event), std::move(fields));
                          }});
    if (start.resume.empty()) plugins.open(options, start.routes, made.take_up());
    Result<RowsVerdict> verdict = made.share(plugins.are_open() ? &plugins.client() : nullptr);
    if (!verdict) return leave(lost(verdict.error()));
    if (verdict->status != "done") return leave(ended(verdict->status, verdict->reason, verdict->key));
    kept = made.kept();
    data =
        std::make_shared<const Dataset>(RowData(std::move(made.rows()), config.data, config.model.context));
  } else {
    Result<Dataset> dataset = load_dataset(config.data, config.model.context);
    if (!dataset) return refused(dataset.error(), "data");
    data = std::make_shared<const Dataset>(std::move(*dataset));
  }
  if (auto objection = objection_to(*data, start)) return leave(*objection);

  const DatasetFacts data_facts = data->facts();
  const at::ScalarType compute_type = type_of(config.train.precision);
  Result<Model> model = make_model(config.model, data_facts, config.train.seed, compute_type);
  if (!model) return leave(refused(model.error(), "model"));
  model->module->to(ground.device);
  model->module->train();
  parameters = named_parameters(*model);
  const std::vector<NamedTensor> copies =
      compute_type == at::kFloat ? std::vector<NamedTensor>() : make_working_copies(*model, compute_type);
  Optimizer optimizer(parameters, config.optimizer, copies, {start.facts.rank, start.facts.world_size});
  RankState rank;
  if (!start.resume.empty()) {
    Result<RankState> read = read_run_checkpoint(start.resume, start.facts.rank, start.facts.world_size,
                                                 parameters, optimizer, config.model.type);
    if (!read) return leave(refused(read.error(), "resume"));
    rank = std::move(*read);
    optimizer.refresh_copies();
  }

  if (!ground.communicator) {
    if (auto done = meet(start, ground)) return *done;
  }
  Result<GradientReducer> reducer = GradientReducer::make(parameters, *ground.communicator);
  if (!reducer) return leave(failed(reducer.error()));
  if (!plugins.are_open()) {
    std::map<std::string, PluginClient::Restored> restored;
    for (const auto& [name, seq] : rank.plugin_seqs) restored[name].last_seq = Seq(seq);
    for (const auto& [name, state] : rank.plugin_states) restored[name].state = state;
    plugins.open(std::move(options), start.routes, std::move(restored));
  }

  TrainingLoop::Outlets outlets;
  outlets.metrics = [this](Value fields) {
    loop_.post([this, fields = std::move(fields)]() mutable { tell(MetricsLine{{}, std::move(fields)}); });
  };
  outlets.event = [this](std::string event, Value fields) {
    tell_event(std::move(event), std::move(fields));
  };
  outlets.step = [this, &client = plugins.client()](std::int64_t step) {
    step_.store(step, std::memory_order_relaxed);
    waited_seconds_.store(client.waited_seconds(), std::memory_order_relaxed);
    cpu_watch_.look();
  };
  TrainingLoop::Parts parts{config,
                            start.facts,
                            data,
                            data_facts,
                            std::move(*model),
                            ground.device,
                            std::move(optimizer),
                            std::move(ground.communicator),
                            std::move(*reducer),
                            !start.resume.empty(),
                            std::move(kept),
                            QuietBlocks::from_environment()};
  TrainingLoop training(std::move(parts), std::move(rank.training), plugins.client(), compute_loop_,
                        std::move(outlets));
  return leave(run_loop(training, std::move(rank.batches)));
}

// Most likely a peer died, and the coordinator, which saw it die, ends this rank
// too.  Being silent keeps the root cause first.
WorkerDone Worker::lost(const Error& error) {
  spdlog::error("this rank cannot go on: {}", error.message);
  compute_loop_.run_until([] { return false; }, compute_loop_.now() + kDeathPatience);
  return failed(error);
}

WorkerDone Worker::run_loop(TrainingLoop& training, std::vector<PendingBatch> batches) {
  training_ = &training;
  if (stop_asked_) training.interrupt(*stop_asked_);
  Result<TrainingEnd> end = training.run(std::move(batches));
  training_ = nullptr;
  if (!end) return lost(end.error());
  WorkerDone done = ended(end->status, end->reason);
  done.result = std::move(end->result);
  return done;
}

}  // namespace bulkhead
