#include "suggestion.h"

#include <algorithm>

#include "protocol/hooks.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMostListed = 8;
constexpr std::size_t kMostEntriesRead = 4096;

std::vector<std::string> entries_of(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with('.')) names.push_back(name);
    if (names.size() == kMostEntriesRead) break;
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::string did_you_mean(std::string_view wrong, const std::vector<std::string>& known,
                         std::string_view what) {
  const std::string nearest = nearest_name(wrong, known);
  if (!nearest.empty()) return "; did you mean \"" + nearest + "\"?";
  if (known.empty()) return "";
  const std::size_t shown = std::min(known.size(), kMostListed);
  std::vector<std::string> listed(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(shown));
  if (shown < known.size()) listed.push_back("…");
  return "; " + std::string(what) + ": " + join(listed);
}

std::string missing_path(const std::filesystem::path& path) {
  const bool is_plain = path.has_filename();
  std::filesystem::path missing = is_plain ? path : path.parent_path();
  std::error_code error;
  while (missing.has_relative_path() && !std::filesystem::exists(missing.parent_path(), error)) {
    missing = missing.parent_path();
  }
  const auto entries = entries_of(missing.parent_path());
  const std::string hint = did_you_mean(missing.filename().string(), entries, "that folder holds");
  const std::string sentence = path.string() + " does not exist";
  if (missing == path || !is_plain) return sentence + hint;
  return sentence + " (there is no " + missing.string() + ")" + hint;
}

std::string join(const std::vector<std::string>& names, std::string_view separator) {
  std::string text;
  for (const std::string& name : names) {
    if (!text.empty()) text += separator;
    text += name;
  }
  return text;
}

std::string one_of(const std::vector<std::string>& names) {
  if (names.size() < 2) return join(names);
  return join({names.begin(), names.end() - 1}) + " or " + names.back();
}

}  // namespace bulkhead
