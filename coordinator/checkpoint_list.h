// Which checkpoints a run has, by their names and manifests alone: what the
// ranks start again from.  Their content is the worker's.
//
// Reads directories; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace bulkhead {

// The complete one of the most steps under a run's checkpoints/: a directory
// step-… that holds a MANIFEST.json.  One that is being written has a name
// that begins with a dot, and its manifest comes last.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& checkpoints);

// 100 of "…/step-00000100"; nothing for a directory of another name.
std::optional<std::int64_t> step_of_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace bulkhead
