// Files of pictures, made in memory from known pixels.
#pragma once

#include <cstdint>
#include <cstdio>  // jpeglib.h needs it first
#include <cstdlib>
#include <jpeglib.h>
#include <png.h>
#include <string>
#include <vector>

#include "protocol/result.h"

namespace bulkhead {

using Bytes = std::vector<std::uint8_t>;

struct PngForm {
  int color_type = PNG_COLOR_TYPE_RGB;
  int bit_depth = 8;
  std::vector<png_color> palette = {};
  Bytes palette_alpha = {};
};

// `rows` is what the form says, each row in whole bytes, 16 bits big-endian.
inline std::string png_file(std::uint32_t height, std::uint32_t width, Bytes rows, const PngForm& form = {}) {
  std::string file;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  const auto append = [](png_structp writer, png_bytep data, std::size_t size) {
    static_cast<std::string*>(png_get_io_ptr(writer))->append(reinterpret_cast<char*>(data), size);
  };
  png_set_write_fn(png, &file, append, nullptr);
  png_set_IHDR(png, info, width, height, form.bit_depth, form.color_type, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!form.palette.empty())
    png_set_PLTE(png, info, form.palette.data(), static_cast<int>(form.palette.size()));
  if (!form.palette_alpha.empty()) {
    png_set_tRNS(png, info, form.palette_alpha.data(), static_cast<int>(form.palette_alpha.size()), nullptr);
  }
  png_write_info(png, info);
  const std::size_t stride = png_get_rowbytes(png, info);
  CHECK(rows.size() == stride * height);
  for (std::uint32_t y = 0; y < height; ++y) png_write_row(png, rows.data() + y * stride);
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

// Baseline, quality 100; `pixels` has 1, 3 or 4 channels as the space says.
inline std::string jpeg_file(std::uint32_t height, std::uint32_t width, Bytes pixels,
                             J_COLOR_SPACE space = JCS_RGB) {
  const int channels = space == JCS_GRAYSCALE ? 1 : space == JCS_CMYK ? 4 : 3;
  CHECK(pixels.size() == std::size_t{height} * width * static_cast<std::size_t>(channels));
  jpeg_error_mgr errors{};
  jpeg_compress_struct writer{};
  writer.err = jpeg_std_error(&errors);
  jpeg_create_compress(&writer);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&writer, &memory, &size);
  writer.image_height = height;
  writer.image_width = width;
  writer.input_components = channels;
  writer.in_color_space = space;
  jpeg_set_defaults(&writer);
  jpeg_set_quality(&writer, 100, TRUE);
  jpeg_start_compress(&writer, TRUE);
  while (writer.next_scanline < height) {
    JSAMPROW row =
        pixels.data() + std::size_t{writer.next_scanline} * width * static_cast<std::size_t>(channels);
    jpeg_write_scanlines(&writer, &row, 1);
  }
  jpeg_finish_compress(&writer);
  std::string file(reinterpret_cast<char*>(memory), size);
  jpeg_destroy_compress(&writer);
  std::free(memory);
  return file;
}

// `count` pixels of one colour.
inline Bytes plain(std::size_t count, const Bytes& colour) {
  Bytes pixels;
  for (std::size_t i = 0; i < count; ++i) pixels.insert(pixels.end(), colour.begin(), colour.end());
  return pixels;
}

}  // namespace bulkhead
