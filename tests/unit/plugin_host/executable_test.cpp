// bulkhead-plugin-host as a process, over ZeroMQ: what cannot be seen from
// inside one process.

#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <gtest/gtest.h>

#include "protocol/channel.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr Generation kHost{3};
constexpr Generation kSelf{1};
constexpr std::chrono::seconds kBound{20};

struct Peer {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Channel> channel;
  std::vector<Message> got;
  std::optional<Error> closed;
};

class Executable : public testing::Test {
 protected:
  void SetUp() override {
    listen(control_, "control");
    listen(data_, "data");
    spawn();
    ASSERT_TRUE(wait_for<Hello>(control_));
    control_.channel->send(Welcome{kSelf});
  }
  void TearDown() override {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  std::string endpoint(const std::string& name) const {
    return "ipc://" + (directory_.path() / name).string();
  }

  void listen(Peer& peer, const std::string& name) {
    auto listener =
        listen_channel(loop_, endpoint(name), {.one_peer = true}, [&peer](std::unique_ptr<Channel> channel) {
          peer.channel = std::move(channel);
          peer.channel->start({[&peer](Message message) { peer.got.push_back(std::move(message)); },
                               [&peer](const Error& why) { peer.closed = why; }});
        });
    ASSERT_TRUE(listener.ok()) << listener.error().message;
    peer.listener = std::move(*listener);
  }

  void spawn() {
    std::vector<std::string> variables{"BULKHEAD_ENDPOINT=" + endpoint("control"), "BULKHEAD_SECRET=s",
                                       "BULKHEAD_GENERATION=3", "BULKHEAD_PLUGIN=0", "BULKHEAD_RANK=0"};
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    std::string program = BULKHEAD_BUILD_DIR "/plugin-host/bulkhead-plugin-host";
    char* arguments[] = {program.data(), nullptr};
    ASSERT_EQ(::posix_spawn(&pid_, program.c_str(), nullptr, nullptr, arguments, environment.data()), 0);
  }

  TimePoint bound() const { return loop_.now() + kBound; }

  template <class T>
  static const T* last(const Peer& peer) {
    for (auto at = peer.got.rbegin(); at != peer.got.rend(); ++at) {
      if (const T* body = std::get_if<T>(&*at)) return body;
    }
    return nullptr;
  }
  template <class T>
  bool wait_for(const Peer& peer) {
    return loop_.run_until([&] { return last<T>(peer) != nullptr; }, bound());
  }
  // The wait status of the ended process.
  int ended() {
    const int watch = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
    bool gone = false;
    const auto handle = loop_.watch_readable(watch, [&] { gone = true; });
    EXPECT_TRUE(loop_.run_until([&] { return gone; }, bound())) << "the host did not end in time";
    ::close(watch);
    int status = -1;
    if (gone) ::waitpid(std::exchange(pid_, 0), &status, 0);
    return status;
  }

  void load(const std::string& file, Value with = Value::object()) {
    Load load;
    load.generation = kSelf;
    load.config.file = BULKHEAD_BUILD_DIR "/" + file;
    load.config.with = std::move(with);
    load.facts.plugin = "mine";
    load.facts.run_dir = directory_.path().string();
    control_.channel->send(load);
  }
  void serve(const std::string& file, const Value& with) {
    load(file, with);
    ASSERT_TRUE(wait_for<Loaded>(control_));
    control_.channel->send(Attach{kSelf, endpoint("data"), kSelf});
    ASSERT_TRUE(wait_for<Hello>(data_));
    data_.channel->send(Welcome{kSelf});
  }
  void call(const std::string& hook) {
    Call call;
    call.generation = kSelf;
    call.seq = Seq{1};
    call.hook = hook;
    data_.channel->send(call);
  }

  TemporaryDirectory directory_;
  EventLoop loop_;
  Peer control_;
  Peer data_;
  pid_t pid_ = 0;
};

TEST_F(Executable, ServesCallsAndEndsWith0WhenToldToStop) {
  serve("plugins/saboteur.so", {{"step", 99}});
  call("on_step_end");
  ASSERT_TRUE(wait_for<Reply>(data_));
  EXPECT_EQ(last<Reply>(data_)->generation, kHost);
  control_.channel->send(Stop{kSelf, "the test is over"});
  const int status = ended();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(Executable, DiesOfItsPluginAlone) {
  serve("plugins/saboteur.so", {{"how", "segv"}});
  call("on_step_end");
  const int status = ended();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
}

TEST_F(Executable, DiesOfTerminateInAHook) {
  serve("tests/plugins/raiser.so", Value::object());
  call("on_epoch_end");
  const int status = ended();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << status;
}

TEST_F(Executable, BeatsAndHearsAStopWhileItsPluginAsks) {
  serve("tests/plugins/asker.so", Value::object());
  call("on_epoch_start");
  ASSERT_TRUE(wait_for<Ask>(data_));
  control_.got.clear();
  ASSERT_TRUE(wait_for<Heartbeat>(control_));  // nobody answers, and it lives
  control_.channel->send(Stop{kSelf, "the test is over"});
  const int status = ended();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(Executable, AsksItsRankOverTheWire) {
  serve("tests/plugins/asker.so", Value::object());
  call("on_step_end");
  ASSERT_TRUE(wait_for<Ask>(data_));
  const Ask ask = *last<Ask>(data_);
  EXPECT_EQ(ask.generation, kHost);
  Answer answer;
  answer.generation = kSelf;
  answer.seq = ask.seq;
  answer.number = ask.number;
  answer.batch = ask.batch;
  answer.batch[0].name = "0";
  data_.channel->send(answer);
  ASSERT_TRUE(wait_for<Reply>(data_));
  EXPECT_EQ(last<Note>(data_)->text, "mine;");
  EXPECT_TRUE(last<Reply>(data_)->control.save);
}

TEST_F(Executable, DiesInAConstructor) {
  load("tests/plugins/crash_in_constructor.so");
  const int status = ended();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << status;
}

TEST_F(Executable, EndsWith2AfterSayingWhyAPluginWasNotLoaded) {
  load("tests/plugins/no_entry.so");
  ASSERT_TRUE(wait_for<LoadFailed>(control_));
  const int status = ended();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 2) << status;
}

TEST_F(Executable, SaboteursGarbageIsSeenAsMalformedOnBothConnections) {
  serve("plugins/saboteur.so", {{"how", "garbage"}});
  call("on_step_end");
  ASSERT_TRUE(loop_.run_until([&] { return control_.closed && data_.closed; }, bound()));
  EXPECT_EQ(data_.closed->code, ErrorCode::kMalformed) << data_.closed->message;
  EXPECT_EQ(control_.closed->code, ErrorCode::kMalformed) << control_.closed->message;
}

}  // namespace
}  // namespace bulkhead
