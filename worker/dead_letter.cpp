#include "dead_letter.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <type_traits>

#include "batch.h"
#include "protocol/log.h"
#include "safetensors.h"

namespace bulkhead {
namespace {

Status write_tensors(const std::filesystem::path& path, const Batch& batch) {
  Result<TensorBatch> tensors = from_wire(batch);
  if (!tensors) return tensors.error();
  for (NamedTensor& tensor : *tensors) tensor.value = tensor.value.contiguous();
  std::ofstream file(path, std::ios::binary);
  const Status written = write_safetensors(*tensors, {}, [&](const void* data, std::size_t size) -> Status {
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
    return file ? ok_status() : Status(Error{ErrorCode::kFailed, "cannot write " + path.string()});
  });
  return written;
}

// Of what has visit(), all members that are plain values.
template <class Visited>
Value fields_of(const Visited& visited) {
  Value fields = Value::object();
  Visited::visit(visited, [&](const char* name, const auto& value) {
    using Kind = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<Kind, std::optional<std::int64_t>> ||
                  std::is_same_v<Kind, std::optional<double>>) {
      if (value) fields[name] = *value;
    } else {
      fields[name] = value;
    }
  });
  return fields;
}

}  // namespace

void write_dead_letter(const std::string& directory, const PluginConfig& plugin, const Facts& facts,
                       const Call& call, const std::string& reason) {
  const std::int64_t rank = call.context.rank.value_or(facts.rank);
  const std::filesystem::path stem =
      std::filesystem::path(directory) /
      (plugin.name + "-rank" + std::to_string(rank) + "-call" + std::to_string(call.seq.value));
  const Status written = write_tensors(stem.string() + ".safetensors", call.batch);
  if (!written) return spdlog::error("a dead letter could not be kept: {}", written.error().message);
  const Value config = {{"use", plugin.use},      {"name", plugin.name},
                        {"with", plugin.with},    {"language", plugin.language},
                        {"file", plugin.file},    {"module", plugin.module},
                        {"scope", plugin.scope},  {"class_name", plugin.class_name},
                        {"python", plugin.python}};
  const Value about = {{"plugin", plugin.name},
                       {"rank", rank},
                       {"hook", call.hook},
                       {"step", call.context.global_step},
                       {"micro_batch", call.context.micro_batch},
                       {"epoch", call.context.epoch},
                       {"reason", reason},
                       {"batch", describe(call.batch)},
                       {"config", config},
                       {"facts", fields_of(facts)},
                       {"context", fields_of(call.context)},
                       {"seed_rank", call.seed_rank}};
  std::ofstream(stem.string() + ".json") << about.dump(2) << "\n";
}

}  // namespace bulkhead
