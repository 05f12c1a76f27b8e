// Text that a plugin made, fit for the wire: other processes print it, put it
// into JSON and limit its length.  Pure; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace bulkhead {

inline constexpr std::size_t kMaxPluginText = std::size_t{64} << 10;  // messages, notes, reasons
inline constexpr std::size_t kMaxPluginName = 256;                    // of a tensor or metric

// `text` cut to at most `limit` bytes, every byte sequence that is not UTF-8
// replaced by U+FFFD.
std::string clean_text(std::string_view text, std::size_t limit = kMaxPluginText);

}  // namespace bulkhead
