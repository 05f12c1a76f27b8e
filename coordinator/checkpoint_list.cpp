#include "checkpoint_list.h"

#include <charconv>
#include <string>
#include <system_error>

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPrefix = "step-";

}  // namespace

std::optional<std::int64_t> step_of_checkpoint(const fs::path& checkpoint) {
  const std::string name = checkpoint.has_filename() ? checkpoint.filename().string()
                                                     : checkpoint.parent_path().filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto read = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (read.ec != std::errc() || read.ptr != end || step < 0) return std::nullopt;
  return step;
}

std::optional<fs::path> newest_checkpoint(const fs::path& checkpoints) {
  std::optional<fs::path> newest;
  std::int64_t most = -1;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error)) {
    const auto step = step_of_checkpoint(entry.path());
    if (!step || *step <= most || !fs::is_regular_file(entry.path() / "MANIFEST.json", error)) continue;
    most = *step;
    newest = entry.path();
  }
  return newest;
}

}  // namespace bulkhead
