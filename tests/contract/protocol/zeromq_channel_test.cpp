// What ZeroMQ channels promise beyond the contract: who may come, what junk
// does, what endpoints are.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <zmq.hpp>

#include "protocol/channel.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using std::chrono::seconds;

Message beat(std::int64_t step) { return Heartbeat{.generation = Generation(1), .step = step}; }

struct Peer {
  std::unique_ptr<Channel> channel;
  std::vector<Message> messages;
  std::vector<Error> ends;
  void start(std::unique_ptr<Channel> with) {
    channel = std::move(with);
    channel->start({[this](Message message) { messages.push_back(std::move(message)); },
                    [this](Error why) { ends.push_back(std::move(why)); }});
  }
};

class ZeroMqChannel : public testing::Test {
 protected:
  void listen(ListenOptions options = {}) {
    auto listener = listen_channel(loop_, endpoint_, options, [this](std::unique_ptr<Channel> channel) {
      peers_.push_back(std::make_unique<Peer>());
      peers_.back()->start(std::move(channel));
    });
    ASSERT_TRUE(listener.ok()) << listener.error().message;
    listener_ = *std::move(listener);
  }
  std::unique_ptr<Channel> connect() {
    auto channel = connect_channel(loop_, endpoint_);
    EXPECT_TRUE(channel.ok());
    return *std::move(channel);
  }
  // A peer that is not of ours.
  zmq::socket_t stranger() {
    zmq::socket_t socket(context_, zmq::socket_type::dealer);
    socket.set(zmq::sockopt::linger, 0);
    socket.connect(endpoint_);
    return socket;
  }
  testing::AssertionResult reach(const std::function<bool()>& done) {
    for (const TimePoint deadline = loop_.now() + seconds(60); loop_.now() < deadline;) {
      // `done` may look at what wakes no loop.
      if (loop_.run_until(done, loop_.now() + std::chrono::milliseconds(5)))
        return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "not reached within 60 s";
  }

  EventLoop loop_;
  TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_.path() / "socket";
  std::string endpoint_ = "ipc://" + path_.string();
  zmq::context_t context_{1};
  std::vector<std::unique_ptr<Peer>> peers_;
  std::unique_ptr<Listener> listener_;
};

// Of EventLoop: libzmq's descriptor tells of a change once, and whoever uses
// the socket takes that away.
TEST_F(ZeroMqChannel, HasALoopThatNoticesWhatCameWhileItsSocketWasUsed) {
  zmq::socket_t left(context_, zmq::socket_type::pair), right(context_, zmq::socket_type::pair);
  left.bind("inproc://pair");
  right.connect("inproc://pair");
  int messages = 0;
  auto watch = loop_.watch_socket(left.handle(), {}, [&] {
    zmq::message_t message;
    ASSERT_TRUE(left.recv(message, zmq::recv_flags::dontwait));
    ++messages;
  });
  while (loop_.run_ready()) {
  }
  for (int i = 0; i < 3; ++i) right.send(zmq::str_buffer("x"), zmq::send_flags::none);
  ASSERT_TRUE(left.get(zmq::sockopt::events) & ZMQ_POLLIN);
  watch.look_again();
  while (loop_.run_ready()) {
  }
  EXPECT_EQ(messages, 3);
  watch.reset();
}

TEST_F(ZeroMqChannel, WaitsForAListenerThatAppearsLater) {
  const auto early = connect();
  for (std::int64_t i = 0; i < 10; ++i) early->send(beat(i));
  EXPECT_FALSE(loop_.run_until([] { return false; }, loop_.now() + std::chrono::milliseconds(20)));
  listen();
  ASSERT_TRUE(reach([&] { return peers_.size() == 1 && peers_[0]->messages.size() == 10; }));
}

TEST_F(ZeroMqChannel, GivesEachPeerAChannelOfItsOwn) {
  listen();
  Peer one, two;
  one.start(connect());
  two.start(connect());
  one.channel->send(beat(1));
  two.channel->send(beat(2));
  ASSERT_TRUE(reach([&] { return peers_.size() == 2; }));
  for (const auto& peer : peers_) {
    ASSERT_TRUE(reach([&] { return peer->messages.size() == 1; }));
    peer->channel->send(peer->messages[0]);
  }
  ASSERT_TRUE(reach([&] { return one.messages.size() == 1 && two.messages.size() == 1; }));
  EXPECT_EQ(std::get<Heartbeat>(one.messages[0]).step, 1);
  EXPECT_EQ(std::get<Heartbeat>(two.messages[0]).step, 2);
}

TEST_F(ZeroMqChannel, WithOnePeerUnlinksItsPathAfterTheFirstMessage) {
  listen({.one_peer = true});
  EXPECT_TRUE(std::filesystem::is_socket(path_));
  Peer peer;
  peer.start(connect());
  peer.channel->send(beat(1));
  ASSERT_TRUE(reach([&] { return peers_.size() == 1; }));
  EXPECT_FALSE(std::filesystem::exists(path_));
  peers_[0]->channel->send(beat(2));
  ASSERT_TRUE(reach([&] { return peer.messages.size() == 1; }));
}

TEST_F(ZeroMqChannel, WithOnePeerIgnoresASecond) {
  listen({.one_peer = true});
  Peer first, second;
  first.start(connect());
  second.start(connect());
  first.channel->send(beat(1));
  second.channel->send(beat(-1));
  ASSERT_TRUE(reach([&] { return peers_.size() == 1; }));
  const std::int64_t winner = std::get<Heartbeat>(peers_[0]->messages.at(0)).step;
  Peer& in = winner > 0 ? first : second;
  Peer& out = winner > 0 ? second : first;
  for (int i = 0; i < 50; ++i) {
    out.channel->send(beat(-2));
    in.channel->send(beat(i));
  }
  ASSERT_TRUE(reach([&] { return peers_[0]->messages.size() == 51; }));
  EXPECT_EQ(peers_.size(), 1u);
  EXPECT_TRUE(out.messages.empty());
}

TEST_F(ZeroMqChannel, ClosesOverMalformedBytesAndOnlyThatPeer) {
  listen();
  Peer good;
  good.start(connect());
  good.channel->send(beat(1));
  ASSERT_TRUE(reach([&] { return peers_.size() == 1; }));

  zmq::socket_t bad = stranger();
  bad.send(zmq::str_buffer("GET / HTTP/1.1"), zmq::send_flags::none);
  ASSERT_TRUE(reach([&] { return peers_.size() == 2 && peers_[1]->ends.size() == 1; }));
  EXPECT_EQ(peers_[1]->ends[0].code, ErrorCode::kMalformed);
  EXPECT_TRUE(peers_[1]->messages.empty());

  bad.send(zmq::str_buffer("again"), zmq::send_flags::none);
  good.channel->send(beat(2));
  ASSERT_TRUE(reach([&] { return peers_[0]->messages.size() == 2; }));
  EXPECT_EQ(peers_.size(), 2u);
  EXPECT_EQ(peers_[1]->ends.size(), 1u);
}

TEST_F(ZeroMqChannel, DeliversTheGoodMessagesBeforeAMalformedOne) {
  listen();
  zmq::socket_t peer = stranger();
  for (std::int64_t i = 0; i < 3; ++i) {
    const Frames frames = encode(beat(i));
    peer.send(zmq::const_buffer(frames[0].data, frames[0].size), zmq::send_flags::none);
  }
  peer.send(zmq::str_buffer("junk"), zmq::send_flags::none);
  ASSERT_TRUE(reach([&] { return peers_.size() == 1 && peers_[0]->ends.size() == 1; }));
  EXPECT_EQ(peers_[0]->messages.size(), 3u);
}

TEST_F(ZeroMqChannel, ClosesWhenTheListeningSideSendsMalformedBytes) {
  zmq::socket_t router(context_, zmq::socket_type::router);
  router.set(zmq::sockopt::linger, 0);
  router.bind(endpoint_);
  Peer peer;
  peer.start(connect());
  peer.channel->send(beat(1));
  zmq::message_t identity, body;
  ASSERT_TRUE(reach([&] { return static_cast<bool>(router.recv(identity, zmq::recv_flags::dontwait)); }));
  ASSERT_TRUE(router.recv(body, zmq::recv_flags::none));
  router.send(identity, zmq::send_flags::sndmore);
  router.send(zmq::str_buffer("\x93junk"), zmq::send_flags::none);
  ASSERT_TRUE(reach([&] { return peer.ends.size() == 1; }));
  EXPECT_EQ(peer.ends[0].code, ErrorCode::kMalformed);
}

TEST_F(ZeroMqChannel, CutsTheConnectionOfWhoSendsTooLargeAFrame) {
  listen();
  Peer good;
  good.start(connect());
  good.channel->send(beat(1));
  zmq::socket_t bad = stranger();
  bad.set(zmq::sockopt::reconnect_ivl, -1);
  bad.send(zmq::message_t(kMaxFrameBytes + 1), zmq::send_flags::none);
  ASSERT_TRUE(reach([&] { return peers_.size() == 1; }));
  for (std::int64_t i = 0; i < 100; ++i) good.channel->send(beat(i));
  ASSERT_TRUE(reach([&] { return peers_[0]->messages.size() == 101; }));
  EXPECT_EQ(peers_.size(), 1u);
}

TEST_F(ZeroMqChannel, LetsOnPeerDropTheChannelOrTheListener) {
  for (const bool whole : {false, true}) {
    int calls = 0;
    auto listener = listen_channel(loop_, endpoint_, {}, [&](std::unique_ptr<Channel> channel) {
      ++calls;
      channel.reset();
      if (whole) listener_.reset();
    });
    ASSERT_TRUE(listener.ok()) << listener.error().message;
    listener_ = *std::move(listener);
    const auto peer = connect();
    for (std::int64_t i = 0; i < 10; ++i) peer->send(beat(i));
    ASSERT_TRUE(reach([&] { return calls == 1; }));
    EXPECT_FALSE(loop_.run_until([&] { return calls > 1; }, loop_.now() + std::chrono::milliseconds(20)));
    listener_.reset();
    endpoint_ += "2";  // libzmq unlinks the first in its own time
  }
}

TEST_F(ZeroMqChannel, LetsAHandlerDropTheListener) {
  listen();
  std::vector<Error> ends;
  std::unique_ptr<Channel> right;
  auto listener = listen_channel(loop_, endpoint_ + "2", {}, [&](std::unique_ptr<Channel> channel) {
    right = std::move(channel);
    right->start({[&](Message) { listener_.reset(); }, [&](Error why) { ends.push_back(std::move(why)); }});
  });
  ASSERT_TRUE(listener.ok());
  listener_ = *std::move(listener);
  endpoint_ += "2";
  const auto peer = connect();
  for (std::int64_t i = 0; i < 10; ++i) peer->send(beat(i));
  ASSERT_TRUE(reach([&] { return ends.size() == 1; }));
  EXPECT_EQ(ends[0].message, "the listener has closed");
}

TEST_F(ZeroMqChannel, TellsThePortThatAStarBecame) {
  endpoint_ = "tcp://127.0.0.1:*";
  listen();
  EXPECT_EQ(listener_->endpoint().find('*'), std::string::npos);
  EXPECT_NE(listener_->endpoint(), "tcp://127.0.0.1:0");
}

TEST_F(ZeroMqChannel, SaysWhichEndpointItCannotTake) {
  const auto ignore = [](std::unique_ptr<Channel>) {};
  const auto missing = listen_channel(loop_, "ipc:///no/such/folder/socket", {}, ignore);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(missing.error().message.find("/no/such/folder/socket"), std::string::npos)
      << missing.error().message;

  endpoint_ = "tcp://127.0.0.1:*";
  listen();
  const auto taken = listen_channel(loop_, listener_->endpoint(), {}, ignore);
  ASSERT_FALSE(taken.ok());
  EXPECT_NE(taken.error().message.find("in use"), std::string::npos) << taken.error().message;

  const auto nonsense = connect_channel(loop_, "carrier-pigeon://roof");
  ASSERT_FALSE(nonsense.ok());
  EXPECT_NE(nonsense.error().message.find("carrier-pigeon://roof"), std::string::npos);
}

// libzmq's I/O thread once waited for ever for the end of a connection to be
// taken note of, and with it every other channel of the process.
TEST_F(ZeroMqChannel, OutlivesConnectionsThatBreakWhileTheyAreClosed) {
  const std::string first = endpoint_;
  for (int round = 0; round < 200; ++round) {
    endpoint_ = first + std::to_string(round);
    listen();
    Peer peer;
    peer.start(connect());
    peer.channel->send(beat(round));
    ASSERT_TRUE(reach([&] { return peers_.size() == 1; })) << "round " << round;
    peers_.clear();
    listener_.reset();
  }
}

TEST_F(ZeroMqChannel, LeavesNoPathBehind) {
  listen();
  ASSERT_TRUE(std::filesystem::is_socket(path_));
  listener_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST(ZeroMqExitDeathTest, AProcessMayExitWithOpenChannels) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        TemporaryDirectory directory;
        EventLoop loop;
        const std::string endpoint = "ipc://" + (directory.path() / "socket").string();
        const auto listener = listen_channel(loop, endpoint, {}, [](std::unique_ptr<Channel>) {});
        const auto channel = connect_channel(loop, endpoint);
        (*channel)->send(beat(1));
        loop.run_ready();
        std::filesystem::remove_all(directory.path());
        std::exit(7);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace bulkhead
