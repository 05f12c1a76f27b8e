// A picture from the bytes of a file: JPEG (libjpeg-turbo) or PNG (libpng),
// told apart by their first bytes and not by their names.
//
// Everything becomes 8-bit RGB: grey is repeated, a palette looked up, 16 bits
// cut to 8, CMYK multiplied out, transparency laid over white.  The orientation
// that EXIF states and colour profiles are ignored.  No file is read here and
// no error leaves as an exception or a jump.  Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/result.h"

namespace bulkhead {

struct Picture {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<std::uint8_t> pixels;  // height × width × 3, row by row, red first
};

// A larger picture is refused before memory is taken for it.
inline constexpr std::int64_t kMaxPixels = 64'000'000;

// Errors go on from the file's name: "is not a whole PNG picture: …".  A file
// cut short or damaged is an error, never a partly grey picture.
Result<Picture> decode_picture(std::string_view bytes);

// The two formats.  Each in the file that alone knows its library.
Result<Picture> decode_jpeg(std::string_view bytes);
Result<Picture> decode_png(std::string_view bytes);

// Fails where a picture of that size has no pixels or more than kMaxPixels.
Status check_picture_size(std::int64_t height, std::int64_t width);

}  // namespace bulkhead
