// The two ends of a ring over plain memory: no process, no descriptor.
#include "protocol/ring.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

// A segment that anybody may write, to lie in.
class Segment {
 public:
  explicit Segment(std::size_t ring_bytes)
      : memory_(
            static_cast<std::byte*>(::operator new (kRingHeaderBytes + ring_bytes, std::align_val_t{4096}))) {
    std::memset(memory_.get(), 0, kRingHeaderBytes + ring_bytes);
    begin_ring(memory_.get(), ring_bytes);
  }
  RingHeader& header() { return *reinterpret_cast<RingHeader*>(memory_.get()); }
  std::byte* bytes() { return memory_.get() + kRingHeaderBytes; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete (memory, std::align_val_t{4096}); }
  };
  std::unique_ptr<std::byte, Free> memory_;
};

// One direction: the sender's segment and the receiver's, whose ring is unused.
struct Ring {
  explicit Ring(std::size_t bytes = kMinRingBytes)
      : sender(bytes),
        receiver(kMinRingBytes),
        writer(sender.header()),
        reader(receiver.header(), sender.header(), bytes) {
    writer.attach(receiver.header());
  }
  // Begins at that place of the stream, as after so many bytes.
  void move_to(std::uint64_t place) {
    for (std::uint64_t at = 0; at < place; at += 8) pass({Blob::of(std::string())});
  }
  // Puts a message in and takes it out again, in as many goes as it needs.
  std::vector<std::string> pass(const Frames& frames) {
    Frames got;
    for (int i = 0; i < 100'000; ++i) {
      const auto progress = writer.write(frames);
      EXPECT_TRUE(progress.ok());
      if (!progress || take(got)) break;
      EXPECT_NE(*progress, RingWriter::Progress::kDone) << "a message is in the ring, but not found there";
      if (*progress == RingWriter::Progress::kDone) break;
    }
    std::vector<std::string> texts;
    for (const Blob& frame : got) texts.emplace_back(frame.text());
    return texts;
  }
  bool take(Frames& frames) {
    EXPECT_TRUE(reader.look().ok());
    const auto got = reader.next(frames);
    EXPECT_TRUE(got.ok());
    reader.give_back();
    return got && *got;
  }

  Segment sender, receiver;
  RingWriter writer;
  RingReader reader;
};

Frames frames_of(const std::vector<std::string>& texts) {
  Frames frames;
  for (const std::string& text : texts) frames.push_back(Blob::of(text));
  return frames;
}

std::string noise(std::mt19937_64& random, std::size_t size) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

TEST(Ring, IsAPowerOfTwoBetweenItsLimits) {
  for (const std::size_t bytes : {kMinRingBytes, std::size_t{1} << 20, kMaxRingBytes})
    EXPECT_TRUE(is_ring_size(bytes));
  for (const std::size_t bytes : {std::size_t{0}, kMinRingBytes / 2, kMinRingBytes + 1, 2 * kMaxRingBytes})
    EXPECT_FALSE(is_ring_size(bytes));
}

TEST(Ring, HasTheRecordsOfTheSpecification) {
  Ring ring;
  ASSERT_EQ(*ring.writer.write(frames_of({"abc", "", "12345678"})), RingWriter::Progress::kDone);
  const std::string expected("\3\0\0\0\3\0\0\0\0\0\0\0\x08\0\0\0abc12345678\0\0\0\0\0", 32);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(ring.sender.bytes()), 32), expected);
  EXPECT_EQ(ring.sender.header().head, 32u);
  EXPECT_EQ(std::string(ring.sender.header().magic, 8), "bulkring");
}

TEST(Ring, PassesMessagesAcrossItsEndAtEveryPlace) {
  for (std::uint64_t place = kMinRingBytes - 64; place <= kMinRingBytes; place += 8) {
    for (std::size_t size = 0; size <= 80; ++size) {
      Ring ring;
      ring.move_to(place);
      const std::vector<std::string> texts{std::string(size, 'a'), "b", "", std::string(size / 2, 'c')};
      ASSERT_EQ(ring.pass(frames_of(texts)), texts) << place << " " << size;
      ASSERT_EQ(ring.pass(frames_of({"next"})), std::vector<std::string>{"next"});
    }
  }
}

TEST(Ring, PassesMessagesThatFillItOrAreLarger) {
  std::mt19937_64 random(5);
  Ring ring;
  for (const std::size_t size : {kMinRingBytes - 8, kMinRingBytes - 7, kMinRingBytes, kMinRingBytes + 1,
                                 3 * kMinRingBytes, std::size_t{100'000}, kMaxFrameBytes}) {
    const std::vector<std::string> texts{noise(random, size), noise(random, 1)};
    ASSERT_TRUE(ring.pass(frames_of(texts)) == texts) << size;
  }
  const std::vector<std::string> many(10'000, "x");
  EXPECT_TRUE(ring.pass(frames_of(many)) == many);
}

TEST(Ring, SaysThatItIsFullAndTakesUpWhereItStopped) {
  Ring ring;
  std::size_t put = 0;
  while (*ring.writer.write(frames_of({"12345678"})) == RingWriter::Progress::kDone) ++put;
  EXPECT_EQ(put, kMinRingBytes / 16);
  EXPECT_EQ(*ring.writer.write(frames_of({"12345678"})), RingWriter::Progress::kFull);
  EXPECT_FALSE(*ring.writer.ask_for_space());
  Frames got;
  ASSERT_TRUE(*ring.reader.look());
  ASSERT_TRUE(*ring.reader.next(got));
  EXPECT_TRUE(ring.reader.give_back()) << "the writer waits for room";
  EXPECT_FALSE(ring.reader.give_back()) << "once is enough";
  EXPECT_EQ(*ring.writer.write(frames_of({"12345678"})), RingWriter::Progress::kDone);
  for (std::size_t i = 1; i < put + 1; ++i) {
    ASSERT_TRUE(ring.take(got)) << i;
    ASSERT_EQ(got[0].text(), "12345678");
  }
  EXPECT_FALSE(ring.take(got));
}

TEST(Ring, TellsWhoAsksForRoomThatHasComeMeanwhile) {
  Ring ring;
  while (*ring.writer.write(frames_of({"12345678"})) == RingWriter::Progress::kDone) {
  }
  Frames got;
  ASSERT_TRUE(ring.take(got));
  EXPECT_TRUE(*ring.writer.ask_for_space());
}

TEST(Ring, WakesASleeperOnceForEachSleep) {
  Ring ring;
  ASSERT_EQ(*ring.writer.write(frames_of({"1"})), RingWriter::Progress::kDone);
  EXPECT_FALSE(ring.writer.must_wake()) << "nobody sleeps";
  Frames got;
  ASSERT_TRUE(ring.take(got));
  EXPECT_FALSE(*ring.reader.fall_asleep());
  for (const bool first : {true, false}) {
    ASSERT_EQ(*ring.writer.write(frames_of({"2"})), RingWriter::Progress::kDone);
    EXPECT_EQ(ring.writer.must_wake(), first);
  }
  EXPECT_TRUE(*ring.reader.fall_asleep()) << "something came before it slept";
}

TEST(Ring, KeepsWhatWasPutInBeforeThePeerCame) {
  Segment sender(kMinRingBytes), receiver(kMinRingBytes);
  RingWriter writer(sender.header());
  ASSERT_EQ(*writer.write(frames_of({"early"})), RingWriter::Progress::kDone);
  EXPECT_FALSE(writer.must_wake());
  RingReader reader(receiver.header(), sender.header(), kMinRingBytes);
  Frames got;
  ASSERT_TRUE(*reader.look());
  ASSERT_TRUE(*reader.next(got));
  EXPECT_EQ(got[0].text(), "early");
  ASSERT_FALSE(*reader.fall_asleep());
  writer.attach(receiver.header());
  EXPECT_TRUE(writer.must_wake());
}

// ----- A lying peer -----

// Puts a record's head into the sender's ring by hand.
std::string complaint(const std::vector<std::uint32_t>& words, std::uint64_t head = 64) {
  Ring ring;
  std::memcpy(ring.sender.bytes(), words.data(), words.size() * sizeof words[0]);
  ring.sender.header().head = head;
  Frames got;
  const auto seen = ring.reader.look();
  const auto next = seen ? ring.reader.next(got) : seen;
  if (next) return {};
  EXPECT_EQ(next.error().code, ErrorCode::kMalformed);
  return next.error().message;
}

TEST(RingReader, RefusesImpossibleRecords) {
  EXPECT_EQ(complaint({1, 4, 0}), "");
  EXPECT_EQ(complaint({0, 4, 0}), "the peer's ring has a message of 0 frames");
  EXPECT_EQ(complaint({kMaxFrames, 0}), "");  // not all here yet
  EXPECT_EQ(complaint({kMaxFrames + 1, 0}), "the peer's ring has a message of 65537 frames");
  EXPECT_EQ(complaint({0xffffffff, 0}), "the peer's ring has a message of 4294967295 frames");
  EXPECT_EQ(complaint({1, kMaxFrameBytes}), "");
  EXPECT_EQ(complaint({1, kMaxFrameBytes + 1}), "the peer's ring has a frame of 4194305 bytes");
  EXPECT_EQ(complaint({2, 4, 0xffffffff}), "the peer's ring has a frame of 4294967295 bytes");
}

TEST(RingReader, RefusesAnImpossibleHead) {
  const std::string expected = "the peer's ring has an impossible head";
  EXPECT_EQ(complaint({1, 4, 0}, kMinRingBytes), "");
  EXPECT_EQ(complaint({1, 4, 0}, kMinRingBytes + 1), expected);
  EXPECT_EQ(complaint({1, 4, 0}, ~std::uint64_t{0}), expected);
  for (const std::uint64_t head : {std::uint64_t{0}, std::uint64_t{15}, std::uint64_t{31}}) {
    Ring ring;
    ring.move_to(16);
    ASSERT_EQ(*ring.writer.write(frames_of({"12345678"})), RingWriter::Progress::kDone);
    ASSERT_TRUE(*ring.reader.look());
    ring.sender.header().head = head;
    EXPECT_EQ(ring.reader.look().error().message, expected) << head;
  }
}

TEST(RingReader, RefusesAHeadPastTheRoomThatItGaveBack) {
  Ring ring;
  ASSERT_EQ(*ring.writer.write(frames_of({"12345678"})), RingWriter::Progress::kDone);
  Frames got;
  ASSERT_TRUE(*ring.reader.look());
  ASSERT_TRUE(*ring.reader.next(got));
  ring.sender.header().head = kMinRingBytes + 16;  // the room of the first message is not given back
  EXPECT_FALSE(ring.reader.look().ok());
}

TEST(RingReader, IsNotMovedByLengthsThatAreOnlyClaimed) {
  Ring ring;
  const std::vector<std::uint32_t> words{kMaxFrames};
  std::memcpy(ring.sender.bytes(), words.data(), sizeof words[0]);
  ring.sender.header().head = 4;
  Frames got;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(ring.reader.look().ok());
    EXPECT_FALSE(*ring.reader.next(got));
  }
}

TEST(RingWriter, RefusesAnImpossibleTail) {
  for (const std::uint64_t tail : {std::uint64_t{1000}, ~std::uint64_t{0}}) {
    Ring ring;
    ASSERT_EQ(*ring.writer.write(frames_of({"12345678"})), RingWriter::Progress::kDone);
    ring.receiver.header().tail = tail;
    const auto progress = ring.writer.write(frames_of({std::string(kMinRingBytes, 'x')}));
    ASSERT_FALSE(progress.ok());
    EXPECT_EQ(progress.error().message, "the peer says that it has read what nobody sent");
    EXPECT_FALSE(ring.writer.ask_for_space().ok());
  }
}

TEST(RingWriter, RefusesATailThatGoesBackwards) {
  Ring ring;
  Frames got;
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(*ring.writer.write(frames_of({"12345678"})), RingWriter::Progress::kDone);
    ASSERT_TRUE(ring.take(got));
  }
  ASSERT_TRUE(*ring.writer.ask_for_space());
  ring.receiver.header().tail = 16;
  EXPECT_FALSE(ring.writer.ask_for_space().ok());
}

// ----- Chance -----

TEST(Ring, PassesAnyStreamInAnyPieces) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&random](std::size_t limit) { return static_cast<std::size_t>(random() % limit); };
  Ring ring(std::size_t{4096} << below(3));
  std::vector<std::vector<std::string>> sent;
  Frames sending, got;
  std::size_t received = 0;
  while (received < 3000) {
    if (below(2) == 0) {
      if (sending.empty()) {
        std::vector<std::string> texts(1 + below(4));
        for (std::string& text : texts) text = noise(random, below(8) == 0 ? below(20'000) : below(40));
        sending = frames_of(texts);
        sent.push_back(std::move(texts));
      }
      const auto progress = ring.writer.write(sending);
      ASSERT_TRUE(progress.ok());
      if (*progress == RingWriter::Progress::kDone) sending.clear();
    } else {
      ASSERT_TRUE(ring.reader.look().ok());
      const auto next = ring.reader.next(got);
      ASSERT_TRUE(next.ok());
      if (below(3) == 0 || ring.reader.owes_much()) ring.reader.give_back();
      if (!*next) {
        ring.reader.give_back();
        continue;
      }
      ASSERT_EQ(got.size(), sent[received].size());
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_TRUE(got[i].text() == sent[received][i]) << received;
      ++received;
    }
  }
}

// Whatever is in the ring: an error, or messages within the limits.
TEST(RingReader, SurvivesGarbage) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int errors = 0;
  int messages = 0;
  const auto below = [&random](std::uint64_t limit) { return random() % limit; };
  for (int round = 0; round < 2000; ++round) {
    Ring ring;
    std::uint64_t head = 0;
    for (int turn = 0; turn < 50; ++turn) {
      // Mostly a record as it should be; then something may happen to it.
      std::vector<std::uint32_t> words{static_cast<std::uint32_t>(1 + below(3))};
      std::uint64_t size = 0;
      for (std::uint32_t i = 0; i < words[0]; ++i) {
        words.push_back(static_cast<std::uint32_t>(below(200)));
        size += words.back();
      }
      if (below(8) == 0)
        words[below(words.size())] = static_cast<std::uint32_t>(below(2) == 0 ? below(300) : random());
      const auto* record = reinterpret_cast<const std::byte*>(words.data());
      for (std::size_t i = 0; i < 4 * words.size(); ++i)
        ring.sender.bytes()[(head + i) % kMinRingBytes] = record[i];
      head += (4 * words.size() + size + 7) / 8 * 8;
      if (below(20) == 0) head = below(2) == 0 ? random() : head + below(600);
      ring.sender.header().head = head;
      ring.sender.header().space_asks = static_cast<std::uint32_t>(random());
      const auto seen = ring.reader.look();
      Frames got;
      auto next = seen ? ring.reader.next(got) : seen;
      for (; next && *next; next = ring.reader.next(got)) {
        ++messages;
        std::size_t bytes = 0;
        for (const Blob& frame : got) bytes += std::string(frame.text()).size();
        ASSERT_TRUE(got.size() <= kMaxFrames && bytes <= 100'000);
      }
      if (!next) {
        EXPECT_EQ(next.error().code, ErrorCode::kMalformed);
        ++errors;
        break;
      }
      ring.reader.give_back();
    }
  }
  EXPECT_GT(errors, 1000);
  EXPECT_GT(messages, 10'000);
}

}  // namespace
}  // namespace bulkhead
