// Known answers were computed with numpy 2: numpy.random.Philox(key=[a, b]).random_raw(9),
// Generator.random(3), and sha256(msgpack.packb([…])).  numpy's own generator agrees with Random123's
// kat_vectors.
#include "protocol/rng.h"

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(Philox, GivesTheRawOutputsOfNumpy) {
  const std::vector<std::pair<Philox::Key, std::array<std::uint64_t, 9>>> known = {
      {{0, 0},
       {0x02f4ba6408e4d89b, 0x3dd62b0b9ca8c5b2, 0x1c8667a55d902e79, 0x907d7a052fd5b4dc, 0x809bf322883987c3,
        0x471128b9e807f7dd, 0xf250ba0dbec065b7, 0xfc6ed66767a457bc, 0x40fa86f0f781945d}},
      {{1, 2},
       {0x4f2f4313b5536b09, 0x5b617be3219ff32a, 0x097293476f9275cb, 0xf63f3bf4962c3942, 0x04dcc60473aa0f43,
        0x6d905c9b986b0028, 0x559a6c953d16fe9d, 0xbd24fd1da9945eea, 0xa3484ceef3376fef}},
      {{0x123456789abcdef0, 0xfedcba9876543210},
       {0x8bc901e53fb86a49, 0x6dbb2b5e6a3a2cdd, 0x19dc5fbadf53af97, 0x5110f61587fd69e6, 0x524a19fa5390f347,
        0x9465b1d981f58eff, 0xa56e044e44149c58, 0x179815a59198306b, 0x44cdb8e12a78b146}},
      {{~std::uint64_t{0}, ~std::uint64_t{0}},
       {0x6d46cc0e71f0be7e, 0x924ea1693f9a8bc0, 0xfdc35f0198c91181, 0xb4a311f17aa6568d, 0x67e12c1eff8de57e,
        0x6877618422b87b0e, 0x0b6af2bc95a81510, 0x941b27e5d2440b04, 0x1e9fe961fae988ca}},
  };
  for (const auto& [key, outputs] : known) {
    Philox rng(key);
    for (const std::uint64_t expected : outputs) EXPECT_EQ(rng.next(), expected) << key[0];
  }
}

TEST(Philox, GivesTheUniformNumbersOfNumpy) {
  Philox rng({1, 2});
  for (const double expected : {0.30931491118583454, 0.3569562367935075, 0.036904530468356844}) {
    EXPECT_EQ(rng.uniform(), expected);
  }
}

TEST(Philox, DrawsBelowItsBoundAndReachesEveryValue) {
  Philox rng({3, 4});
  std::array<int, 7> counts{};
  for (int i = 0; i < 7000; ++i) {
    const std::uint64_t draw = rng.below(7);
    ASSERT_LT(draw, 7u);
    ++counts[draw];
  }
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
  EXPECT_EQ(rng.below(1), 0u);
  for (int i = 0; i < 100; ++i)
    EXPECT_LT(rng.below((std::uint64_t{1} << 63) + 1), (std::uint64_t{1} << 63) + 1);
}

TEST(CallKey, IsTheHashOfItsFields) {
  EXPECT_EQ(call_key(1, "early", 0, "on_step_end", 40, 0),
            (Philox::Key{0xe70507f61edefcc0, 0x2d0b27d0246c10c9}));
  EXPECT_EQ(call_key(-7, "n\u00e4her", 3, "transform_train_batch", 10'000'000'000, 2),
            (Philox::Key{0x78b0aef3263db00c, 0xce8e3c0a431a7cb2}));
}

TEST(CallKey, DependsOnEachField) {
  const Philox::Key key = call_key(1, "p", 0, "h", 2, 3);
  EXPECT_NE(call_key(2, "p", 0, "h", 2, 3), key);
  EXPECT_NE(call_key(1, "q", 0, "h", 2, 3), key);
  EXPECT_NE(call_key(1, "p", 1, "h", 2, 3), key);
  EXPECT_NE(call_key(1, "p", 0, "g", 2, 3), key);
  EXPECT_NE(call_key(1, "p", 0, "h", 3, 2), key);
  EXPECT_NE(call_key(1, "p", 0, "h", 2, 4), key);
}

// sha256(msgpack.packb([1, "flip", "transform_image", 0, 0])).digest()[:16], as two little-endian words; the
// second one of [-7, "näher", "transform_caption", 3, 10_000_000_000].
TEST(SampleKey, IsTheHashOfItsFields) {
  EXPECT_EQ(sample_key(1, "flip", "transform_image", 0, 0),
            (Philox::Key{0xdcee860a2be6c42c, 0x16af2f1b8afa1d5b}));
  EXPECT_EQ(sample_key(-7, "n\u00e4her", "transform_caption", 3, 10'000'000'000),
            (Philox::Key{0xaa224233fa11a6a9, 0x52bf2c1cdc595d71}));
}

TEST(SampleKey, DependsOnEachField) {
  const Philox::Key key = sample_key(1, "p", "h", 2, 3);
  EXPECT_NE(sample_key(2, "p", "h", 2, 3), key);
  EXPECT_NE(sample_key(1, "q", "h", 2, 3), key);
  EXPECT_NE(sample_key(1, "p", "g", 2, 3), key);
  EXPECT_NE(sample_key(1, "p", "h", 3, 2), key);
  EXPECT_NE(sample_key(1, "p", "h", 2, 4), key);
}

TEST(StreamKey, IsTheHashOfItsFields) {
  const std::array<std::int64_t, 1> epoch{5};
  EXPECT_EQ(stream_key(1, "sampler", epoch), (Philox::Key{0xc9c7271dfb64705f, 0x0b1451acce93f45d}));
  EXPECT_EQ(stream_key(1, "init", {}), (Philox::Key{0xfe3d2c3d1296cf65, 0xd9f889d4b5993e2a}));
}

}  // namespace
}  // namespace bulkhead
