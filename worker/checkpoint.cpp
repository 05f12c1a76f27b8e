#include "checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <set>
#include <stdio.h>
#include <utility>

#include <spdlog/spdlog.h>

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kAsideSuffix = ".writing";
constexpr std::uint64_t kMaxManifestBytes = 64 * 1024 * 1024;

Error failed(const char* doing, const fs::path& path, const std::error_code& code) {
  return Error{ErrorCode::kFailed,
               std::string("cannot ") + doing + " " + path.string() + ": " + code.message()};
}

fs::path aside_of(const fs::path& checkpoints, std::int64_t step) {
  return checkpoints / ("." + checkpoint_name(step) + std::string(kAsideSuffix));
}

bool is_aside(const std::string& name) {
  return name.starts_with("." + std::string(kPrefix)) && name.ends_with(kAsideSuffix);
}

std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  std::int64_t step = 0;
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || stop != end || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator at(directory, code), end; !code && at != end; at.increment(code)) {
    names.push_back(at->path().filename().string());
  }
  return names;
}

// The steps that have a directory, in rising order.
std::vector<std::int64_t> steps_in(const fs::path& checkpoints) {
  std::vector<std::int64_t> steps;
  for (const std::string& name : names_in(checkpoints)) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void remove_asides(const fs::path& checkpoints) {
  for (const std::string& name : names_in(checkpoints)) {
    std::error_code ignored;
    if (is_aside(name)) fs::remove_all(checkpoints / name, ignored);
  }
}

// Hidden first, so that a crash half-way leaves no checkpoint with holes.
void remove_checkpoint(const fs::path& checkpoints, std::int64_t step) {
  const fs::path path = checkpoints / checkpoint_name(step);
  const fs::path hidden = aside_of(checkpoints, step);
  std::error_code code;
  fs::rename(path, hidden, code);
  if (!code) fs::remove_all(hidden, code);
  if (code) spdlog::warn("cannot delete the old checkpoint {}: {}", path.string(), code.message());
}

void prune(const fs::path& checkpoints, std::int64_t written, std::int64_t keep) {
  if (keep <= 0) return;
  std::vector<std::int64_t> steps = steps_in(checkpoints);
  std::erase(steps, written);
  const auto others = static_cast<std::size_t>(keep - 1);
  for (std::size_t i = 0; i + others < steps.size(); ++i) remove_checkpoint(checkpoints, steps[i]);
}

// Puts `aside` in the place of `final`, whose old content, if any, then lies
// in `aside`'s place.
Status swap_in(const fs::path& aside, const fs::path& final) {
  if (rename(aside.c_str(), final.c_str()) == 0) return ok_status();
  if (errno != EEXIST && errno != ENOTEMPTY) {
    return failed("rename", aside, std::error_code(errno, std::generic_category()));
  }
  if (renameat2(AT_FDCWD, aside.c_str(), AT_FDCWD, final.c_str(), RENAME_EXCHANGE) == 0) return ok_status();
  // A file system that cannot exchange two names (NFS): two renames, with a
  // moment between them in which the step has no checkpoint.
  const fs::path old = aside.string() + std::string(kAsideSuffix);
  if (rename(final.c_str(), old.c_str()) == 0 && rename(aside.c_str(), final.c_str()) == 0)
    return ok_status();
  return failed("replace", final, std::error_code(errno, std::generic_category()));
}

Status sync_directories(const fs::path& root) {
  std::error_code code;
  for (fs::recursive_directory_iterator at(root, code), end; !code && at != end; at.increment(code)) {
    if (!at->is_directory()) continue;
    if (auto done = sync_directory(at->path()); !done) return done;
  }
  if (code) return failed("read", root, code);
  return sync_directory(root);
}

Status check_sizes(const fs::path& root, const Manifest& manifest) {
  for (const FileRecord& record : manifest.files) {
    const auto size = file_size_of(root, record.name);
    if (!size) return size.error();
    if (*size == record.size) continue;
    return Error{ErrorCode::kMalformed, (root / record.name).string() + " has " + std::to_string(*size) +
                                            " bytes, but its manifest says " + std::to_string(record.size)};
  }
  return ok_status();
}

}  // namespace

std::string rank_file(WorkerId rank) { return "rank-" + std::to_string(rank.value) + ".safetensors"; }

std::string plugin_file(std::string_view plugin, WorkerId rank) {
  return "plugins/" + std::string(plugin) + "/rank-" + std::to_string(rank.value) + ".bin";
}

std::string checkpoint_name(std::int64_t step) {
  CHECK(step >= 0);
  std::string digits = std::to_string(step);
  if (digits.size() < 8) digits.insert(0, 8 - digits.size(), '0');
  return std::string(kPrefix) + digits;
}

// ----- Writing -----

CheckpointWriter::CheckpointWriter(fs::path checkpoints, std::int64_t step, bool is_main)
    : checkpoints_(std::move(checkpoints)),
      aside_(aside_of(checkpoints_, step)),
      step_(step),
      owns_aside_(is_main) {}

CheckpointWriter::CheckpointWriter(CheckpointWriter&& other) noexcept
    : checkpoints_(std::move(other.checkpoints_)),
      aside_(std::move(other.aside_)),
      step_(other.step_),
      owns_aside_(std::exchange(other.owns_aside_, false)) {}

CheckpointWriter::~CheckpointWriter() {
  if (!owns_aside_) return;
  std::error_code code;
  fs::remove_all(aside_, code);
  if (code) spdlog::warn("cannot delete {}: {}", aside_.string(), code.message());
}

Result<CheckpointWriter> CheckpointWriter::open(const fs::path& checkpoints, std::int64_t step,
                                                bool is_main) {
  const fs::path aside = aside_of(checkpoints, step);
  std::error_code code;
  if (is_main) {
    fs::create_directories(checkpoints, code);
    if (code) return failed("create", checkpoints, code);
    remove_asides(checkpoints);
    if (!fs::create_directory(aside, code) || code) {
      return failed("create", aside, code ? code : std::make_error_code(std::errc::file_exists));
    }
  } else if (!fs::is_directory(fs::symlink_status(aside, code))) {
    return Error{ErrorCode::kUnavailable,
                 "there is no " + aside.string() + " to write this rank's part into"};
  }
  return CheckpointWriter(checkpoints, step, is_main);
}

Result<FileRecord> CheckpointWriter::write_tensors(const std::string& name,
                                                   const std::vector<NamedTensor>& tensors,
                                                   const TextMap& metadata) {
  auto file = CheckedWriter::create(aside_, name);
  if (!file) return file.error();
  const auto sink = [&](const void* data, std::size_t size) { return file->write(data, size); };
  if (auto written = write_safetensors(tensors, metadata, sink); !written) return written.error();
  return file->finish();
}

Result<FileRecord> CheckpointWriter::write_bytes(const std::string& name, std::string_view bytes) {
  auto file = CheckedWriter::create(aside_, name);
  if (!file) return file.error();
  if (auto written = file->write(bytes.data(), bytes.size()); !written) return written.error();
  return file->finish();
}

Result<FileRecord> CheckpointWriter::link(const LinkedFile& file) {
  if (auto good = check_file_name(file.record.name); !good) return good.error();
  std::error_code code;
  fs::create_hard_link(file.source, aside_ / file.record.name, code);
  if (!code) return file.record;
  const auto bytes = read_checked(file.source.parent_path(),
                                  {file.source.filename().string(), file.record.size, file.record.sha256});
  if (!bytes) return bytes.error();
  return write_bytes(file.record.name, bytes->text());
}

Status CheckpointWriter::write_manifest(const Manifest& manifest) const {
  const auto text = encode_manifest(manifest);
  if (!text) return text.error();
  auto file = CheckedWriter::create(aside_, kManifestName);
  if (!file) return file.error();
  if (auto written = file->write(text->data(), text->size()); !written) return written;
  if (auto finished = file->finish(); !finished) return finished.error();
  return ok_status();
}

Result<fs::path> CheckpointWriter::commit(Manifest manifest, std::int64_t keep) {
  CHECK(owns_aside_, "only the main writer commits, and once");
  manifest.step = step_;
  if (auto good = check_sizes(aside_, manifest); !good) return good.error();
  if (auto written = write_manifest(manifest); !written) return written.error();
  if (auto synced = sync_directories(aside_); !synced) return synced.error();

  const fs::path final = checkpoints_ / checkpoint_name(step_);
  if (auto renamed = swap_in(aside_, final); !renamed) return renamed.error();
  // From here on the checkpoint is there; what goes wrong is not its failure.
  owns_aside_ = false;
  remove_asides(checkpoints_);
  if (auto synced = sync_directory(checkpoints_); !synced) spdlog::warn("{}", synced.error().message);
  prune(checkpoints_, step_, keep);
  return final;
}

// ----- Reading -----

CheckpointReader::CheckpointReader(fs::path path, Manifest manifest)
    : path_(std::move(path)), manifest_(std::move(manifest)) {}

Result<CheckpointReader> open_checkpoint(const fs::path& path) {
  const std::string file = (path / kManifestName).string();
  const auto text = read_file(path, kManifestName, kMaxManifestBytes);
  if (!text) {
    return Error{text.error().code, path.string() + " is not a complete checkpoint: " + text.error().message};
  }
  auto manifest = decode_manifest(text->text(), file);
  if (!manifest) return manifest.error();
  if (auto good = check_sizes(path, *manifest); !good) return good.error();
  return CheckpointReader(path, *std::move(manifest));
}

Result<Blob> CheckpointReader::read_bytes(const std::string& name) const {
  const FileRecord* record = manifest_.find(name);
  if (record == nullptr) {
    return Error{ErrorCode::kUnavailable, "the checkpoint " + path_.string() + " has no " + name};
  }
  return read_checked(path_, *record);
}

Result<SafeTensors> CheckpointReader::read_tensors(const std::string& name) const {
  const auto bytes = read_bytes(name);
  if (!bytes) return bytes.error();
  return parse_safetensors(*bytes, (path_ / name).string());
}

Status CheckpointReader::verify() const {
  for (const FileRecord& record : manifest_.files) {
    if (auto bytes = read_checked(path_, record); !bytes) return bytes.error();
  }
  return ok_status();
}

std::optional<fs::path> newest_complete(const fs::path& checkpoints) {
  const std::vector<std::int64_t> steps = steps_in(checkpoints);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path path = checkpoints / checkpoint_name(*step);
    const auto opened = open_checkpoint(path);
    if (opened) return path;
    spdlog::warn("passing over a checkpoint: {}", opened.error().message);
  }
  return std::nullopt;
}

std::string params_sha256(const std::vector<NamedTensor>& parameters) {
  std::vector<NamedTensor> ordered = parameters;
  std::sort(ordered.begin(), ordered.end(), [](auto& a, auto& b) { return a.name < b.name; });
  Sha256 hash;
  for (const NamedTensor& parameter : ordered) {
    const at::Tensor dense = parameter.value.detach().to(at::kCPU).contiguous();
    hash.update(dense.const_data_ptr(), dense.nbytes());
  }
  return to_hex(hash.finish());
}

}  // namespace bulkhead
