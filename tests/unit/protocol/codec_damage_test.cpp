// Damaged messages: cut anywhere, bits flipped anywhere.  Each is either
// refused or still a message; nothing throws, and the sanitizers watch.
#include <chrono>
#include <cstdint>
#include <iostream>
#include <string>

#include <gtest/gtest.h>

#include "protocol/codec.h"
#include "protocol/rng.h"
#include "support/sample_messages.h"

namespace bulkhead {
namespace {

Frames with(const Frames& frames, std::size_t index, std::string bytes) {
  Frames changed = frames;
  changed[index] = Blob::of(std::move(bytes));
  return changed;
}

TEST(CodecDamage, RefusesAnEnvelopeCutAtAnyByte) {
  for (const Message& message : all_samples()) {
    const Frames frames = encode(message);
    const std::string whole(frames[0].text());
    for (std::size_t size = 0; size < whole.size(); ++size) {
      ASSERT_FALSE(decode(with(frames, 0, whole.substr(0, size))).ok())
          << type_of(message) << " cut at " << size;
    }
  }
}

TEST(CodecDamage, RefusesAMessageThatLacksFramesOrBytesOfThem) {
  const Frames frames = encode(sample<Call>());
  ASSERT_GT(frames.size(), 3u);
  for (std::size_t count = 0; count < frames.size(); ++count) {
    EXPECT_FALSE(decode(Frames(frames.begin(), frames.begin() + static_cast<std::ptrdiff_t>(count))).ok())
        << count;
  }
  for (std::size_t i = 1; i < frames.size(); ++i) {
    for (std::size_t size = 0; size < frames[i].size; ++size) {
      EXPECT_FALSE(decode(with(frames, i, std::string(frames[i].text().substr(0, size)))).ok())
          << i << " " << size;
    }
  }
}

TEST(CodecDamage, SurvivesFlippedBits) {
  const auto seed = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  std::cout << "seed " << seed << "\n";
  Philox rng({seed, 0});
  std::size_t refused = 0;
  for (const Message& message : all_samples()) {
    const Frames frames = encode(message);
    const std::string whole(frames[0].text());
    for (int round = 0; round < 2000; ++round) {
      std::string bytes = whole;
      for (std::uint64_t flips = 1 + rng.below(4); flips > 0; --flips) {
        bytes[rng.below(bytes.size())] ^= static_cast<char>(1u << rng.below(8));
      }
      const Result<Message> decoded = decode(with(frames, 0, std::move(bytes)));
      if (decoded) continue;
      ++refused;
      EXPECT_EQ(decoded.error().code, ErrorCode::kMalformed);
    }
  }
  EXPECT_GT(refused, 1000u);  // the damage is real
}

TEST(CodecDamage, SurvivesNoise) {
  Philox rng({20240101, 0});
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(1 + rng.below(200), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
    EXPECT_FALSE(decode({Blob::of(std::move(bytes))}).ok());
  }
}

}  // namespace
}  // namespace bulkhead
