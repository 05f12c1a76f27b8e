#include "protocol/ring_channel.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <optional>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

#include "base_channel.h"
#include "protocol/fd_passing.h"
#include "protocol/ring.h"
#include "protocol/sealed_memory.h"

namespace bulkhead {
namespace {

constexpr int kLooksPerTurn = 128;  // for messages; then other descriptors get their turn
constexpr std::string_view kGreeting = "bulkring 1";

void ring_bell(const UniqueFd& bell) {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, as only its owner or a liar makes it.
  [[maybe_unused]] const ssize_t written = ::write(bell.get(), &one, sizeof one);
}

// A write to anything else could block.
Status check_bell(const UniqueFd& bell) {
  std::array<char, 64> target;
  const std::string link = "/proc/self/fd/" + std::to_string(bell.get());
  const ssize_t size = ::readlink(link.c_str(), target.data(), target.size());
  if (size < 0 || std::string_view(target.data(), static_cast<std::size_t>(size)) != "anon_inode:[eventfd]")
    return Error{ErrorCode::kMalformed, "its bell is not an eventfd"};
  const int flags = ::fcntl(bell.get(), F_GETFL);
  if (flags < 0 || ::fcntl(bell.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return Error{ErrorCode::kUnavailable, std::string("its bell cannot be used: ") + std::strerror(errno)};
  return ok_status();
}

class RingChannel final : public BaseChannel {
 public:
  // `own` has been begun, and the peer has been sent it and the bell.
  RingChannel(EventLoop& loop, UniqueFd socket, Mapping own, UniqueFd bell)
      : BaseChannel(loop),
        socket_(std::move(socket)),
        own_(std::move(own)),
        bell_(std::move(bell)),
        header_(*reinterpret_cast<RingHeader*>(own_.data())),
        writer_(header_) {
    socket_watch_ = loop_.watch_readable(socket_.get(), [this] { socket_ready(); });
  }
  ~RingChannel() override { release(); }

  void send(const Message& message) override {
    CHECK(loop_.in_loop());
    if (closed()) return;
    if (!outbox_.empty()) {
      outbox_.push_back(framed(message));
      return;
    }
    Frames frames = framed(message);
    const Result<bool> gone = write_all(frames);
    if (!gone) return end(gone.error());
    if (!*gone) outbox_.push_back(std::move(frames));
  }

 private:
  // ----- Sending -----

  // Until the message is in the ring or the ring is full: then false.
  Result<bool> write_all(const Frames& frames) {
    for (;;) {
      const Result<RingWriter::Progress> progress = writer_.write(frames);
      if (!progress) return progress.error();
      if (writer_.must_wake()) ring_bell(peer_bell_);
      if (*progress == RingWriter::Progress::kDone) return true;
      if (*progress == RingWriter::Progress::kPart) continue;
      const Result<bool> room = writer_.ask_for_space();
      if (!room) return room.error();
      if (!*room) return false;
    }
  }

  void flush() {
    while (!outbox_.empty()) {
      const Result<bool> gone = write_all(outbox_.front());
      if (!gone) return end(gone.error());
      if (!*gone) return;
      outbox_.pop_front();
    }
  }

  // ----- The socket: the peer's descriptors, later its end -----

  void socket_ready() {
    Result<ReceivedFds> received = receive_fds(socket_.get(), kGreeting.size(), reader_ ? 0 : 2);
    if (!received) return end(about_peer(received.error()));
    switch (received->kind) {
      case ReceivedFds::Kind::kNothingYet:
        return;
      case ReceivedFds::Kind::kEnd:
        return peer_gone();
      case ReceivedFds::Kind::kPacket:
        break;
    }
    if (reader_) return end({ErrorCode::kMalformed, "the peer sent more than its ring over the socket"});
    if (const Status joined = join(*received); !joined) return end(about_peer(joined.error()));
    ring_bell(bell_);  // there may be something in its ring
  }

  static Error about_peer(const Error& error) { return {error.code, "the peer's ring: " + error.message}; }

  Status join(ReceivedFds& received) {
    if (received.bytes != kGreeting) return Error{ErrorCode::kMismatch, "its greeting is another's"};
    const Result<std::size_t> size = check_ring(received.fds[0].get());
    if (!size) return size.error();
    if (const Status bell = check_bell(received.fds[1]); !bell) return bell;
    Result<Mapping> mapping = map_sealed_memory(received.fds[0].get(), kRingHeaderBytes + *size);
    if (!mapping) return mapping.error();
    peer_ = *std::move(mapping);
    peer_bell_ = std::move(received.fds[1]);
    const auto& peer = *reinterpret_cast<const RingHeader*>(peer_.data());
    writer_.attach(peer);
    reader_.emplace(header_, peer, *size);
    bell_watch_ = loop_.watch_bell(bell_.get(), [this] { serve(); });
    if (writer_.must_wake()) ring_bell(peer_bell_);
    return ok_status();
  }

  // What it has sent is in its ring by now.
  void peer_gone() {
    if (reader_) {
      const std::weak_ptr<bool> alive = alive_;
      const Result<bool> news = reader_->look();
      if (!news) return end(news.error());
      for (;;) {
        const Result<bool> got = reader_->next(frames_);
        if (!got) return end(got.error());
        if (!*got) break;
        arrived(frames_);
        if (alive.expired() || closed()) return;
      }
    }
    end({ErrorCode::kUnavailable, "the peer has gone"});
  }

  // ----- The bell: something has come, or there is room -----

  void serve() {
    const std::weak_ptr<bool> alive = alive_;
    flush();
    if (closed()) return;
    for (int i = 0; i < kLooksPerTurn; ++i) {
      const Result<bool> got = reader_->next(frames_);
      if (!got) return end(got.error());
      if (*got) {
        arrived(frames_);
        if (alive.expired() || closed()) return;
        if (reader_->owes_much()) give_back();
        continue;
      }
      Result<bool> news = reader_->look();
      if (news && !*news) {
        give_back();
        news = reader_->fall_asleep();
      }
      if (!news) return end(news.error());
      if (!*news) return;
    }
    give_back();
    ring_bell(bell_);  // there may be more
  }

  void give_back() {
    if (reader_->give_back()) ring_bell(peer_bell_);
  }

  void release() override {
    socket_watch_.reset();
    bell_watch_.reset();
    socket_.reset();  // what tells the peer
  }

  UniqueFd socket_;
  Mapping own_;
  UniqueFd bell_;  // rung by the peer
  RingHeader& header_;
  RingWriter writer_;
  std::deque<Frames> outbox_;  // for want of room

  // Once they have come.
  Mapping peer_;
  UniqueFd peer_bell_;
  std::optional<RingReader> reader_;
  Frames frames_;

  EventLoop::Handle socket_watch_;
  EventLoop::Handle bell_watch_;
};

}  // namespace

Result<std::unique_ptr<Channel>> ring_channel(EventLoop& loop, UniqueFd socket, RingOptions options) {
  CHECK(loop.in_loop());
  CHECK(is_ring_size(options.bytes), std::to_string(options.bytes));
  Result<SealedMemory> memory = make_sealed_memory("bulkhead-ring", kRingHeaderBytes + options.bytes);
  if (!memory) return memory.error();
  UniqueFd bell(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell)
    return Error{ErrorCode::kUnavailable, std::string("cannot make a bell: ") + std::strerror(errno)};
  begin_ring(memory->writable.data(), options.bytes);
  const std::array passed{memory->fd.get(), bell.get()};
  if (const Status sent = send_fds(socket.get(), kGreeting, passed); !sent) return sent.error();
  return std::unique_ptr<Channel>(
      std::make_unique<RingChannel>(loop, std::move(socket), std::move(memory->writable), std::move(bell)));
}

}  // namespace bulkhead
