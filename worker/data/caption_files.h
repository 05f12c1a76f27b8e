// What lies in a folder of captioned pictures.  Reads names and texts, no
// pictures.  Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "protocol/result.h"

namespace bulkhead {

// The picture files in `folder` and the folders in it, by the byte order of
// their paths below it (captions.h has the rules).  Fails, beginning with
// data.path, where there is none, or a name is not UTF-8.
Result<std::vector<std::filesystem::path>> list_pictures(const std::filesystem::path& folder);

// The caption of that picture: the first line of the .txt of the same stem.
Result<std::string> read_caption(const std::filesystem::path& picture);

}  // namespace bulkhead
