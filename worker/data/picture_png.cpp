// libpng's simplified interface: it reports errors by return values, and reads
// every kind of PNG as 8-bit RGBA.
#include <cstddef>
#include <memory>
#include <png.h>

#include "data/picture.h"

namespace bulkhead {
namespace {

struct Free {
  void operator()(png_image* image) const { png_image_free(image); }
};

Error malformed(const png_image& image) {
  return {ErrorCode::kMalformed, std::string("is not a whole PNG picture: ") + image.message};
}

// Over white, in the encoded values, as browsers and PIL do.
std::vector<std::uint8_t> over_white(const std::vector<std::uint8_t>& rgba) {
  std::vector<std::uint8_t> rgb(rgba.size() / 4 * 3);
  for (std::size_t pixel = 0; pixel < rgba.size() / 4; ++pixel) {
    const int alpha = rgba[4 * pixel + 3];
    for (std::size_t c = 0; c < 3; ++c) {
      rgb[3 * pixel + c] =
          static_cast<std::uint8_t>((rgba[4 * pixel + c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  return rgb;
}

}  // namespace

Result<Picture> decode_png(std::string_view bytes) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, Free> release(&image);
  if (png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()) == 0) return malformed(image);
  if (auto size = check_picture_size(image.height, image.width); !size) return size.error();
  image.format = PNG_FORMAT_RGBA;
  image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;  // 16 bits are encoded like 8, as all programs write them
  std::vector<std::uint8_t> rgba(PNG_IMAGE_SIZE(image));
  if (png_image_finish_read(&image, nullptr, rgba.data(), 0, nullptr) == 0) return malformed(image);
  return Picture{image.height, image.width, over_white(rgba)};
}

}  // namespace bulkhead
