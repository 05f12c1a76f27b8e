// Real processes: each test waits on the end of one, with a deadline.
#include "child_process.h"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <optional>
#include <sstream>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "child_process_guard.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

const std::filesystem::path kShim =
    std::filesystem::path(BULKHEAD_BUILD_DIR) / "coordinator" / "bulkhead-shim";

class ChildProcessTest : public testing::Test {
 protected:
  ChildOptions shell(const std::string& script) {
    ChildOptions options;
    options.shim = kShim;
    options.argv = {"/bin/sh", "-c", script};
    options.env = {"PATH=/usr/bin:/bin", "GREETING=hello"};
    options.log = directory_.path() / "log";
    return options;
  }

  ChildProcess spawn(const ChildOptions& options) {
    auto child = ChildProcess::spawn(loop_, options, [this](const ProcessEnd& end) { end_ = end; });
    CHECK(child.ok(), child.error().message);
    return std::move(*child);
  }

  // How it ended; "alive" when it does not within the deadline.
  std::string ending() {
    if (!wait([this] { return end_.has_value(); })) return "alive";
    return end_->describe();
  }

  std::string ending_of(const std::string& script) {
    const ChildProcess child = spawn(shell(script));
    return ending();
  }

  bool wait(const std::function<bool()>& done) {
    // The timer turns a change that no descriptor announces into a look at it.
    std::function<void()> look = [&] { tick_ = loop_.call_after(5ms, look); };
    look();
    return loop_.run_until(done, loop_.now() + 20s);
  }

  std::string log() {
    std::ifstream file(directory_.path() / "log");
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  // The pid that a script has written to `name`, once it is there.
  pid_t pid_in(const std::string& name) {
    pid_t pid = 0;
    EXPECT_TRUE(wait([&] { return bool(std::ifstream(directory_.path() / name) >> pid); })) << name;
    return pid;
  }

  static bool lives(pid_t pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string number;
    std::string name;
    std::string state;
    return (stat >> number >> name >> state) && state != "Z" && state != "X";
  }

  TemporaryDirectory directory_;
  EventLoop loop_;
  EventLoop::Handle tick_;
  std::optional<ProcessEnd> end_;
};

TEST_F(ChildProcessTest, TellsTheExitStatus) { EXPECT_EQ(ending_of("exit 3"), "exit 3"); }

TEST_F(ChildProcessTest, NamesTheSignal) { EXPECT_EQ(ending_of("kill -SEGV $$"), "SIGSEGV"); }

TEST_F(ChildProcessTest, AppendsBothOutputsToTheLog) {
  EXPECT_EQ(ending_of("echo one"), "exit 0");
  end_.reset();
  EXPECT_EQ(ending_of("echo two >&2; echo $GREETING"), "exit 0");
  EXPECT_EQ(log(), "one\ntwo\nhello\n");
}

TEST_F(ChildProcessTest, SaysInTheLogThatAProgramCannotBeExecuted) {
  ChildOptions options = shell("");
  options.argv = {"/nowhere/python"};
  const ChildProcess child = spawn(options);
  EXPECT_EQ(ending(), "exit 127");
  EXPECT_EQ(log(), "bulkhead-shim: cannot execute /nowhere/python: No such file or directory\n");
}

TEST_F(ChildProcessTest, IsAnErrorWithoutTheShim) {
  ChildOptions options = shell("exit 0");
  options.shim = "/nowhere/shim";
  EXPECT_FALSE(ChildProcess::spawn(loop_, options, [](const ProcessEnd&) {}).ok());
}

TEST_F(ChildProcessTest, StartsInTheDirectoryGiven) {
  ChildOptions options = shell("pwd");
  options.directory = directory_.path();
  const ChildProcess child = spawn(options);
  EXPECT_EQ(ending(), "exit 0");
  EXPECT_EQ(log(), directory_.path().string() + "\n");
}

TEST_F(ChildProcessTest, InheritsNoDescriptorBeyondTheThree) {
  const int fd = ::open("/dev/null", O_RDONLY);  // without close-on-exec
  ASSERT_GE(fd, 3);
  EXPECT_EQ(ending_of("test ! -e /proc/$$/fd/" + std::to_string(fd)), "exit 0");
  ::close(fd);
}

TEST_F(ChildProcessTest, StartsWithSignalsAsAtLogin) {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
  EXPECT_EQ(ending_of("kill -PIPE $$; exit 1"), "SIGPIPE");
  end_.reset();
  EXPECT_EQ(ending_of("kill -TERM $$; exit 1"), "SIGTERM");
  ::sigprocmask(SIG_UNBLOCK, &blocked, nullptr);
  std::signal(SIGPIPE, SIG_DFL);
}

TEST_F(ChildProcessTest, SetsItsLimits) {
  ChildOptions options = shell("ulimit -n; ulimit -v; cat /proc/self/oom_score_adj; nproc");
  options.limits = {.memory_bytes = std::int64_t{1} << 30, .cpu = 1, .open_files = 64};
  options.oom_score_adj = 500;
  const ChildProcess child = spawn(options);
  EXPECT_EQ(ending(), "exit 0");
  EXPECT_EQ(log(), "64\n1048576\n500\n1\n");
}

TEST_F(ChildProcessTest, TerminateIsASignalThatItMayHandle) {
  ChildProcess child = spawn(shell("trap 'exit 5' TERM; echo $$ > " + (directory_.path() / "pid").string() +
                                   "; while :; do sleep 0.01; done"));
  pid_in("pid");
  child.terminate();
  EXPECT_EQ(ending(), "exit 5");
}

TEST_F(ChildProcessTest, KillsTheWholeGroup) {
  const std::string file = (directory_.path() / "pid").string();
  ChildProcess child = spawn(shell("sleep 1000 & echo $! > " + file + "; wait"));
  const pid_t grandchild = pid_in("pid");
  child.kill_group();
  EXPECT_EQ(ending(), "SIGKILL");
  EXPECT_TRUE(wait([&] { return !lives(grandchild); }));
}

TEST_F(ChildProcessTest, KillsWhatAChildLeftBehindInItsGroup) {
  const std::string file = (directory_.path() / "pid").string();
  const ChildProcess child = spawn(shell("sleep 1000 & echo $! > " + file + "; exit 0"));
  EXPECT_EQ(ending(), "exit 0");
  const pid_t grandchild = pid_in("pid");
  EXPECT_TRUE(wait([&] { return !lives(grandchild); }));
}

TEST_F(ChildProcessTest, KillsAStoppedProcess) {
  ChildProcess child = spawn(shell("echo $$ > " + (directory_.path() / "pid").string() + "; kill -STOP $$"));
  pid_in("pid");
  child.kill_group();
  EXPECT_EQ(ending(), "SIGKILL");
}

TEST_F(ChildProcessTest, LeavesNoProcessAndNoZombieWhenDestroyed) {
  pid_t pid = 0;
  {
    const ChildProcess child = spawn(shell("sleep 1000"));
    pid = child.pid();
  }
  EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  EXPECT_FALSE(end_.has_value());
}

TEST_F(ChildProcessTest, ReapsBeforeItTells) {
  const ChildProcess child = spawn(shell("exit 0"));
  EXPECT_EQ(ending(), "exit 0");
  EXPECT_FALSE(child.running());
  EXPECT_EQ(::waitpid(child.pid(), nullptr, WNOHANG), -1);
}

TEST_F(ChildProcessTest, MayBeDestroyedByItsOwnEnd) {
  std::optional<ChildProcess> child;
  auto spawned = ChildProcess::spawn(loop_, shell("exit 4"), [&](const ProcessEnd& end) {
    end_ = end;
    child.reset();
  });
  ASSERT_TRUE(spawned.ok());
  child = std::move(*spawned);
  EXPECT_EQ(ending(), "exit 4");
  EXPECT_FALSE(child.has_value());
}

TEST_F(ChildProcessTest, EndsStraysThatLeftTheirGroup) {
  become_subreaper();
  const std::string file = (directory_.path() / "pid").string();
  const ChildProcess child =
      spawn(shell("setsid sh -c 'echo $$ > " + file + "; exec sleep 1000' & wait $!; exit 0"));
  const pid_t stray = pid_in("pid");
  ::kill(child.pid(), SIGKILL);
  EXPECT_EQ(ending(), "SIGKILL");
  EXPECT_TRUE(lives(stray)) << "it left the group";
  EXPECT_TRUE(wait([] { return end_strays({}) == 0; }));
  EXPECT_FALSE(lives(stray));
  ::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
}

TEST_F(ChildProcessTest, DiesWithItsParent) {
  // A shell in between is the parent that dies.
  const std::string file = (directory_.path() / "pid").string();
  const std::string shim = kShim.string();
  ChildProcess parent = spawn(shell(shim + " exec $$ 0 0 0 0 /bin/sh -c 'echo $$ > " + file +
                                    "; while :; do sleep 0.01; done' & wait"));
  const pid_t child = pid_in("pid");
  ::kill(parent.pid(), SIGKILL);
  EXPECT_EQ(ending(), "SIGKILL");
  EXPECT_TRUE(wait([&] { return !lives(child); }));
}

TEST_F(ChildProcessTest, DoesNotStartWhenItsParentIsGoneAlready) {
  ChildOptions options = shell("");
  options.argv = {kShim.string(), "exec", "1", "0", "0", "0", "0", "/bin/sh", "-c", "echo never"};
  const ChildProcess child = spawn(options);
  EXPECT_EQ(ending(), "exit 127");
  EXPECT_EQ(log(), "");
}

TEST_F(ChildProcessTest, TheGuardRemovesTheDirectoryWhenWeEnd) {
  const std::filesystem::path sockets = directory_.path() / "sockets";
  std::filesystem::create_directory(sockets);
  std::ofstream(sockets / "control") << "";
  {
    const auto guard = ChildProcessGuard::start(kShim, sockets);
    ASSERT_TRUE(guard.ok());
  }
  EXPECT_FALSE(std::filesystem::exists(sockets));
}

TEST_F(ChildProcessTest, TheGuardKillsTheGroupsThatItStillKnows) {
  ChildProcess kept = spawn(shell("sleep 1000"));
  ChildProcess removed = spawn(shell("sleep 1000"));
  {
    auto guard = ChildProcessGuard::start(kShim, directory_.path() / "sockets");
    ASSERT_TRUE(guard.ok());
    guard->add(kept.pid());
    guard->add(removed.pid());
    guard->remove(removed.pid());
  }
  EXPECT_EQ(ending(), "SIGKILL");
  EXPECT_FALSE(kept.running());
  EXPECT_TRUE(removed.running());
}

}  // namespace
}  // namespace bulkhead
