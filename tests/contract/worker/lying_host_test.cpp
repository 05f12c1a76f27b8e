// A worker's link to a host that lies about memory: each lie is told to the
// coordinator in one sentence, and nothing else happens to the rank.  The host
// is played by hand, over the real socket.
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "host_link.h"
#include "protocol/arena.h"
#include "protocol/fd_passing.h"
#include "protocol/local_socket.h"
#include "support/stand_in_gpu.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

constexpr Generation kWorker{1};
constexpr Generation kHost{2};
constexpr std::size_t kBytes = 64 << 10;

Tensor tensor(const Blob& bytes) {
  return {"x", DType::kFloat32, {static_cast<std::int64_t>(bytes.size / sizeof(float))}, bytes};
}

struct HandMadeHost : testing::Test {
  TemporaryDirectory directory;
  EventLoop loop;
  std::optional<StandInGpu> gpu;  // before the link, which has some of its memory
  Arena arena{std::size_t{16} << 20}, own{std::size_t{16} << 20};
  std::string fault;
  std::optional<Outcome> outcome;
  std::optional<HostLink> link;
  std::optional<Places> places;
  std::unique_ptr<Channel> channel;
  std::optional<Welcome> welcome;
  std::optional<Call> call;  // the transform
  bool may_name = false;
  int raw = -1;  // the socket over which memory is shown

  ~HandMadeHost() override {
    if (raw >= 0) ::close(raw);
  }

  std::string path() const { return (directory.path() / "data").string(); }

  void meet(const std::string& transport, std::vector<std::string> offers) {
    PluginRoute route;
    route.config.name = "liar";
    route.config.transport = transport;
    route.config.device = gpu ? "cuda" : "cpu";
    route.traits.hooks = {"transform_train_batch"};
    HostLink::Surroundings around;
    around.loop = &loop;
    around.generation = kWorker;
    around.secret = "s";
    around.tell_coordinator = [this](const Message& message) {
      const auto* found = std::get_if<HostFault>(&message);
      if (found != nullptr && fault.empty()) fault = found->kind + ": " + found->reason;
    };
    around.settle = [this](Seq, Outcome ended) { outcome = std::move(ended); };
    around.arena = &arena;
    if (gpu) around.device = &gpu->memory;
    link.emplace(std::move(route), StreamOptions{}, std::move(around));
    link->attach({kWorker, PluginId{0}, kHost, "ipc://" + path(), false});
    auto connected = connect_channel(loop, "ipc://" + path());
    ASSERT_TRUE(connected.ok());
    channel = std::move(*connected);
    channel->start({[this](Message message) { on_message(std::move(message)); }, [](const Error&) {}});
    Hello hello;
    hello.generation = kHost;
    hello.role = "host";
    hello.secret = "s";
    hello.capabilities = std::move(offers);
    channel->send(hello);
    loop.run_until([this] { return welcome.has_value(); });
  }

  void on_message(Message message) {
    if (const auto* found = std::get_if<Welcome>(&message)) welcome = *found;
    if (std::holds_alternative<MemoryNews>(message)) may_name = true;
    auto* asked = std::get_if<Call>(&message);
    if (asked == nullptr) return;
    if (asked->hook == "transform_train_batch") {
      call = std::move(*asked);
    } else {
      channel->send(reply_to(*asked));
    }
  }

  static Reply reply_to(const Call& asked) {
    Reply reply;
    reply.generation = kHost;
    reply.seq = asked.seq;
    reply.hook = asked.hook;
    return reply;
  }

  void answer(const Batch& batch, std::vector<Place> held = {}) {
    Reply reply = reply_to(*call);
    reply.batch = batch;
    reply.held = std::move(held);
    channel->send(reply);
  }
  std::string complaint() {
    loop.run_until([this] { return !fault.empty() || outcome.has_value(); });
    return fault;
  }
  Blob written() {
    Result<Slot> slot = own.allocate(kBytes);
    EXPECT_TRUE(slot.ok());
    std::memset(slot->data, 0, kBytes);
    return slot->blob();
  }
};

// Welcomed to shared memory, with a transform to answer.
struct LyingHost : HandMadeHost {
  void SetUp() override {
    if (testing::UnitTest::GetInstance()->current_test_info()->name()[0] == 'I')
      return;  // is not welcomed so
    meet("auto", {"memory", "cuda:" + (gpu ? gpu->memory.device().uuid() : std::string(32, '0'))});
    auto socket = connect_local(path() + ".memory");
    ASSERT_TRUE(socket.ok());
    raw = ::dup(socket->get());
    places.emplace(*std::move(socket));
    channel->share(&*places);
    loop.run_until([this] { return may_name; });
    places->begin();
    Result<Slot> slot = arena.allocate(kBytes);
    ASSERT_TRUE(slot.ok());
    CallContext context;
    link->want(link->submit("transform_train_batch", context, Batch{tensor(slot->blob())}));
    loop.run_until([this] { return call.has_value(); });
  }
};

TEST_F(LyingHost, TellsTheTruthOnce) {
  const Blob bytes = written();
  answer({tensor(bytes)});
  EXPECT_EQ(complaint(), "");
  ASSERT_EQ(outcome->kind, Outcome::Kind::kAnswer) << outcome->reason;
  EXPECT_NE(outcome->batch.at(0).bytes.segment, nullptr) << "it came in shared memory";
}

TEST_F(LyingHost, NamesBytesBeyondItsSegment) {
  Blob bytes = written();
  bytes.data += std::size_t{4} << 20;
  answer({tensor(bytes)});
  EXPECT_NE(
      complaint().find("garbage: it sent something malformed: batch cannot be found: it names bytes beyond "
                       "the end of their segment"),
      std::string::npos)
      << fault;
}

TEST_F(LyingHost, NamesBytesInFrontOfItsSegment) {
  Blob bytes = written();
  bytes.data -= std::size_t{4} << 20;
  answer({tensor(bytes)});
  EXPECT_NE(complaint().find("beyond the end of their segment"), std::string::npos) << fault;
}

TEST_F(LyingHost, NamesBytesThatAreNotAligned) {
  Blob bytes = written();
  bytes.data += 2;
  bytes.size -= 4;
  answer({tensor(bytes)});
  EXPECT_NE(complaint().find("is not aligned"), std::string::npos) << fault;
}

TEST_F(LyingHost, ShowsMemoryThatItCouldShrink) {
  const int fd = ::memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, 8 << 20), 0);
  const std::int64_t number = 77;
  ASSERT_TRUE(send_fds(raw, {reinterpret_cast<const char*>(&number), sizeof number}, {&fd, 1}).ok());
  ::close(fd);
  answer({tensor(written())});
  EXPECT_NE(complaint().find("its memory is not sealed"), std::string::npos) << fault;
}

TEST_F(LyingHost, ShowsAFileInsteadOfMemory) {
  const int fd = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  const std::int64_t number = 77;
  ASSERT_TRUE(send_fds(raw, {reinterpret_cast<const char*>(&number), sizeof number}, {&fd, 1}).ok());
  ::close(fd);
  answer({tensor(written())});
  EXPECT_NE(complaint().find("its memory is not a memfd"), std::string::npos) << fault;
}

TEST_F(LyingHost, GivesBackWhatItWasNotGiven) {
  channel->send(MemoryNews{kHost, {{1, 64}}, {}});
  EXPECT_EQ(complaint(), "garbage: it gives back memory that it was not given");
}

TEST_F(LyingHost, PutsItsOutputIntoARegionThatItWasNotLent) {
  Reply reply = reply_to(*call);
  reply.in_region = {{"x", "", 0, DType::kFloat32, {4}, {1}}};
  channel->send(reply);
  EXPECT_EQ(complaint(), "garbage: its output lies in a region that it was not lent");
}

// Welcomed to the rank's GPU as well.
struct LyingGuest : LyingHost {
  void SetUp() override {
    gpu.emplace();
    LyingHost::SetUp();
  }
};

TEST_F(LyingGuest, TellsTheTruthOnceAndNoBytesTravel) {
  ASSERT_TRUE(call->region);
  EXPECT_TRUE(call->batch.empty());
  Reply reply = reply_to(*call);
  reply.in_region = call->region->tensors;
  channel->send(reply);
  EXPECT_EQ(complaint(), "");
  EXPECT_NE(outcome->batch.at(0).bytes.device, nullptr);
}

TEST_F(LyingGuest, NamesBytesBeyondItsRegion) {
  Reply reply = reply_to(*call);
  reply.in_region = call->region->tensors;
  reply.in_region[0].offset = call->region->bytes - 4;
  channel->send(reply);
  EXPECT_EQ(complaint(), "garbage: \"x\" lies beyond the end of its region");
}

TEST_F(LyingGuest, GivesARegionBackThatItDidNotHold) {
  channel->send(MemoryNews{kHost, {{call->region->segment, 0}}, {}});
  EXPECT_EQ(complaint(), "garbage: it gives back memory that it was not given");
}

TEST_F(LyingHost, HoldsWhatItWasNotGiven) {
  answer({tensor(written())}, {{1, 1 << 20}});
  EXPECT_EQ(complaint(), "garbage: it holds memory that it was not given");
}

// ----- Where there is no shared memory -----

TEST_F(HandMadeHost, IsRefusedMemoryThatWasNotAgreedOn) {
  meet("auto", {});
  EXPECT_TRUE(welcome->capabilities.empty());
  channel->send(MemoryNews{kHost, {}, {1}});
  EXPECT_NE(complaint().find("it sent memory_news, which a host never sends here"), std::string::npos)
      << fault;
}

TEST_F(HandMadeHost, IsOfferedNothingWhereTheRunFileSaysSocket) {
  meet("socket", {"ring", "memory"});
  EXPECT_TRUE(welcome->capabilities.empty());
  EXPECT_FALSE(connect_local(path() + ".memory").ok());
  EXPECT_FALSE(connect_local(path() + ".ring").ok());
}

}  // namespace
}  // namespace bulkhead
