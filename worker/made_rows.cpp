#include "made_rows.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

#include "data/rows.h"
#include "dataset_stage.h"
#include "protocol/hooks.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

constexpr std::uint64_t kMaxRowsBytes = std::uint64_t{1} << 40;

RowsVerdict refused(std::string reason, std::string key) {
  return {"refused", std::move(reason), std::move(key), {}};
}

bool has_stage(const PluginRoute& route) {
  for (const std::string& name : route.traits.hooks) {
    const HookInfo* hook = find_hook(name);
    if (hook != nullptr && hook->kind == HookKind::kRows) return true;
  }
  return false;
}

LinkedFile linked(const std::string& directory, const Blob& bytes) {
  return {std::filesystem::path(directory) / kRowsFile,
          {kRowsFile, bytes.size, to_hex(sha256(bytes.text()))}};
}

}  // namespace

bool MadeRows::are_needed(const StartWorker& start) {
  if (start.config.data.type != "rows") return false;
  std::error_code code;
  if (!start.resume.empty() && std::filesystem::exists(start.resume + "/" + kRowsFile, code)) return true;
  return std::any_of(start.routes.begin(), start.routes.end(), has_stage);
}

MadeRows::MadeRows(const StartWorker& start, Surroundings around)
    : start_(start), around_(std::move(around)) {}

std::map<std::string, PluginClient::Restored> MadeRows::take_up() {
  const std::string file = run_dir() + "/" + kRowsFile;
  std::error_code code;
  if (start_.facts.rank != 0 || !std::filesystem::exists(file, code)) return {};
  const Result<Blob> bytes = read_file(std::filesystem::path(run_dir()), kRowsFile, kMaxRowsBytes);
  Result<RowsFile> read = bytes ? decode_rows(*bytes, file) : bytes.error();
  if (!read) {
    spdlog::warn("the data set is made anew: {}", read.error().message);
    return {};
  }
  const bool same = read->data_key == data_key_of(start_.config) &&
                    read->plugin_key == plugin_key_of(start_.config, start_.routes);
  if (!same) {
    spdlog::info("the data set is made anew: {} was made of other data or by other plugins", file);
    return {};
  }
  spdlog::info("the data set is that of {}", file);
  taken_up_ = *bytes;
  return std::move(read->states);
}

Result<RowsVerdict> MadeRows::share(PluginClient* plugins) {
  Communicator& communicator = *around_.communicator;
  RowsVerdict verdict;
  if (start_.facts.rank == 0) {
    if (taken_up_.data != nullptr) {
      verdict.bytes = taken_up_;
    } else if (plugins == nullptr) {
      verdict = resumed();
    } else {
      StillWorking still(*around_.compute, communicator);
      verdict = make(*plugins);
      if (!still.status()) return still.status().error();
    }
    if (verdict.status == "done") {
      if (Status kept = keep(verdict.bytes); !kept) verdict = refused(kept.error().message, "data");
    }
    if (Status sent = send_rows(communicator, around_.device, verdict); !sent) return sent.error();
  } else {
    Result<RowsVerdict> received = receive_rows(communicator, around_.device);
    if (!received) return received.error();
    verdict = std::move(*received);
  }
  if (verdict.status != "done") return verdict;
  Result<RowsFile> read = decode_rows(verdict.bytes, kRowsFile);
  if (!read) return read.error();
  rows_ = std::move(read->rows);
  return verdict;
}

RowsVerdict MadeRows::make(PluginClient& plugins) {
  const TimePoint begin = around_.compute->now();
  Result<Rows> rows = read_rows(start_.config.data);
  if (!rows) return refused(rows.error().message, "data");
  const std::size_t read = rows->texts.size();
  DatasetStage stage(plugins, start_.config, around_.stop_asked);
  Result<TokenRows> made = stage.run(std::move(*rows));
  if (!made) return {stage.status(), made.error().message, stage.key(), {}};
  const double seconds = std::chrono::duration<double>(around_.compute->now() - begin).count();
  around_.event("rows",
                {{"reason", std::to_string(made->count()) + " samples of " + std::to_string(read) + " rows"},
                 {"rows", read},
                 {"samples", made->count()},
                 {"dropped", made->dropped},
                 {"seconds", seconds}});
  RowsFile file;
  file.rows = std::move(*made);
  file.data_key = data_key_of(start_.config);
  file.plugin_key = plugin_key_of(start_.config, start_.routes);
  file.states = plugins.stage_states(stage.context());
  Result<Blob> bytes = encode_rows(file);
  if (!bytes) return refused(bytes.error().message, "data");
  return {"done", {}, {}, std::move(*bytes)};
}

RowsVerdict MadeRows::resumed() const {
  Result<CheckpointReader> reader = open_checkpoint(start_.resume);
  if (!reader) return refused(reader.error().message, "resume");
  if (!reader->has(kRowsFile)) {
    return refused(
        start_.resume + " has no data set (" + kRowsFile +
            "): it was written without preprocess, keep or encode; start afresh with --resume none",
        "resume");
  }
  Result<Blob> bytes = reader->read_bytes(kRowsFile);
  if (!bytes) return refused(bytes.error().message, "resume");
  const Result<RowsFile> file = decode_rows(*bytes, start_.resume + "/" + kRowsFile);
  if (!file) return refused(file.error().message, "resume");
  if (file->data_key != data_key_of(start_.config)) {
    return refused(
        start_.resume +
            " holds a data set that was made with another data.tokenizer, other fractions or another "
            "model.context; start afresh with --resume none",
        "resume");
  }
  return {"done", {}, {}, std::move(*bytes)};
}

// In the run's directory, where every checkpoint finds it.
Status MadeRows::keep(const Blob& bytes) {
  LinkedFile own = linked(run_dir(), bytes);
  const FileRecord there = own.record;
  if (!read_checked(run_dir(), there)) {
    Result<LinkedFile> written = write_rows_file(run_dir(), bytes);
    if (!written) return written.error();
    own = std::move(*written);
  }
  kept_ = {std::move(own)};
  return ok_status();
}

}  // namespace bulkhead
