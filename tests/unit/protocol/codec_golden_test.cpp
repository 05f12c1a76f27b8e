// The bytes of each message type, pinned.  BULKHEAD_WRITE_GOLDEN=1 writes the
// files anew instead (golden/README.md).
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "protocol/codec.h"
#include "support/golden_file.h"
#include "support/sample_messages.h"

namespace bulkhead {
namespace {

const std::filesystem::path kGolden = BULKHEAD_SOURCE_DIR "/tests/unit/protocol/golden";

std::filesystem::path path_of(const Message& message) {
  return kGolden / (std::string(type_of(message)) + ".hex");
}

std::string golden_text(const Message& message) {
  return to_golden(std::string(type_of(message)) + ", every field set", encode(message));
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(CodecGolden, EncodesEachMessageToTheRecordedBytes) {
  const bool write = std::getenv("BULKHEAD_WRITE_GOLDEN") != nullptr;
  for (const Message& message : all_samples()) {
    if (write) std::ofstream(path_of(message)) << golden_text(message);
    EXPECT_EQ(golden_text(message), read_file(path_of(message))) << path_of(message);
  }
}

TEST(CodecGolden, DecodesTheRecordedBytesToEachMessage) {
  for (const Message& message : all_samples()) {
    const Result<Message> decoded = decode(from_golden(path_of(message)));
    ASSERT_TRUE(decoded.ok()) << path_of(message) << ": " << decoded.error().message;
    EXPECT_EQ(text_of(*decoded), text_of(message));
  }
}

TEST(CodecGolden, HasOneFileForEachTypeAndNoOther) {
  std::set<std::string> expected;
  for (const Message& message : all_samples()) expected.insert(path_of(message).filename().string());
  std::set<std::string> present;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    if (entry.path().extension() == ".hex") present.insert(entry.path().filename().string());
  }
  EXPECT_EQ(present, expected);
}

// A host in another language depends on each of these: spelled out by hand.
TEST(CodecGolden, WritesAHeartbeatAsTheSpecificationSays) {
  const Frames frames = encode(Heartbeat{.generation = Generation(3), .step = 300});
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].text(),
            std::string_view("\x83\xa4type\xa9heartbeat\xaageneration\x03\xa4step\xcd\x01\x2c"));
}

}  // namespace
}  // namespace bulkhead
