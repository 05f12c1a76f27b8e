// Bytes that travel as places: named, found, given back; and peers that lie.
#include "protocol/places.h"

#include <cstring>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "protocol/codec.h"
#include "protocol/fd_passing.h"
#include "protocol/local_socket.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// Both ends of a connection, in one process.
struct Ends {
  Ends() {
    auto sockets = local_pair();
    EXPECT_TRUE(sockets.ok());
    raw = ::dup(sockets->first.get());
    here.emplace(std::move(sockets->first));
    there.emplace(std::move(sockets->second));
    here->begin();
    there->begin();
  }
  ~Ends() { ::close(raw); }

  Arena arena{64 * kMiB};
  int raw = -1;  // of `here`, to lie through
  std::optional<Places> here, there;
};

Blob filled(Arena& arena, std::size_t bytes, int value) {
  Result<Slot> slot = arena.allocate(bytes);
  EXPECT_TRUE(slot.ok());
  std::memset(slot->data, value, bytes);
  return slot->blob();
}

Call call_with(const Blob& bytes) {
  Call call;
  call.batch = {{"x", DType::kFloat32, {static_cast<std::int64_t>(bytes.size / 4)}, bytes}};
  return call;
}

const Tensor& tensor_of(const Result<Message>& message) { return std::get<Call>(*message).batch.at(0); }

TEST(Places, ATensorInSharedMemoryTravelsWithoutItsBytes) {
  Ends ends;
  const Blob bytes = filled(ends.arena, 2 * kMiB, 5);
  const Frames frames = encode(call_with(bytes), &*ends.here);
  ASSERT_EQ(frames.size(), 1u);
  const Result<Message> found = decode(frames, &*ends.there);
  ASSERT_TRUE(found.ok()) << found.error().message;
  const Tensor& tensor = tensor_of(found);
  EXPECT_NE(tensor.bytes.data, bytes.data) << "another mapping";
  ASSERT_EQ(tensor.bytes.size, bytes.size);
  EXPECT_EQ(std::memcmp(tensor.bytes.data, bytes.data, bytes.size), 0);
}

TEST(Places, APlaceStandsInTheEnvelopeAsTheSpecificationSays) {
  Ends ends;
  Result<Slot> slot = ends.arena.allocate(kMiB);
  ASSERT_TRUE(slot.ok());
  Blob bytes = slot->blob();
  bytes.data += 64;
  bytes.size -= 64;
  const Frames frames = encode(call_with(bytes), &*ends.here);
  const Value envelope = Value::from_msgpack(frames.at(0).text());
  const Value place = {{"segment", slot->segment->number()}, {"offset", 64}};
  EXPECT_EQ(envelope["batch"][0],
            Value({{"name", "x"}, {"dtype", "float32"}, {"shape", {262128}}, {"place", place}}));
}

TEST(Places, BytesOutsideOfSharedMemoryTravelAsFrames) {
  Ends ends;
  const Frames frames = encode(call_with(Blob::of(std::string(64, 'x'))), &*ends.here);
  EXPECT_EQ(frames.size(), 2u);
  EXPECT_TRUE(decode(frames, &*ends.there).ok());
}

TEST(Places, WithoutSharedMemoryNothingIsNamed) {
  Ends ends;
  const Call call = call_with(filled(ends.arena, kMiB, 1));
  EXPECT_EQ(encode(call).size(), 2u);
  const Result<Message> refused = decode(encode(call, &*ends.here));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "batch names shared memory, of which there is none here");
}

TEST(Places, WhatIsNamedStaysUntilItIsGivenBack) {
  Ends ends;
  const std::byte* data = nullptr;
  Frames frames;
  {
    const Blob bytes = filled(ends.arena, 2 * kMiB, 1);
    data = bytes.data;
    frames = encode(call_with(bytes), &*ends.here);
  }
  EXPECT_NE(filled(ends.arena, 2 * kMiB, 2).data, data);
  { const Result<Message> found = decode(frames, &*ends.there); }
  const std::vector<Place> unused = ends.there->take_unused();
  ASSERT_EQ(unused.size(), 1u);
  ASSERT_TRUE(ends.here->given_back(unused).ok());
  EXPECT_EQ(filled(ends.arena, 2 * kMiB, 3).data, data);
  EXPECT_FALSE(ends.here->given_back(unused).ok()) << "once for each time it was named";
}

TEST(Places, PlacesMayOverlap) {
  Ends ends;
  const Blob bytes = filled(ends.arena, kMiB, 4);
  Call call = call_with(bytes);
  call.batch.push_back(call.batch[0]);
  call.batch[1].name = "again";
  call.batch[1].bytes.data += 64;
  call.batch[1].bytes.size -= 64;
  call.batch[1].shape = {static_cast<std::int64_t>(kMiB / 4 - 16)};
  {
    const Result<Message> found = decode(encode(call, &*ends.here), &*ends.there);
    ASSERT_TRUE(found.ok()) << found.error().message;
    const Batch& batch = std::get<Call>(*found).batch;
    EXPECT_EQ(batch.at(1).bytes.data, batch.at(0).bytes.data + 64);
  }
  const std::vector<Place> unused = ends.there->take_unused();
  EXPECT_EQ(unused.size(), 2u);
  EXPECT_TRUE(ends.here->given_back(unused).ok()) << "each by itself";
}

TEST(Places, LeasesEndOnAnyThread) {
  Ends ends;
  const Blob bytes = filled(ends.arena, kMiB, 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    auto found =
        std::make_shared<Result<Message>>(decode(encode(call_with(bytes), &*ends.here), &*ends.there));
    ASSERT_TRUE(found->ok());
    threads.emplace_back([found]() mutable { found.reset(); });
  }
  for (std::thread& thread : threads) thread.join();
  threads.clear();
  EXPECT_TRUE(ends.here->given_back(ends.there->take_unused()).ok());
}

TEST(Places, PassesOnWhatAnotherPeerHasMade) {
  Ends first, second;
  const Result<Message> found =
      decode(encode(call_with(filled(first.arena, kMiB, 9)), &*first.here), &*first.there);
  ASSERT_TRUE(found.ok());
  const Frames frames = encode(call_with(tensor_of(found).bytes), &*second.here);
  ASSERT_EQ(frames.size(), 1u);
  const Result<Message> passed = decode(frames, &*second.there);
  ASSERT_TRUE(passed.ok()) << passed.error().message;
  EXPECT_EQ(tensor_of(passed).bytes.data[kMiB - 1], std::byte{9});
}

TEST(Places, APieceTravelsWithItsStridesAndWithoutThemAsItsElements) {
  Ends ends;
  const Blob bytes = filled(ends.arena, kMiB, 3);
  Call call = call_with(bytes);
  call.batch[0] = *cut(call.batch[0], {"x", "x", 8, DType::kFloat32, {100, 2}, {50, 1}});
  const Frames named = encode(call, &*ends.here);
  ASSERT_EQ(named.size(), 1u);
  const Result<Message> found = decode(named, &*ends.there);
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(tensor_of(found).strides, (std::vector<std::int64_t>{50, 1}));
  EXPECT_EQ(tensor_of(found).bytes.size, call.batch[0].bytes.size);

  const Result<Message> sent = decode(encode(call));
  ASSERT_TRUE(sent.ok()) << sent.error().message;
  EXPECT_TRUE(tensor_of(sent).strides.empty());
  EXPECT_EQ(tensor_of(sent).bytes.size, 800u);
}

TEST(Places, MayBeWrittenToWhereTheirOwnerGivesLeave) {
  Ends ends;
  Arena open(64 * kMiB, PeerAccess::kWrite);
  const Result<Slot> slot = open.allocate(kMiB);
  ASSERT_TRUE(slot.ok());
  const Result<Message> found = decode(encode(call_with(slot->blob()), &*ends.here), &*ends.there);
  ASSERT_TRUE(found.ok()) << found.error().message;
  const Blob& bytes = tensor_of(found).bytes;
  const Result<std::byte*> begin = bytes.segment->writable();
  ASSERT_TRUE(begin.ok()) << begin.error().message;
  (*begin)[bytes.data - bytes.segment->data()] = std::byte{42};
  EXPECT_EQ(slot->data[0], std::byte{42});
  EXPECT_EQ(bytes.data[0], std::byte{42});

  const Result<Message> closed =
      decode(encode(call_with(filled(ends.arena, kMiB, 1)), &*ends.here), &*ends.there);
  ASSERT_TRUE(closed.ok());
  EXPECT_FALSE(tensor_of(closed).bytes.segment->writable().ok());
}

TEST(Places, ForgetsSegmentsThatAreGone) {
  Ends ends;
  Blob seen;
  {
    Arena arena(8 * kMiB);
    const Result<Message> found =
        decode(encode(call_with(filled(arena, 2 * kMiB, 3)), &*ends.here), &*ends.there);
    ASSERT_TRUE(found.ok());
    seen = tensor_of(found).bytes;
    EXPECT_TRUE(ends.here->take_gone().empty());
    ASSERT_TRUE(ends.here->given_back(ends.here->take_named()).ok());
  }
  const std::vector<std::int64_t> gone = ends.here->take_gone();
  ASSERT_EQ(gone.size(), 1u);
  ends.there->gone(gone);
  EXPECT_EQ(seen.data[2 * kMiB - 1], std::byte{3}) << "what is still read stays";
  EXPECT_FALSE(ends.there->find({gone[0], 0}, 4).ok());
}

// ----- Peers that lie -----

struct Lying : testing::Test {
  Ends ends;
  Place shown;

  void SetUp() override {
    const Blob bytes = filled(ends.arena, 4 * kMiB, 1);
    shown = *ends.here->name(bytes);
    ASSERT_TRUE(ends.there->find(shown, bytes.size).ok());
  }
  std::string complaint(Place place, std::size_t bytes) {
    const Result<Blob> found = ends.there->find(place, bytes);
    return found ? "" : found.error().message;
  }
};

TEST_F(Lying, BytesBeyondTheirSegment) {
  const std::string beyond = "it names bytes beyond the end of their segment";
  EXPECT_EQ(complaint({shown.segment, 0}, 4 * kMiB + 1), beyond);
  EXPECT_EQ(complaint({shown.segment, 4 * kMiB}, 1), beyond);
  EXPECT_EQ(complaint({shown.segment, -64}, 64), beyond);
  EXPECT_EQ(complaint({shown.segment, INT64_MAX}, SIZE_MAX), beyond);
  EXPECT_EQ(complaint({shown.segment, 64}, SIZE_MAX - 63), beyond);
  EXPECT_EQ(complaint({shown.segment, 4 * kMiB}, 0), "");
}

TEST_F(Lying, ASegmentThatWasNotShown) {
  EXPECT_EQ(complaint({shown.segment + 1, 0}, 1), "it names a segment that it has not shown");
  EXPECT_EQ(complaint({-1, 0}, 1), "it names a segment that it has not shown");
}

TEST_F(Lying, MemoryThatItCouldShrink) {
  UniqueFd fd(::memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  const std::int64_t number = 1000;
  const int raw = fd.get();
  ASSERT_TRUE(send_fds(ends.raw, {reinterpret_cast<const char*>(&number), sizeof number}, {&raw, 1}).ok());
  EXPECT_EQ(complaint({number, 0}, 1), "its memory is not sealed against shrinking and growing");
}

TEST_F(Lying, ANumberTwice) {
  Result<std::shared_ptr<Segment>> other = Segment::create(4096);
  ASSERT_TRUE(other.ok());
  const int raw = (*other)->fd();
  ASSERT_TRUE(send_fds(ends.raw, {reinterpret_cast<const char*>(&shown.segment), 8}, {&raw, 1}).ok());
  EXPECT_EQ(complaint({77, 0}, 1), "it shows two segments of one number");
}

TEST_F(Lying, BytesThatAreNotAligned) {
  Call call = call_with(filled(ends.arena, kMiB, 1));
  call.batch[0].bytes.data += 2;
  call.batch[0].bytes.size -= 4;
  call.batch[0].shape = {static_cast<std::int64_t>(kMiB / 4 - 1)};
  const Result<Message> refused = decode(encode(call, &*ends.here), &*ends.there);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "batch is not aligned");
}

TEST_F(Lying, StridesThatReachBeyondOrHaveNoPlace) {
  const Blob bytes = filled(ends.arena, kMiB, 1);
  const auto complaint_of = [&](std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                                bool in_place) {
    Call call = call_with(bytes);
    call.batch[0].shape = std::move(shape);
    call.batch[0].strides = std::move(strides);
    Frames frames = encode(call, &*ends.here);
    if (!in_place) {  // the same envelope without the place
      Value envelope = Value::from_msgpack(std::string(frames[0].text()));
      envelope["batch"][0].erase("place");
      const auto packed = Value::to_msgpack(envelope);
      frames = {Blob::of(std::string(packed.begin(), packed.end()))};
    }
    const Result<Message> decoded = decode(frames, &*ends.there);
    return decoded ? "" : decoded.error().message;
  };
  EXPECT_EQ(complaint_of({1000}, {1000}, true), "");
  EXPECT_EQ(complaint_of({1 << 20}, {2}, true),
            "batch cannot be found: it names bytes beyond the end of their segment");
  EXPECT_EQ(complaint_of({2, 2}, {1}, true), "batch has strides that do not fit its shape");
  EXPECT_EQ(complaint_of({2}, {-1}, true), "batch has a negative extent or stride");
  EXPECT_EQ(complaint_of({2}, {INT64_MAX}, true), "batch is too large");
  EXPECT_EQ(complaint_of({2}, {3}, false), "batch has strides, but lies in no shared memory");
}

}  // namespace
}  // namespace bulkhead
