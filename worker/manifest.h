// MANIFEST.json: what a checkpoint is and what it consists of.  It is written
// last, so a checkpoint that has one is complete; it carries its own hash, so
// one that was altered is noticed.
//
// Values and text only; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checked_file.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

inline constexpr const char* kManifestName = "MANIFEST.json";

struct Manifest {
  std::int64_t step = 0;           // optimizer steps completed
  std::int64_t epoch = 0;          // 0-based, of the next step
  std::int64_t step_in_epoch = 0;  // optimizer steps completed in it
  std::int64_t world_size = 1;

  // The trainer's own: schedule, settings, metrics, pending Controls, …
  // UTF-8 text and finite numbers only (JSON has no others).
  Value state = Value::object();

  std::vector<FileRecord> files = {};  // by name

  // The record of a file, or null.
  const FileRecord* find(std::string_view name) const;
};

// The text of a manifest; `files` may come in any order.  Fails (malformed) on
// a bad or doubled name, or where `state` is not UTF-8.
Result<std::string> encode_manifest(Manifest manifest);

// Reads what encode_manifest wrote.  Fails with a sentence that begins with
// `file` where the text is not a bulkhead manifest, is of a newer version, was
// altered, or names a file that could lie outside the checkpoint.
Result<Manifest> decode_manifest(std::string_view text, const std::string& file);

// Records as text, for gathering them from all ranks at rank 0.
std::string encode_records(const std::vector<FileRecord>& records);
Result<std::vector<FileRecord>> decode_records(std::string_view text);

}  // namespace bulkhead
