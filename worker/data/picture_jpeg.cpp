// libjpeg reports errors by a function that must not return.  Ours jumps back
// into the method of Reader that called the library; only C frames lie between,
// and no object with a destructor is made in those methods.
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdio>  // jpeglib.h needs it first
#include <jerror.h>
#include <jpeglib.h>

#include "data/picture.h"

namespace bulkhead {
namespace {

// Warnings after which a part of the picture is made up.
constexpr std::array kLosses = {JWRN_JPEG_EOF, JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_MUST_RESYNC};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {
    info_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = leave;
    errors_.manager.emit_message = judge;
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { jpeg_destroy_decompress(&info_); }

  bool read_header() {
    if (setjmp(errors_.escape) != 0) return false;
    jpeg_create_decompress(&info_);
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  // Four channels a pixel instead of three; known once the header is read.
  bool is_cmyk() const { return info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK; }
  // Adobe's programs write CMYK with 255 for "no ink".
  bool is_inverted() const { return info_.saw_Adobe_marker != FALSE; }
  std::int64_t height() const { return info_.image_height; }
  std::int64_t width() const { return info_.image_width; }

  // `out` holds height × width × channels bytes.
  bool read_pixels(std::uint8_t* out) {
    if (setjmp(errors_.escape) != 0) return false;
    info_.out_color_space = is_cmyk() ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&info_);
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW row = out + std::size_t{info_.output_scanline} * info_.output_width *
                               static_cast<std::size_t>(info_.output_components);
      jpeg_read_scanlines(&info_, &row, 1);
    }
    jpeg_finish_decompress(&info_);
    return true;
  }

  // What the library said last.
  Error error() {
    std::array<char, JMSG_LENGTH_MAX> text{};
    errors_.manager.format_message(reinterpret_cast<j_common_ptr>(&info_), text.data());
    return {ErrorCode::kMalformed, std::string("is not a whole JPEG picture: ") + text.data()};
  }

 private:
  struct Errors {
    jpeg_error_mgr manager;  // first: the library only knows this part
    std::jmp_buf escape;
  };

  [[noreturn]] static void leave(j_common_ptr info) {
    std::longjmp(reinterpret_cast<Errors*>(info->err)->escape, 1);
  }

  static void judge(j_common_ptr info, int level) {
    if (level >= 0) return;  // a trace of what it does
    for (const int loss : kLosses) {
      if (info->err->msg_code == loss) leave(info);
    }
  }

  std::string_view bytes_;
  Errors errors_{};
  jpeg_decompress_struct info_{};
};

// In place of an ink profile: what the black leaves of the light that the
// colour leaves.
std::vector<std::uint8_t> rgb_of_cmyk(const std::vector<std::uint8_t>& cmyk, bool inverted) {
  std::vector<std::uint8_t> rgb(cmyk.size() / 4 * 3);
  const auto light = [inverted](std::uint8_t ink) { return inverted ? ink : 255 - ink; };
  for (std::size_t pixel = 0; pixel < cmyk.size() / 4; ++pixel) {
    const int black = light(cmyk[4 * pixel + 3]);
    for (std::size_t c = 0; c < 3; ++c) {
      rgb[3 * pixel + c] = static_cast<std::uint8_t>((light(cmyk[4 * pixel + c]) * black + 127) / 255);
    }
  }
  return rgb;
}

}  // namespace

Result<Picture> decode_jpeg(std::string_view bytes) {
  Reader reader(bytes);
  if (!reader.read_header()) return reader.error();
  Picture picture{reader.height(), reader.width(), {}};
  if (auto size = check_picture_size(picture.height, picture.width); !size) return size.error();
  const std::int64_t channels = reader.is_cmyk() ? 4 : 3;
  picture.pixels.resize(static_cast<std::size_t>(picture.height * picture.width * channels));
  if (!reader.read_pixels(picture.pixels.data())) return reader.error();
  if (reader.is_cmyk()) picture.pixels = rgb_of_cmyk(picture.pixels, reader.is_inverted());
  return picture;
}

}  // namespace bulkhead
