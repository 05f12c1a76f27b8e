#include "data/caption_files.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "data/captions.h"
#include "data/files.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKey = "data.path";
constexpr std::array<std::string_view, 3> kExtensions = {".jpg", ".jpeg", ".png"};

Error about(const fs::path& path, const std::string& what) {
  return {ErrorCode::kMalformed, std::string(kKey) + ": " + path.string() + " " + what};
}

// The name as it may stand in a message: what is not UTF-8 is replaced.
std::string quoted(const fs::path& path) {
  return nlohmann::json(path.string()).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

bool is_picture(const fs::path& path) {
  std::string extension = path.extension().string();
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::transform(extension.begin(), extension.end(), extension.begin(), lower);
  return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

Status check_folder(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status)) return about(folder, "does not exist");
  if (fs::is_directory(status)) return ok_status();
  return about(folder, "is a file; captions are a folder of pictures, each with a .txt of the same stem");
}

// All of them, in the order of the file system.
Result<std::vector<fs::path>> walk(const fs::path& folder) {
  std::vector<fs::path> pictures;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (is_hidden(entry->path())) {
      entry.disable_recursion_pending();
    } else if (std::error_code gone; is_picture(entry->path()) && entry->is_regular_file(gone)) {
      pictures.push_back(entry->path());
    }
  }
  if (error) return about(folder, "cannot be listed: " + error.message());
  return pictures;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

Result<std::vector<fs::path>> list_pictures(const fs::path& folder) {
  if (auto usable = check_folder(folder); !usable) return usable.error();
  auto pictures = walk(folder);
  if (!pictures) return pictures.error();
  if (pictures->empty()) return about(folder, "holds no .jpg, .jpeg or .png");
  // All begin with the folder, so this is the order of the paths below it.
  std::sort(pictures->begin(), pictures->end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  for (const fs::path& picture : *pictures) {
    if (!first_invalid_utf8(picture.native())) continue;
    return Error{ErrorCode::kMalformed,
                 std::string(kKey) + ": the file name " + quoted(picture) + " is not UTF-8"};
  }
  return pictures;
}

Result<std::string> read_caption(const fs::path& picture) {
  fs::path file = picture;
  file.replace_extension(".txt");
  std::error_code error;
  if (!fs::exists(file, error)) {
    return about(picture, "has no caption: there is no " + file.filename().string() + " beside it");
  }
  const auto text = read_file(file, kKey);
  if (!text) return text.error();
  std::string_view line = *text;
  if (line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  line = trimmed(line.substr(0, line.find('\n')));
  if (const auto bad = first_invalid_utf8(line)) {
    const auto at = static_cast<std::size_t>(line.data() - text->data()) + *bad;
    return about(file, "is not UTF-8 text at byte " + std::to_string(at));
  }
  if (line.size() > kMaxCaptionBytes) {
    return about(file, "has a first line of " + std::to_string(line.size()) +
                           " bytes; a caption has at most " + std::to_string(kMaxCaptionBytes));
  }
  return std::string(line);
}

}  // namespace bulkhead
