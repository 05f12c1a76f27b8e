#include "protocol/places.h"

#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <string>
#include <string_view>

#include "protocol/fd_passing.h"

namespace bulkhead {
namespace {

// The packet that shows a segment: its number; its descriptor comes with it.
static_assert(std::endian::native == std::endian::little, "local packets are this machine's own");
constexpr std::size_t kPacketBytes = sizeof(std::int64_t);

Error malformed(std::string what) { return {ErrorCode::kMalformed, std::move(what)}; }

}  // namespace

// What was found and is read no more: a list that any thread puts onto and one
// takes away whole.
class Places::Leases {
 public:
  struct Lease {
    Place place;
    std::shared_ptr<const Segment> segment;
    Lease* next = nullptr;
  };

  ~Leases() {
    take([](const Place&) {});
  }

  void end(Lease* lease) {
    lease->segment.reset();
    lease->next = ended_.load(std::memory_order_relaxed);
    while (!ended_.compare_exchange_weak(lease->next, lease, std::memory_order_release,
                                         std::memory_order_relaxed)) {
    }
  }

  void take(auto&& each) {
    std::unique_ptr<Lease> lease(ended_.exchange(nullptr, std::memory_order_acquire));
    while (lease) {
      each(lease->place);
      lease.reset(lease->next);
    }
  }

 private:
  std::atomic<Lease*> ended_{nullptr};
};

Places::Places(UniqueFd socket) : socket_(std::move(socket)), leases_(std::make_shared<Leases>()) {}

// ----- Sending -----

std::optional<Place> Places::name(const Blob& bytes) {
  if (!begun_ || bytes.segment == nullptr || bytes.size == 0) return std::nullopt;
  const Segment& segment = *bytes.segment;
  if (!shown_.contains(segment.number())) {
    if (shown_.size() >= kMostSegments) return std::nullopt;
    std::array<char, kPacketBytes> packet;
    const std::int64_t number = segment.number();
    std::memcpy(packet.data(), &number, packet.size());
    const int fd = segment.fd();
    if (!send_fds(socket_.get(), {packet.data(), packet.size()}, {&fd, 1})) return std::nullopt;
    shown_.emplace(number, segment.weak_from_this());
  }
  const Place place{segment.number(), bytes.data - segment.data()};
  Named& named = named_[place];
  if (named.bytes.size < bytes.size) named.bytes = bytes;
  ++named.times;
  just_named_.push_back(place);
  return place;
}

Status Places::given_back(const std::vector<Place>& places) {
  for (const Place& place : places) {
    const auto found = named_.find(place);
    if (found == named_.end()) return malformed("it gives back memory that it was not given");
    if (--found->second.times == 0) named_.erase(found);
  }
  return ok_status();
}

std::vector<std::int64_t> Places::take_gone() {
  std::vector<std::int64_t> gone;
  std::erase_if(shown_, [&](const auto& shown) {
    if (!shown.second.expired()) return false;
    gone.push_back(shown.first);
    return true;
  });
  return gone;
}

// ----- Receiving -----

Status Places::receive_shown() {
  for (;;) {
    Result<ReceivedFds> received = receive_fds(socket_.get(), kPacketBytes, 1);
    if (!received) return received.error();
    if (received->kind != ReceivedFds::Kind::kPacket) return ok_status();
    if (received->bytes.size() != kPacketBytes) return malformed("it shows memory without its number");
    std::int64_t number = 0;
    std::memcpy(&number, received->bytes.data(), sizeof number);
    if (peers_.contains(number)) return malformed("it shows two segments of one number");
    if (peers_.size() >= kMostSegments) return malformed("it shows too many segments");
    Result<std::shared_ptr<Segment>> segment = Segment::adopt(std::move(received->fds[0]));
    if (!segment) return segment.error();
    peers_bytes_ += (*segment)->size();
    if (peers_bytes_ > kMostBytes) return malformed("it shows more memory than a peer may");
    peers_[number] = std::move(*segment);
  }
}

Result<Blob> Places::find(Place place, std::size_t bytes) {
  auto found = peers_.find(place.segment);
  if (found == peers_.end()) {
    if (Status shown = receive_shown(); !shown) return shown.error();
    found = peers_.find(place.segment);
    if (found == peers_.end()) return malformed("it names a segment that it has not shown");
  }
  const std::shared_ptr<Segment>& segment = found->second;
  const auto offset = static_cast<std::uint64_t>(place.offset);
  if (place.offset < 0 || offset > segment->size() || bytes > segment->size() - offset) {
    return malformed("it names bytes beyond the end of their segment");
  }
  auto* lease = new Leases::Lease{place, segment};
  std::shared_ptr<Leases::Lease> owner(lease,
                                       [leases = leases_](Leases::Lease* ended) { leases->end(ended); });
  return Blob{std::move(owner), segment->data() + offset, bytes, segment.get()};
}

std::vector<Place> Places::take_unused() {
  std::vector<Place> unused;
  leases_->take([&](const Place& place) { unused.push_back(place); });
  return unused;
}

void Places::gone(const std::vector<std::int64_t>& segments) {
  for (const std::int64_t number : segments) {
    const auto found = peers_.find(number);
    if (found == peers_.end()) continue;
    peers_bytes_ -= found->second->size();
    peers_.erase(found);
  }
}

}  // namespace bulkhead
