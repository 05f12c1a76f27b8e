#include "clean_text.h"

#include <algorithm>
#include <cstdint>

namespace bulkhead {
namespace {

// The length of the UTF-8 sequence that `text` begins with; 0 when it is none
// (RFC 3629: overlong forms, surrogates and values above U+10FFFF are none).
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  if (byte(0) < 0x80) return 1;
  const std::size_t length = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool wrong = (byte(0) == 0xe0 && byte(1) < 0xa0) || (byte(0) == 0xed && byte(1) > 0x9f) ||
                     (byte(0) == 0xf0 && byte(1) < 0x90) || (byte(0) == 0xf4 && byte(1) > 0x8f);
  return wrong ? 0 : length;
}

}  // namespace

std::string clean_text(std::string_view text, std::size_t limit) {
  constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  std::string clean;
  clean.reserve(std::min(text.size(), limit));
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    const std::string_view next = length == 0 ? kReplacement : text.substr(0, length);
    if (clean.size() + next.size() > limit) break;
    clean += next;
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return clean;
}

}  // namespace bulkhead
