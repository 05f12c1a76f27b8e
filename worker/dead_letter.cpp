#include "dead_letter.h"

#include <filesystem>
#include <fstream>

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

}  // namespace

void write_dead_letter(const std::string& directory, const std::string& plugin, std::int64_t rank,
                       const Call& call, const std::string& reason) {
  const std::filesystem::path stem =
      std::filesystem::path(directory) /
      (plugin + "-rank" + std::to_string(rank) + "-call" + std::to_string(call.seq.value));
  const Status written = write_tensors(stem.string() + ".safetensors", call.batch);
  if (!written) return spdlog::error("a dead letter could not be kept: {}", written.error().message);
  const Value about = {{"plugin", plugin},
                       {"rank", rank},
                       {"hook", call.hook},
                       {"step", call.context.global_step},
                       {"micro_batch", call.context.micro_batch},
                       {"epoch", call.context.epoch},
                       {"reason", reason},
                       {"batch", describe(call.batch)}};
  std::ofstream(stem.string() + ".json") << about.dump(2) << "\n";
}

}  // namespace bulkhead
