// The ends of sentences that refuse a key, a flag, a file or a plugin: the name
// that was probably meant, or what there is to choose from.
//
// Pure, except missing_path, which lists one folder.  Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead {

// `; did you mean "width"?`, or without a near name `; WHAT: a, b, c` (at most
// eight of them), or nothing where none is known.
std::string did_you_mean(std::string_view wrong, const std::vector<std::string>& known,
                         std::string_view what);

// `PATH does not exist; did you mean "input.txt"?`, naming the first part of the
// path that is missing and what lies in the folder where it was looked for.
std::string missing_path(const std::filesystem::path& path);

// "a, b, c" and "a, b or c".
std::string join(const std::vector<std::string>& names, std::string_view separator = ", ");
std::string one_of(const std::vector<std::string>& names);

}  // namespace bulkhead
