#include "run_checkpoint.h"

#include <utility>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "checkpoint.h"
#include "torch_error.h"

namespace bulkhead {
namespace {

constexpr const char* kRngTensor = "rng.cpu";

std::string rank_state_file(WorkerId rank) { return "rank-" + std::to_string(rank.value) + ".json"; }

std::string batch_prefix(std::size_t index) { return "batch." + std::to_string(index) + "."; }

at::Tensor cpu_rng_state() { return at::detail::getDefaultCPUGenerator().get_state(); }

// ----- Writing -----

Result<std::vector<NamedTensor>> rank_tensors(const RankState& rank) {
  std::vector<NamedTensor> tensors{{kRngTensor, cpu_rng_state()}};
  for (std::size_t i = 0; i < rank.batches.size(); ++i) {
    Result<TensorBatch> batch = from_wire(rank.batches[i].batch);
    if (!batch) return batch.error();
    for (NamedTensor& tensor : *batch) tensors.push_back({batch_prefix(i) + tensor.name, tensor.value});
  }
  return tensors;
}

Value rank_json(const RankState& rank) {
  Value batches = Value::array();
  for (const PendingBatch& batch : rank.batches) {
    Value names = Value::array();
    for (const Tensor& tensor : batch.batch) names.push_back(tensor.name);
    batches.push_back({{"step", batch.step},
                       {"micro", batch.micro},
                       {"stages", batch.stages},
                       {"skip", batch.skip},
                       {"dead_letter", batch.dead_letter},
                       {"tensors", names}});
  }
  return {{"training", to_json(rank.training)}, {"batches", batches}, {"plugin_seqs", rank.plugin_seqs}};
}

// This rank's files; rank 0's include what all ranks have in common.
Result<std::vector<FileRecord>> write_files(CheckpointWriter& writer, WorkerId rank_id, const RankState& rank,
                                            const std::vector<NamedTensor>& parameters,
                                            const std::vector<NamedTensor>& optimizer_state) {
  std::vector<Result<FileRecord>> written;
  if (rank_id == WorkerId{0}) {
    written.push_back(writer.write_tensors(kModelFile, parameters, {{"format", "pt"}}));
    written.push_back(writer.write_tensors(kOptimizerFile, optimizer_state));
  }
  Result<std::vector<NamedTensor>> tensors = rank_tensors(rank);
  if (!tensors) return tensors.error();
  written.push_back(writer.write_tensors(rank_file(rank_id), *tensors));
  written.push_back(writer.write_bytes(rank_state_file(rank_id), rank_json(rank).dump(2)));
  for (const auto& [plugin, state] : rank.plugin_states) {
    written.push_back(writer.write_bytes(plugin_file(plugin, rank_id), state.text()));
  }
  for (const LinkedFile& file : rank.linked) written.push_back(writer.link(file));
  std::vector<FileRecord> records;
  for (Result<FileRecord>& record : written) {
    if (!record) return record.error();
    records.push_back(std::move(*record));
  }
  return records;
}

// All ranks hear of each other's verdict; the lowest rank's error is everybody's.
Result<std::vector<std::string>> share(Communicator& communicator, const Status& own,
                                       const std::string& payload) {
  const Value said = {{"ok", own.ok()}, {"text", own.ok() ? payload : own.error().message}};
  Result<std::vector<std::string>> all = communicator.all_gather(said.dump());
  if (!all) return Error{ErrorCode::kUnavailable, all.error().message};
  std::vector<std::string> payloads;
  for (const std::string& text : *all) {
    const Value answer = Value::parse(text);
    if (!answer.at("ok").get<bool>()) return Error{ErrorCode::kFailed, answer.at("text").get<std::string>()};
    payloads.push_back(answer.at("text").get<std::string>());
  }
  return payloads;
}

Status commit(CheckpointWriter& writer, const std::vector<std::string>& records, const RankState& rank,
              std::int64_t world_size, std::int64_t keep, const std::string& model_type) {
  Manifest manifest;
  manifest.step = rank.training.step;
  manifest.epoch = rank.training.epoch;
  manifest.step_in_epoch = rank.training.step_in_epoch;
  manifest.world_size = world_size;
  manifest.state = {
      {"model", model_type},
      {"best_metric", rank.training.best_metric ? Value(*rank.training.best_metric) : Value(nullptr)}};
  for (const std::string& text : records) {
    Result<std::vector<FileRecord>> decoded = decode_records(text);
    if (!decoded) return decoded.error();
    manifest.files.insert(manifest.files.end(), decoded->begin(), decoded->end());
  }
  Result<std::filesystem::path> path = writer.commit(std::move(manifest), keep);
  if (!path) return path.error();
  return ok_status();
}

// ----- Reading -----

Result<RankState> parse_rank(const std::string& text, const std::string& file) {
  try {
    const Value json = Value::parse(text);
    RankState rank;
    Result<TrainingState> training = state_from(json.at("training"));
    if (!training) return training.error();
    rank.training = std::move(*training);
    json.at("plugin_seqs").get_to(rank.plugin_seqs);
    for (const Value& item : json.at("batches")) {
      PendingBatch batch;
      item.at("step").get_to(batch.step);
      item.at("micro").get_to(batch.micro);
      item.at("stages").get_to(batch.stages);
      item.at("skip").get_to(batch.skip);
      item.at("dead_letter").get_to(batch.dead_letter);
      for (const Value& name : item.at("tensors")) batch.batch.emplace_back().name = name.get<std::string>();
      rank.batches.push_back(std::move(batch));
    }
    return rank;
  } catch (const Value::exception& error) {
    return Error{ErrorCode::kMalformed, file + ": " + error.what()};
  }
}

const NamedTensor* find(const std::vector<NamedTensor>& tensors, const std::string& name) {
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

Status fill_batches(RankState& rank, const std::vector<NamedTensor>& tensors, const std::string& file) {
  for (std::size_t i = 0; i < rank.batches.size(); ++i) {
    for (Tensor& tensor : rank.batches[i].batch) {
      const NamedTensor* found = find(tensors, batch_prefix(i) + tensor.name);
      if (found == nullptr)
        return Error{ErrorCode::kMalformed,
                     file + " lacks the tensor \"" + batch_prefix(i) + tensor.name + "\""};
      tensor = to_wire({{tensor.name, found->value}}).front();
    }
  }
  return ok_status();
}

Status fits(const std::vector<NamedTensor>& parameters, const std::vector<NamedTensor>& saved,
            const std::string& file) {
  if (parameters.size() != saved.size()) {
    return Error{ErrorCode::kMismatch, file + " holds " + std::to_string(saved.size()) +
                                           " parameters, the model has " + std::to_string(parameters.size())};
  }
  for (const NamedTensor& parameter : parameters) {
    const NamedTensor* found = find(saved, parameter.name);
    if (found == nullptr)
      return Error{ErrorCode::kMismatch, file + " lacks the parameter \"" + parameter.name + "\""};
    if (found->value.sizes() != parameter.value.sizes() ||
        found->value.scalar_type() != parameter.value.scalar_type()) {
      return Error{ErrorCode::kMismatch,
                   file + ": \"" + parameter.name + "\" has another shape or type than the model's"};
    }
  }
  return ok_status();
}

}  // namespace

Status write_run_checkpoint(const std::string& checkpoints, std::int64_t keep, Communicator& communicator,
                            const std::vector<NamedTensor>& parameters, const Optimizer& optimizer,
                            const RankState& rank, const std::string& model_type) {
  const WorkerId id = communicator.rank();
  const bool is_main = id == WorkerId{0};
  std::optional<CheckpointWriter> writer;
  const auto open = [&]() -> Status {
    Result<CheckpointWriter> opened = CheckpointWriter::open(checkpoints, rank.training.step, is_main);
    if (!opened) return opened.error();
    writer.emplace(std::move(*opened));
    return ok_status();
  };
  // The directory first, then everybody writes into it, then the manifest.
  Result<std::vector<std::string>> opened = share(communicator, is_main ? open() : ok_status(), "");
  if (!opened) return opened.error();
  const Result<std::vector<NamedTensor>> optimizer_state = optimizer.whole_state(communicator);
  if (!optimizer_state) return optimizer_state.error();
  Status own = is_main ? ok_status() : open();
  std::string records;
  if (own) {
    Result<std::vector<FileRecord>> written = write_files(*writer, id, rank, parameters, *optimizer_state);
    if (written)
      records = encode_records(*written);
    else
      own = written.error();
  }
  Result<std::vector<std::string>> all = share(communicator, own, records);
  if (!all) return all.error();
  const Status committed =
      is_main ? commit(*writer, *all, rank, communicator.world_size(), keep, model_type) : ok_status();
  Result<std::vector<std::string>> verdict = share(communicator, committed, "");
  if (!verdict) return verdict.error();
  return ok_status();
}

Result<RankState> read_run_checkpoint(const std::string& path, std::int64_t rank_number,
                                      std::int64_t world_size, std::vector<NamedTensor>& parameters,
                                      Optimizer& optimizer, const std::string& model_type) {
  const WorkerId id(rank_number);
  Result<CheckpointReader> reader = open_checkpoint(path);
  if (!reader) return reader.error();
  const Manifest& manifest = reader->manifest();
  if (manifest.world_size != world_size) {
    return Error{ErrorCode::kMismatch, path + " was written by " + std::to_string(manifest.world_size) +
                                           " ranks and this run has " + std::to_string(world_size) +
                                           "; resume with the same number"};
  }
  if (manifest.state.value("model", "") != model_type) {
    return Error{ErrorCode::kMismatch, path + " holds a model of type \"" +
                                           manifest.state.value("model", "") + "\", not \"" + model_type +
                                           "\""};
  }
  Result<SafeTensors> model = reader->read_tensors(kModelFile);
  if (!model) return model.error();
  Result<SafeTensors> optimizer_state = reader->read_tensors(kOptimizerFile);
  if (!optimizer_state) return optimizer_state.error();
  Result<SafeTensors> own = reader->read_tensors(rank_file(id));
  if (!own) return own.error();
  Result<Blob> text = reader->read_bytes(rank_state_file(id));
  if (!text) return text.error();
  Result<RankState> rank = parse_rank(std::string(text->text()), path + "/" + rank_state_file(id));
  if (!rank) return rank.error();
  if (Status done = fill_batches(*rank, own->tensors, path + "/" + rank_file(id)); !done) return done.error();
  for (const auto& [plugin, seq] : rank->plugin_seqs) {
    if (!reader->has(plugin_file(plugin, id))) continue;
    Result<Blob> state = reader->read_bytes(plugin_file(plugin, id));
    if (!state) return state.error();
    rank->plugin_states[plugin] = std::move(*state);
  }
  // Nothing is changed before everything has been read and fits.
  if (Status done = fits(parameters, model->tensors, path + "/" + kModelFile); !done) return done.error();
  if (Status done = optimizer.load_state(optimizer_state->tensors); !done) return done.error();
  const Status copied = catching("loading " + path, ErrorCode::kFailed, [&] {
    const at::NoGradGuard no_grad;
    for (NamedTensor& parameter : parameters)
      parameter.value.copy_(find(model->tensors, parameter.name)->value);
    if (const NamedTensor* rng = find(own->tensors, kRngTensor)) {
      at::Generator generator = at::detail::getDefaultCPUGenerator();
      generator.set_state(rng->value.clone());
    }
  });
  if (!copied) return copied.error();
  return rank;
}

}  // namespace bulkhead
