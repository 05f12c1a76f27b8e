// Every form of the two picture formats, and files damaged in every byte.
#include "data/picture.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "support/pictures.h"

namespace bulkhead {
namespace {

Picture decoded(const std::string& file) {
  auto picture = decode_picture(file);
  CHECK(picture.ok(), picture.error().message);
  return std::move(*picture);
}

std::string failure(const std::string& file) {
  const auto picture = decode_picture(file);
  return picture ? "" : picture.error().message;
}

// A picture with something in every channel, so that no damage goes unseen.
Bytes colours(std::size_t pixels) {
  Bytes bytes;
  for (std::size_t i = 0; i < 3 * pixels; ++i) bytes.push_back(static_cast<std::uint8_t>(i * 37 + i / 7));
  return bytes;
}

void expect_near(const Bytes& actual, const Bytes& expected, int tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], tolerance) << i;
}

TEST(Png, GivesItsColoursRowByRow) {
  const Bytes pixels = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
  const Picture picture = decoded(png_file(2, 3, pixels));
  EXPECT_EQ(picture.height, 2);
  EXPECT_EQ(picture.width, 3);
  EXPECT_EQ(picture.pixels, pixels);
}

TEST(Png, RepeatsGreyOfOneAndOfEightBits) {
  EXPECT_EQ(decoded(png_file(1, 2, {7, 200}, {PNG_COLOR_TYPE_GRAY})).pixels, (Bytes{7, 7, 7, 200, 200, 200}));
  EXPECT_EQ(decoded(png_file(1, 2, {0x40}, {PNG_COLOR_TYPE_GRAY, 1})).pixels,
            (Bytes{0, 0, 0, 255, 255, 255}));
}

TEST(Png, LaysTransparencyOverWhite) {
  const Bytes pixels = {10, 20, 30, 255, 10, 20, 30, 0, 0, 100, 255, 51};
  EXPECT_EQ(decoded(png_file(1, 3, pixels, {PNG_COLOR_TYPE_RGBA})).pixels,
            (Bytes{10, 20, 30, 255, 255, 255, 204, 224, 255}));
  EXPECT_EQ(decoded(png_file(1, 2, {0, 128, 0, 255}, {PNG_COLOR_TYPE_GRAY_ALPHA})).pixels,
            (Bytes{127, 127, 127, 0, 0, 0}));
}

TEST(Png, LooksColoursUpInAPaletteWithHoles) {
  const PngForm form{PNG_COLOR_TYPE_PALETTE, 8, {{1, 2, 3}, {4, 5, 6}}, {255, 0}};
  EXPECT_EQ(decoded(png_file(1, 2, {0, 1}, form)).pixels, (Bytes{1, 2, 3, 255, 255, 255}));
}

TEST(Png, RoundsSixteenBitsToEight) {
  const Bytes pixels = {0x40, 0x40, 0x80, 0x80, 0xFF, 0xFF};
  EXPECT_EQ(decoded(png_file(1, 1, pixels, {PNG_COLOR_TYPE_RGB, 16})).pixels, (Bytes{0x40, 0x80, 0xFF}));
}

TEST(Jpeg, GivesItsColours) {
  for (const Bytes& colour : {Bytes{200, 30, 60}, Bytes{0, 255, 0}, Bytes{12, 34, 230}}) {
    const Picture picture = decoded(jpeg_file(8, 16, plain(128, colour)));
    EXPECT_EQ(picture.height, 8);
    EXPECT_EQ(picture.width, 16);
    expect_near(picture.pixels, plain(128, colour), 2);
  }
}

TEST(Jpeg, RepeatsGrey) {
  const Picture picture = decoded(jpeg_file(8, 8, Bytes(64, 77), JCS_GRAYSCALE));
  expect_near(picture.pixels, plain(64, {77, 77, 77}), 1);
  EXPECT_EQ(picture.pixels[0], picture.pixels[1]);
}

TEST(Jpeg, MultipliesInksOutWhicheverWayTheyAreWritten) {
  // libjpeg writes the Adobe marker with CMYK, so 255 is "no ink".
  std::string file = jpeg_file(8, 8, plain(64, {255, 128, 0, 128}), JCS_CMYK);
  expect_near(decoded(file).pixels, plain(64, {128, 64, 0}), 2);
  // Without the marker 255 is all ink.
  const auto marker = file.find("Adobe");
  ASSERT_NE(marker, std::string::npos);
  file[marker] = 'a';
  expect_near(decoded(file).pixels, plain(64, {0, 63, 127}), 2);
}

TEST(Picture, IsKnownByItsBytesAndNotByItsName) {
  EXPECT_EQ(failure("GIF89a..."), "is neither a JPEG nor a PNG picture");
  EXPECT_EQ(failure(""), "is empty");
}

TEST(Picture, IsRefusedWhereverItIsCutShort) {
  const auto expect_refused_below = [](std::size_t whole, const std::string& file) {
    ASSERT_EQ(failure(file), "");
    for (std::size_t length = 0; length < whole; ++length) {
      EXPECT_NE(failure(file.substr(0, length)), "") << length << " of " << file.size();
    }
  };
  const std::string png = png_file(5, 4, colours(20));
  constexpr std::size_t kEndChunk = 12;  // behind all pixels and their checksum
  expect_refused_below(png.size() - kEndChunk, png);
  const std::string jpeg = jpeg_file(16, 24, colours(384));
  expect_refused_below(jpeg.size(), jpeg);
}

TEST(Picture, IsReadOrRefusedWhicheverByteIsDamaged) {
  for (const std::string& file : {png_file(5, 4, colours(20)), jpeg_file(16, 24, colours(384))}) {
    std::size_t refused = 0;
    for (std::size_t at = 0; at < file.size(); ++at) {
      std::string damaged = file;
      damaged[at] = static_cast<char>(damaged[at] ^ 0xFF);
      const auto picture = decode_picture(damaged);
      if (!picture) ++refused;
      if (picture) {
        EXPECT_EQ(static_cast<std::int64_t>(picture->pixels.size()), picture->height * picture->width * 3);
      }
    }
    EXPECT_GT(refused, file.size() / 20);
  }
}

TEST(Picture, SaysWhatTheLibrarySays) {
  const std::string png = png_file(5, 4, colours(20));
  EXPECT_TRUE(failure(png.substr(0, png.size() / 2)).starts_with("is not a whole PNG picture: "));
  const std::string jpeg = jpeg_file(16, 24, colours(384));
  EXPECT_EQ(failure(jpeg.substr(0, jpeg.size() - 2)),
            "is not a whole JPEG picture: Premature end of JPEG file");
}

TEST(Picture, IsRefusedAboveSixtyFourMillionPixels) {
  const Bytes black(1001 * 8000);
  EXPECT_EQ(failure(png_file(8000, 8001, black, {PNG_COLOR_TYPE_GRAY, 1})),
            "has 8001×8000 pixels; at most 64 million are read");
  std::string jpeg = jpeg_file(8, 8, plain(64, {1, 2, 3}));
  const auto frame = jpeg.find("\xFF\xC0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\xFF\xDC\xFF\xDC");
  EXPECT_EQ(failure(jpeg), "has 65500×65500 pixels; at most 64 million are read");
}

TEST(Picture, SizesOfNothingAndOfTheLimitAreTold) {
  EXPECT_TRUE(check_picture_size(8000, 8000));
  EXPECT_FALSE(check_picture_size(8000, 8001));
  EXPECT_FALSE(check_picture_size(0, 5));
  EXPECT_FALSE(check_picture_size(std::int64_t{1} << 40, std::int64_t{1} << 40));
}

TEST(Picture, OfTheAstronautIsAsPillowReadsIt) {
  std::ostringstream bytes;
  bytes << std::ifstream(BULKHEAD_TEST_DATA "/captions/astronaut.jpg", std::ios::binary).rdbuf();
  const Picture picture = decoded(bytes.str());
  EXPECT_EQ(picture.height, 256);
  EXPECT_EQ(picture.width, 256);
  const auto pixel = [&](std::size_t y, std::size_t x) {
    const auto first = picture.pixels.begin() + static_cast<std::ptrdiff_t>((y * 256 + x) * 3);
    return Bytes(first, first + 3);
  };
  expect_near(pixel(0, 0), Bytes{147, 136, 152}, 1);
  expect_near(pixel(128, 100), Bytes{189, 180, 183}, 1);
}

}  // namespace
}  // namespace bulkhead
