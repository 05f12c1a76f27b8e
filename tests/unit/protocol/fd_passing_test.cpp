#include "protocol/fd_passing.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "protocol/local_socket.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

struct Pair {
  UniqueFd left, right;
  Pair() {
    auto both = local_pair();
    EXPECT_TRUE(both.ok());
    left = std::move(both->first);
    right = std::move(both->second);
  }
};

UniqueFd make_event() { return UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

TEST(FdPassing, PassesBytesAndDescriptorsThatWork) {
  Pair pair;
  const UniqueFd one = make_event(), two = make_event();
  ASSERT_TRUE(send_fds(pair.left.get(), "hello", std::array{one.get(), two.get()}).ok());
  const auto received = receive_fds(pair.right.get(), 16, 2);
  ASSERT_TRUE(received.ok()) << received.error().message;
  EXPECT_EQ(received->kind, ReceivedFds::Kind::kPacket);
  EXPECT_EQ(received->bytes, "hello");
  ASSERT_EQ(received->fds.size(), 2u);
  ASSERT_EQ(::eventfd_write(received->fds[1].get(), 7), 0);
  eventfd_t value = 0;
  EXPECT_NE(::eventfd_read(one.get(), &value), 0);
  ASSERT_EQ(::eventfd_read(two.get(), &value), 0);
  EXPECT_EQ(value, 7u);
  for (const UniqueFd& fd : received->fds) EXPECT_TRUE(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC);
}

TEST(FdPassing, KeepsPacketsApartAndPassesNoneToo) {
  Pair pair;
  const UniqueFd event = make_event();
  ASSERT_TRUE(send_fds(pair.left.get(), "a", {}).ok());
  ASSERT_TRUE(send_fds(pair.left.get(), "b", std::array{event.get()}).ok());
  const auto first = receive_fds(pair.right.get(), 16, 0);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->bytes, "a");
  const auto second = receive_fds(pair.right.get(), 16, 1);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->bytes, "b");
  EXPECT_EQ(second->fds.size(), 1u);
}

TEST(FdPassing, PassesAsManyAsTheKernelTakes) {
  Pair pair;
  const UniqueFd event = make_event();
  const std::vector<int> fds(kMaxPassedFds, event.get());
  ASSERT_TRUE(send_fds(pair.left.get(), "x", fds).ok());
  const auto received = receive_fds(pair.right.get(), 1, kMaxPassedFds);
  ASSERT_TRUE(received.ok()) << received.error().message;
  EXPECT_EQ(received->fds.size(), kMaxPassedFds);
}

TEST(FdPassing, DoesNotWait) {
  Pair pair;
  const auto received = receive_fds(pair.right.get(), 16, 0);
  ASSERT_TRUE(received.ok());
  EXPECT_EQ(received->kind, ReceivedFds::Kind::kNothingYet);
  Status sent = ok_status();
  for (int i = 0; i < 100'000 && sent.ok(); ++i) sent = send_fds(pair.left.get(), std::string(1000, 'x'), {});
  ASSERT_FALSE(sent.ok());
  EXPECT_EQ(sent.error().message, "the peer does not read what is passed to it");
}

TEST(FdPassing, ClosesWhatWasNotAskedFor) {
  Pair pair;
  const UniqueFd event = make_event();
  const std::size_t before = open_descriptors();
  const auto complaint = [&](std::size_t sent, std::size_t asked, const std::string& bytes) {
    const std::vector<int> fds(sent, event.get());
    EXPECT_TRUE(send_fds(pair.left.get(), bytes, fds).ok());
    const auto received = receive_fds(pair.right.get(), 4, asked);
    EXPECT_FALSE(received.ok());
    EXPECT_EQ(open_descriptors(), before);
    if (received) return std::string();
    EXPECT_EQ(received.error().code, ErrorCode::kMalformed);
    return received.error().message;
  };
  EXPECT_EQ(complaint(3, 2, "x"), "3 descriptors came where there should be 2");
  EXPECT_EQ(complaint(1, 2, "x"), "1 descriptors came where there should be 2");
  EXPECT_EQ(complaint(1, 0, "x"), "1 descriptors came where there should be 0");
  EXPECT_EQ(complaint(1, 1, "12345"), "a packet of more than 4 bytes came");
}

TEST(FdPassing, SaysWhenThisProcessMayOpenNoMore) {
  Pair pair;
  const UniqueFd event = make_event();
  ASSERT_TRUE(send_fds(pair.left.get(), "x", std::array{event.get(), event.get()}).ok());
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const UniqueFd highest(::dup(event.get()));
  const rlimit tight{static_cast<rlim_t>(highest.get()) + 2, limit.rlim_max};  // one more, not two
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  const auto received = receive_fds(pair.right.get(), 4, 2);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  ASSERT_FALSE(received.ok());
  EXPECT_EQ(received.error().message, "descriptors were lost on the way: this process may open no more");
}

TEST(FdPassing, TellsTheEndAfterWhatWasSent) {
  Pair pair;
  ASSERT_TRUE(send_fds(pair.left.get(), "last", {}).ok());
  // Unread by the left: its end is then an error first, which must not hide what it sent.
  ASSERT_TRUE(send_fds(pair.right.get(), "unread", {}).ok());
  pair.left.reset();
  const auto last = receive_fds(pair.right.get(), 16, 0);
  ASSERT_TRUE(last.ok()) << last.error().message;
  EXPECT_EQ(last->bytes, "last");
  for (int i = 0; i < 2; ++i) {
    const auto end = receive_fds(pair.right.get(), 16, 0);
    ASSERT_TRUE(end.ok());
    EXPECT_EQ(end->kind, ReceivedFds::Kind::kEnd);
  }
  const Status sent = send_fds(pair.right.get(), "x", {});
  ASSERT_FALSE(sent.ok());
  EXPECT_EQ(sent.error().message, "the peer has gone");
}

// ----- local_socket.h -----

class LocalSocket : public testing::Test {
 protected:
  TemporaryDirectory directory_;
  std::string path_ = (directory_.path() / "ring").string();
};

TEST_F(LocalSocket, ConnectsTwoProcessesOfOneUser) {
  const auto listener = listen_local(path_);
  ASSERT_TRUE(listener.ok()) << listener.error().message;
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const auto nobody = accept_local(*listener);
  ASSERT_TRUE(nobody.ok());
  EXPECT_FALSE(static_cast<bool>(*nobody));
  const auto left = connect_local(path_);
  ASSERT_TRUE(left.ok()) << left.error().message;
  const auto right = accept_local(*listener);
  ASSERT_TRUE(right.ok());
  ASSERT_TRUE(static_cast<bool>(*right));
  ASSERT_TRUE(send_fds(left->get(), "x", {}).ok());
  EXPECT_EQ(receive_fds(right->get(), 1, 0)->bytes, "x");
}

TEST_F(LocalSocket, SaysWhyItCannot) {
  EXPECT_EQ(connect_local(path_).error().message,
            "cannot connect to " + path_ + ": No such file or directory");
  const std::string longer = path_ + std::string(200, 'x');
  EXPECT_EQ(listen_local(longer).error().message, "cannot listen at " + longer + ": File name too long");
  EXPECT_EQ(connect_local(longer).error().code, ErrorCode::kUnavailable);
  const auto first = listen_local(path_);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(listen_local(path_).error().message, "cannot listen at " + path_ + ": Address already in use");
}

TEST_F(LocalSocket, TurnsAnotherUserAway) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const auto listener = listen_local(path_);
  ASSERT_TRUE(listener.ok());
  // Let it come as far as the check.
  ASSERT_EQ(::chmod(path_.c_str(), 0666), 0);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(65534) != 0) ::_exit(2);
    const auto socket = connect_local(path_);
    ::_exit(!socket && socket.error().code == ErrorCode::kMismatch ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);  // it does not trust the listener of another user either
  const auto turned_away = accept_local(*listener);
  ASSERT_FALSE(turned_away.ok());
  EXPECT_EQ(turned_away.error().code, ErrorCode::kMismatch);
}

}  // namespace
}  // namespace bulkhead
