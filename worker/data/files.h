// Whole files into memory, with errors that a person can act on.
//
// Refuses directories and unreadable files; reads nothing lazily.  Any thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/result.h"

namespace bulkhead {

// The bytes of a regular file.  `key` is the run file's key that named it and
// begins the error sentence.
Result<std::string> read_file(const std::filesystem::path& path, std::string_view key);

// The bytes of a gzip file (a plain one is taken as it is), at most
// `limit_bytes` of them.  A truncated or damaged file is an error.
Result<std::string> read_gzip(const std::filesystem::path& path, std::string_view key,
                              std::size_t limit_bytes);

// Offset of the first byte that is not UTF-8 (RFC 3629: no overlong forms, no
// surrogates), if any.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

// Bytes in the sequence that begins with `lead`, in text known to be UTF-8.
std::size_t utf8_length(char lead);

}  // namespace bulkhead
