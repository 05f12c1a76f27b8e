// Scaling of pictures whose scaled pixels can be computed by hand.
#include "data/resample.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using Bytes = std::vector<std::uint8_t>;

// Grey levels as an RGB picture.
Picture grey(std::int64_t height, std::int64_t width, const Bytes& levels) {
  Picture picture{height, width, {}};
  for (const std::uint8_t level : levels) picture.pixels.insert(picture.pixels.end(), 3, level);
  return picture;
}

// The grey levels of the scaled square, whose channels must be equal.
Bytes scaled(const Picture& picture, std::int64_t side) {
  const Bytes square = square_of(picture, side);
  EXPECT_EQ(static_cast<std::int64_t>(square.size()), side * side * 3);
  Bytes levels;
  for (std::size_t i = 0; i < square.size(); i += 3) {
    EXPECT_EQ(square[i], square[i + 1]);
    EXPECT_EQ(square[i], square[i + 2]);
    levels.push_back(square[i]);
  }
  return levels;
}

TEST(Resample, AveragesTheAreaWhenShrinking) {
  const Picture gradient = grey(4, 4,
                                {0, 10, 20, 30,     //
                                 40, 50, 60, 70,    //
                                 80, 90, 100, 110,  //
                                 120, 130, 140, 150});
  EXPECT_EQ(scaled(gradient, 2), (Bytes{25, 45, 105, 125}));
  EXPECT_EQ(scaled(gradient, 1), (Bytes{75}));
}

TEST(Resample, CountsAPixelThatLiesInTwoForItsPartInEach) {
  const Picture rows = grey(3, 3, {0, 0, 0, 90, 90, 90, 180, 180, 180});
  EXPECT_EQ(scaled(rows, 2), (Bytes{30, 30, 150, 150}));
}

TEST(Resample, IsBilinearBetweenCentresWhenGrowing) {
  const Picture columns = grey(2, 2, {0, 100, 0, 100});
  EXPECT_EQ(scaled(columns, 4), (Bytes{0, 25, 75, 100, 0, 25, 75, 100, 0, 25, 75, 100, 0, 25, 75, 100}));
  EXPECT_EQ(scaled(grey(1, 1, {9}), 3), Bytes(9, 9));
}

TEST(Resample, KeepsTheCentreOfALongPicture) {
  EXPECT_EQ(scaled(grey(2, 5, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}), 2), (Bytes{2, 3, 7, 8}));
  EXPECT_EQ(scaled(grey(4, 2, {1, 2, 3, 4, 5, 6, 7, 8}), 2), (Bytes{3, 4, 5, 6}));
}

TEST(Resample, KeepsChannelsApart) {
  const Picture picture{2, 2, {0, 100, 200, 10, 110, 210, 20, 120, 220, 30, 130, 230}};
  EXPECT_EQ(square_of(picture, 1), (Bytes{15, 115, 215}));
}

TEST(Resample, LeavesAPlainPicturePlainAtEverySize) {
  for (const std::uint8_t level : Bytes{1, 128, 255}) {
    const Picture picture = grey(37, 41, Bytes(37 * 41, level));
    for (std::int64_t side = 1; side <= 80; ++side) {
      ASSERT_EQ(scaled(picture, side), Bytes(static_cast<std::size_t>(side * side), level)) << side;
    }
  }
}

TEST(Resample, CopiesASquareOfTheRightSize) {
  const Bytes levels = {5, 9, 200, 31, 7, 64, 0, 255, 18};
  EXPECT_EQ(scaled(grey(3, 3, levels), 3), levels);
}

}  // namespace
}  // namespace bulkhead
